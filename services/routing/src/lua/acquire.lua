-- Takes a free pool. KEYS: lease, fence. ARGV: owner, address, lease_ms.
-- Returns {'held' | 'acquired', epoch, owner}.
local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if lease[1] and lease[1] ~= ARGV[1] then
  return {'held', lease[2], lease[1]}
end
local time = redis.call('TIME')
local epoch = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local last = tonumber(redis.call('HGET', KEYS[2], 'epoch') or '0')
if epoch <= last then epoch = last + 1 end
epoch = string.format('%.0f', epoch)
redis.call('HSET', KEYS[2], 'epoch', epoch, 'owner', ARGV[1], 'batch', '0')
redis.call('HSET', KEYS[1], 'epoch', epoch, 'owner', ARGV[1], 'address', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'acquired', epoch, ARGV[1]}
