-- Takes, keeps or looks at the lease of a shard, by the server's clock: two replicas'
-- clocks may differ by more than a lease.
-- KEYS: lease
-- ARGV: owner, length in ms, '1' to take a free one
-- Returns: mine (0 or 1), epoch
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'until')
local epoch = tonumber(lease[2]) or 0
local held = lease[1] and lease[1] ~= '' and (tonumber(lease[3]) or 0) > now
if held then
  if lease[1] ~= ARGV[1] then
    return {0, epoch}
  end
  redis.call('HSET', KEYS[1], 'until', now + tonumber(ARGV[2]))
  return {1, epoch}
end
if ARGV[3] ~= '1' then
  return {0, epoch}
end
epoch = epoch + 1
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', epoch, 'until', now + tonumber(ARGV[2]))
return {1, epoch}
