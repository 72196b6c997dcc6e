-- How a queue stands, at a cost that does not depend on how much is waiting.
--
-- KEYS: 1 queue (ZSET), 2 running (ZSET), 3 dead:at (ZSET), 4 paused
-- Returns: ready, deferred, running, oldest ready age in milliseconds or -1, dead, paused
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ready = redis.call('ZCOUNT', KEYS[1], '-inf', now)
local running = redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf')
local deferred = math.max(0, redis.call('ZCARD', KEYS[1]) - ready - running)
local age = -1
if ready > 0 then
  age = now - tonumber(redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2])
end
return {ready, deferred, running, age, redis.call('ZCARD', KEYS[3]), redis.call('EXISTS', KEYS[4])}
