-- Puts jobs on one arq queue: payload without expiry, place in the queue, place in a lane, one ring of the bell.
-- Idempotent: a job that waits or runs keeps its place, and its payload is the same, because it holds nothing but the
-- event's id and its lane.
--
-- KEYS: 1 queue (ZSET), 2 bell (LIST), 3 urgent turns (LIST), 4 bulk turns (LIST)
-- ARGV: 1 job key prefix, 2 prefix of lanes, then per group of jobs that differ by their ids only:
--       lane ('' = none), delay in milliseconds, payload before the id, payload after it, ids separated by newlines
--       (one argument for all ids, because redis-py encodes arguments one by one, in Python)
-- Returns: how many jobs were not there before.
--
-- A job that waits in a lane has its due time less 2^52 as its score (see claim.lua). Deferred jobs enter their lane
-- when they come due: the claim reads it from the payload.
local LANED = 4503599627370496
local queue, lane_prefix = KEYS[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if redis.call('ZCARD', queue) == 0 and redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then
  -- Other workers than ours ran everything that the lanes speak of.
  for i = 3, 4 do
    for _, lane in ipairs(redis.call('LRANGE', KEYS[i], 0, -1)) do redis.call('UNLINK', lane_prefix .. lane) end
    redis.call('DEL', KEYS[i])
  end
end

local added, entered = 0, {}
for i = 3, #ARGV, 5 do
  local lane, delay, head, tail = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local waits = lane ~= '' and delay == 0
  local ids, seen = {}, {}
  for id in string.gmatch(ARGV[i + 4], '[^\n]+') do
    if not seen[id] then
      seen[id], ids[#ids + 1] = true, id
    end
  end
  local scores = redis.call('ZMSCORE', queue, unpack(ids))
  local payloads, places, new = {}, {}, {}
  for n, id in ipairs(ids) do
    if scores[n] then
      redis.call('SET', ARGV[1] .. id, head .. id .. tail, 'NX')
    else
      local at = #payloads
      payloads[at + 1], payloads[at + 2] = ARGV[1] .. id, head .. id .. tail
      places[at + 1], places[at + 2] = waits and now - LANED or now + delay, id
      new[#new + 1] = id
    end
  end
  if #new > 0 then
    redis.call('MSET', unpack(payloads))
    redis.call('ZADD', queue, unpack(places))
    added = added + #new
    if waits then
      local queued = entered[lane] or {}
      entered[lane] = queued
      for _, id in ipairs(new) do queued[#queued + 1] = id end
    end
  end
end

for lane, ids in pairs(entered) do
  local key = lane_prefix .. lane
  local length = redis.call('RPUSH', key, unpack(ids))
  if length == #ids then
    redis.call('RPUSH', string.sub(lane, 1, 1) == 'u' and KEYS[3] or KEYS[4], lane)
  elseif length > redis.call('ZCARD', queue) then
    -- Entries of jobs that are gone lie at the head: stock arq takes jobs in this order too, and knows no lanes.
    local head = redis.call('LRANGE', key, 0, 2 * #ids)
    local scores, gone = redis.call('ZMSCORE', queue, unpack(head)), 0
    while gone < #head and not (scores[gone + 1] and tonumber(scores[gone + 1]) < 0) do gone = gone + 1 end
    redis.call('LTRIM', key, gone, -1)
  end
end

if added > 0 then
  redis.call('LPUSH', KEYS[2], '1')
  redis.call('LTRIM', KEYS[2], 0, 3)
  redis.call('PEXPIRE', KEYS[2], 60000)
end
return added
