-- Prolongs a lease. KEYS: lease, fence. ARGV: owner, epoch, lease_ms, address.
-- A lease that ran out is taken up again as long as nobody raised the fence meanwhile.
-- Returns 1, or 0: deposed.
local fence = redis.call('HMGET', KEYS[2], 'epoch', 'owner')
if fence[1] ~= ARGV[2] or fence[2] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'owner', ARGV[1], 'address', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
