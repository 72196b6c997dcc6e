-- Puts jobs on one arq queue: payload without expiry, place in the queue, one ring of the bell. Idempotent: a job that
-- waits or runs keeps its place, and its payload is the same, because it holds nothing but the event's id.
--
-- KEYS: 1 queue (ZSET), 2 bell (LIST)
-- ARGV: 1 job key prefix, then per job: id, delay in milliseconds, payload
-- Returns: how many jobs were not there before.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local added = 0
for i = 2, #ARGV, 3 do
  redis.call('SET', ARGV[1] .. ARGV[i], ARGV[i + 2], 'NX')
  added = added + redis.call('ZADD', KEYS[1], 'NX', now + ARGV[i + 1], ARGV[i])
end
if added > 0 then
  redis.call('LPUSH', KEYS[2], '1')
  redis.call('LTRIM', KEYS[2], 0, 3)
  redis.call('PEXPIRE', KEYS[2], 60000)
end
return added
