-- Gives a relay's lease up. KEYS: lease. ARGV: instance. Returns 1, or 0 if it was not ours.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
