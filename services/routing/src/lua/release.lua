-- Gives a pool up. KEYS: lease. ARGV: owner, epoch. Returns 1 if it was ours.
local lease = redis.call('HMGET', KEYS[1], 'epoch', 'owner')
if lease[1] ~= ARGV[2] or lease[2] ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1
