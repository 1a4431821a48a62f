-- Prolongs a relay's lease. KEYS: lease. ARGV: instance, lease ms. Returns 1, or 0 if it is not ours.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
