-- Gives a shard's lease up.
-- KEYS: lease
-- ARGV: owner, epoch
local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if lease[1] == ARGV[1] and lease[2] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'owner', '', 'until', 0)
  return 1
end
return 0
