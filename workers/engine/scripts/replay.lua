-- Puts dead jobs back into the queue as new ones.
--
-- KEYS  1 queue  2 dead  3 dead:at  4 bell  5 lost
-- ARGV  1 stagger_ms  2 how many were replayed before these  3… ids
-- Reply the ids that were there. One whose payload had expired, or whose id is in the queue again, stays dead.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local replayed = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local stored = redis.call('HGET', KEYS[2], id)
  local cut = stored and string.find(stored, '\n', 1, true)
  local payload = cut and string.sub(stored, cut + 1) or ''
  if payload ~= '' and not redis.call('ZSCORE', KEYS[1], id) then
    redis.call('SET', 'arq:job:' .. id, payload)
    redis.call('DEL', 'arq:result:' .. id, 'arq:retry:' .. id)
    redis.call('HDEL', KEYS[5], id)
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]) * (tonumber(ARGV[2]) + #replayed), id)
    redis.call('HDEL', KEYS[2], id)
    redis.call('ZREM', KEYS[3], id)
    replayed[#replayed + 1] = id
  end
end
if #replayed > 0 and redis.call('LLEN', KEYS[4]) == 0 then
  redis.call('LPUSH', KEYS[4], '1')
  redis.call('PEXPIRE', KEYS[4], 60000)
end
return replayed
