-- Takes a free pool. KEYS: lease, fence. ARGV: owner, address, lease_ms, epoch to resume (0: none).
-- Returns {state, epoch, batch, holder, ms left}: held | acquired | resumed.
local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if lease[1] and lease[1] ~= ARGV[1] then
  return {'held', lease[2], '0', lease[1], tostring(redis.call('PTTL', KEYS[1]))}
end
local fence = redis.call('HMGET', KEYS[2], 'epoch', 'owner', 'batch')
local state, epoch, batch = 'acquired', nil, '0'
if ARGV[4] ~= '0' and fence[1] == ARGV[4] and fence[2] == ARGV[1] then
  state, epoch, batch = 'resumed', fence[1], fence[3]
else
  local time = redis.call('TIME')
  local next = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local last = tonumber(fence[1] or '0')
  if next <= last then next = last + 1 end
  epoch = string.format('%.0f', next)
  redis.call('HSET', KEYS[2], 'epoch', epoch, 'owner', ARGV[1], 'batch', '0')
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'owner', ARGV[1], 'address', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {state, epoch, batch, ARGV[1], ARGV[3]}
