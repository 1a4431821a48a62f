-- Counts one batch, once. All or nothing: everything is checked before anything is written.
-- KEYS: progress, a key for each contact state, for each issue, for each hash of counters.
-- ARGV: number of partitions, then for each: name, expected next offset ('' : none yet),
--         new next offset, applied, repeated, malformed;
--       number of states, then for each: value, ttl ms;
--       number of issues, then for each: value as read ('' : none), new value, ttl ms;
--       number of hashes, then for each: ttl ms (0: for good), number of fields, (field, amount)...
-- Returns {'counted'}, or {'moved', partition...} whose offset is not the expected one, or
--   {'issue'} when another partition's consumer has changed one meanwhile.
local arg = 1
local function take()
  local value = ARGV[arg]
  arg = arg + 1
  return value
end

local partitions = {}
local moved = {'moved'}
for i = 1, tonumber(take()) do
  local p = {name = take(), expected = take(), next = take(), applied = take(), repeated = take(), malformed = take()}
  partitions[i] = p
  if (redis.call('HGET', KEYS[1], p.name .. ':next') or '') ~= p.expected then
    moved[#moved + 1] = p.name
  end
end
if #moved > 1 then return moved end

local key = 1
local states = {}
for i = 1, tonumber(take()) do
  key = key + 1
  states[i] = {KEYS[key], take(), take()}
end
local issues = {}
for i = 1, tonumber(take()) do
  key = key + 1
  local read = take()
  if (redis.call('GET', KEYS[key]) or '') ~= read then return {'issue'} end
  issues[i] = {KEYS[key], take(), take()}
end

for _, p in ipairs(partitions) do
  redis.call('HSET', KEYS[1], p.name .. ':next', p.next)
  redis.call('HINCRBY', KEYS[1], p.name .. ':applied', p.applied)
  redis.call('HINCRBY', KEYS[1], p.name .. ':repeated', p.repeated)
  redis.call('HINCRBY', KEYS[1], p.name .. ':malformed', p.malformed)
end
for _, s in ipairs(states) do redis.call('SET', s[1], s[2], 'PX', s[3]) end
for _, s in ipairs(issues) do redis.call('SET', s[1], s[2], 'PX', s[3]) end
for _ = 1, tonumber(take()) do
  key = key + 1
  local ttl = tonumber(take())
  for _ = 1, tonumber(take()) do
    local field = take()
    redis.call('HINCRBY', KEYS[key], field, take())
  end
  if ttl > 0 then redis.call('PEXPIRE', KEYS[key], ttl) end
end
return {'counted'}
