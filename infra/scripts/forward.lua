-- Makes jobs that wait on one queue due now, and rings the bell. A job under lease keeps its place, and so does one that
-- is due already; a job that is not there is not put there.
--
-- KEYS: 1 queue (ZSET), 2 bell (LIST)
-- ARGV: ids
-- Returns: how many jobs came forward.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local moved = 0
for i = 1, #ARGV do
  if redis.call('EXISTS', 'arq:in-progress:' .. ARGV[i]) == 0 then
    moved = moved + redis.call('ZADD', KEYS[1], 'XX', 'CH', 'LT', now, ARGV[i])
  end
end
if moved > 0 then
  redis.call('LPUSH', KEYS[2], '1')
  redis.call('LTRIM', KEYS[2], 0, 3)
  redis.call('PEXPIRE', KEYS[2], 60000)
end
return moved
