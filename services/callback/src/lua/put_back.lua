-- Gives due entries back undialled. Only what is still where this worker put it: an entry
-- that was changed meanwhile has been placed by that change.
-- KEYS: shard lease, due, leased, dead
-- ARGV: owner, epoch, due score, lease score given when taken, contacts...
local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
  return 0
end
local count = 0
for i = 5, #ARGV do
  local score = redis.call('ZSCORE', KEYS[3], ARGV[i])
  if score and tonumber(score) == tonumber(ARGV[4]) then
    redis.call('ZREM', KEYS[3], ARGV[i])
    redis.call('ZADD', KEYS[2], ARGV[3], ARGV[i])
    count = count + 1
  end
end
return count
