-- Applies one batch, once, if the writer still owns the pool.
-- KEYS: fence, contacts, agents, meta, outbox.
-- ARGV: owner, epoch, batch, now, meta record ('' : unchanged),
--   then for contacts and for agents: number of puts, (id, record)..., number of deletions, id...,
--   then number of events, (contact, sequence, bytes, traceparent)...
-- Returns {state, number}: applied + outbox length | repeated + outbox length |
--   deposed + epoch of the fence | gap + last batch that is there.
local fence = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'batch')
if fence[2] ~= ARGV[1] or fence[1] ~= ARGV[2] then
  return {'deposed', fence[1] or '0'}
end
local stored, batch = tonumber(fence[3]), tonumber(ARGV[3])
if stored == batch then
  return {'repeated', tostring(redis.call('XLEN', KEYS[5]))}
end
if stored ~= batch - 1 then
  return {'gap', fence[3]}
end
local at = 6
-- Lua's stack holds some 8,000 values: chunks of at most 1,000.
local function each_chunk(command, key, values)
  local last = at + values - 1
  while at <= last do
    local to = math.min(at + 999, last)
    redis.call(command, key, unpack(ARGV, at, to))
    at = to + 1
  end
end
for key = 2, 3 do
  local puts = tonumber(ARGV[at])
  at = at + 1
  each_chunk('HSET', KEYS[key], puts * 2)
  local deletions = tonumber(ARGV[at])
  at = at + 1
  each_chunk('HDEL', KEYS[key], deletions)
end
local events = tonumber(ARGV[at])
at = at + 1
for _ = 1, events do
  redis.call('XADD', KEYS[5], '*', 'k', ARGV[at], 's', ARGV[at + 1], 'v', ARGV[at + 2], 't', ARGV[at + 3])
  at = at + 4
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[4], 'now', ARGV[4], 'record', ARGV[5])
else
  redis.call('HSET', KEYS[4], 'now', ARGV[4])
end
redis.call('HSET', KEYS[1], 'batch', ARGV[3])
return {'applied', tostring(redis.call('XLEN', KEYS[5]))}
