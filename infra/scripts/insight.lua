-- How a queue stands, at a cost that does not depend on how much is waiting.
--
-- KEYS: 1 queue (ZSET), 2 running claims (ZSET), 3 dead:at (ZSET), 4 paused, 5 urgent turns (LIST), 6 bulk turns (LIST),
--       7 tally (HASH), 8 jobs held by each running claim (HASH)
-- Returns: ready, deferred, running, oldest ready age in milliseconds or -1, dead, paused, lanes that wait, tally
--
-- What waits in a lane has its due time less 2^52 as its score (see claim.lua of the engine).
local LANED = 4503599627370496
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ready = redis.call('ZCOUNT', KEYS[1], '-inf', now)
local running, claims = 0, redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now, '+inf')
for _, jobs in ipairs(#claims > 0 and redis.call('HMGET', KEYS[8], unpack(claims)) or {}) do
  running = running + (tonumber(jobs or 0))
end
local deferred = math.max(0, redis.call('ZCARD', KEYS[1]) - ready - running)
local age = -1
if ready > 0 then
  local laned = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(0', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  local loose = redis.call('ZRANGEBYSCORE', KEYS[1], 0, now, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  age = now - math.min(laned and tonumber(laned) + LANED or now, loose and tonumber(loose) or now)
end
local lanes = redis.call('LLEN', KEYS[5]) + redis.call('LLEN', KEYS[6])
return {ready, deferred, running, age, redis.call('ZCARD', KEYS[3]), redis.call('EXISTS', KEYS[4]), lanes,
        redis.call('HGETALL', KEYS[7])}
