-- Renews every lease that this worker holds, in one call, and says which ones another worker has now.
--
-- KEYS  1 queue  2 running claims  3 jobs held by each claim
-- ARGV  1 lease_ms  2 memory_ms, then pairs (id, token)
-- Reply the ids whose lease is lost.
--
-- A lease whose in-progress key vanished while the job is in the queue is taken again: nobody else has it. A job
-- that is no longer in the queue (Redis was emptied) keeps running; the ledger decides when it commits.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, memory = tonumber(ARGV[1]), tonumber(ARGV[2])
local keys = {}
for i = 3, #ARGV, 2 do keys[#keys + 1] = 'arq:in-progress:' .. ARGV[i] end
local holders = redis.call('MGET', unpack(keys))
local lost, moves, claims = {}, {}, {}
for i = 1, #keys do
  local id, mine = ARGV[2 * i + 1], 'L' .. ARGV[2 * i + 2]
  if holders[i] == mine then
    redis.call('PEXPIRE', keys[i], lease + memory)
  elseif holders[i] then
    lost[#lost + 1] = id
    id = nil
  elseif redis.call('ZSCORE', KEYS[1], id) then
    redis.call('SET', keys[i], mine, 'PX', lease + memory)
  else
    id = nil
  end
  if id then
    moves[#moves + 1] = now + lease
    moves[#moves + 1] = id
    claims[ARGV[2 * i + 2]] = true
  end
end
if #moves > 0 then
  redis.call('ZADD', KEYS[1], 'XX', unpack(moves))
  for token in pairs(claims) do redis.call('ZADD', KEYS[2], now + lease, token) end
end
-- What died with its worker long ago, and left the queue by another way.
local old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - memory)
if #old > 0 then
  redis.call('ZREM', KEYS[2], unpack(old))
  redis.call('HDEL', KEYS[3], unpack(old))
end
return lost
