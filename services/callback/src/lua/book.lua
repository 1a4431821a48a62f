-- Books a callback, all or nothing.
-- KEYS: record, active, codes, held, reports
-- ARGV: contact, active field, revision expected ('' none), data, held score,
--       reports score, wake channel, shard, candidate codes...
local revision = redis.call('HGET', KEYS[1], 'rev')
if (revision or '') ~= ARGV[3] then
  return {'known'}
end
local holder = redis.call('HGET', KEYS[2], ARGV[2])
if holder then
  return {'existing', holder}
end
local code = nil
for i = 9, #ARGV do
  if redis.call('HSETNX', KEYS[3], ARGV[i], ARGV[1]) == 1 then
    code = ARGV[i]
    break
  end
end
if not code then
  return {'no_code'}
end
local next_revision = (tonumber(ARGV[3]) or 0) + 1
redis.call('HSET', KEYS[1], 'rev', next_revision, 'data', ARGV[4], 'state', 'booked', 'code', code)
redis.call('PERSIST', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[5], ARGV[1])
redis.call('ZADD', KEYS[5], ARGV[6], ARGV[1])
return {'booked', next_revision, code}
