-- What the shard's leaseholder has to do now. What is taken from held, leased and due is
-- leased to it until a deadline: if it dies, the next one finds it there. A report is put
-- back for its next repetition before it is sent.
-- KEYS: shard lease, held, due, leased, dead, reports
-- ARGV: owner, epoch, now, leased until, reports again at, limit of held and leased each,
--       limit of due, limit of reports, prefix of records
local lease = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then
  return {'deposed'}
end
local now = ARGV[3]
local dead = 0

local function records(ids, out)
  for _, id in ipairs(ids) do
    local record = redis.call('HMGET', ARGV[9] .. id, 'rev', 'data', 'code')
    if record[2] then
      out[#out + 1] = {id, record[1], record[2], record[3] or ''}
    else
      for i = 2, 4 do redis.call('ZREM', KEYS[i], id) end
      redis.call('ZREM', KEYS[6], id)
      redis.call('ZADD', KEYS[5], now, id)
      dead = dead + 1
    end
  end
  return out
end

local function first(key, limit)
  if tonumber(limit) == 0 then return {} end
  return redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, limit)
end

local function lease_all(key, ids)
  for _, id in ipairs(ids) do
    if key ~= KEYS[4] then redis.call('ZREM', key, id) end
    redis.call('ZADD', KEYS[4], ARGV[4], id)
  end
end

local ticks = {}
local overdue = first(KEYS[4], ARGV[6])
lease_all(KEYS[4], overdue)
records(overdue, ticks)
local stale = first(KEYS[2], ARGV[6])
lease_all(KEYS[2], stale)
records(stale, ticks)

local turns = first(KEYS[3], ARGV[7])
lease_all(KEYS[3], turns)
local dials = records(turns, {})

local ids = first(KEYS[6], ARGV[8])
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[6], ARGV[5], id) end
local reports = records(ids, {})

local waiting = redis.call('ZCOUNT', KEYS[3], '-inf', now)
return {'taken', ticks, dials, reports, waiting, dead}
