-- Takes a seat of a window. A seat already taken by the contact is the same seat.
-- KEYS: seats
-- ARGV: contact, capacity, epoch ms at which the key may go
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 1
end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
return 1
