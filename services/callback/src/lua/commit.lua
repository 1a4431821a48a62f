-- Writes a changed booking if nobody else has, and puts it where it belongs.
-- KEYS: record, held, due, leased, reports, active, codes
-- ARGV: contact, revision expected, data, state, set (0 none, 1 held, 2 due, 3 leased),
--       score, reports ('none', 'keep', or a score), active field, code,
--       time to live once over ('' while active), wake channel ('' not), shard
if redis.call('HGET', KEYS[1], 'rev') ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'rev', tonumber(ARGV[2]) + 1, 'data', ARGV[3], 'state', ARGV[4])
local set = tonumber(ARGV[5])
for i = 1, 3 do
  if i == set then
    redis.call('ZADD', KEYS[i + 1], ARGV[6], ARGV[1])
  else
    redis.call('ZREM', KEYS[i + 1], ARGV[1])
  end
end
if ARGV[7] == 'none' then
  redis.call('ZREM', KEYS[5], ARGV[1])
elseif ARGV[7] == 'keep' then
  redis.call('ZADD', KEYS[5], 'NX', 0, ARGV[1])
else
  redis.call('ZADD', KEYS[5], ARGV[7], ARGV[1])
end
if ARGV[10] ~= '' then
  if redis.call('HGET', KEYS[6], ARGV[8]) == ARGV[1] then
    redis.call('HDEL', KEYS[6], ARGV[8])
  end
  if redis.call('HGET', KEYS[7], ARGV[9]) == ARGV[1] then
    redis.call('HDEL', KEYS[7], ARGV[9])
  end
  if ARGV[7] == 'none' then
    redis.call('PEXPIRE', KEYS[1], ARGV[10])
  end
end
if ARGV[11] ~= '' then
  redis.call('PUBLISH', ARGV[11], ARGV[12])
end
return 1
