-- How a call to the model API ended: what the provider says of its limits, and whether to do more or less at once.
-- The window of calls under way grows by one when a window full of calls went well, and is halved when the provider
-- is overloaded, at most once a second (additive increase, multiplicative decrease; Chiu and Jain 1989).
--
-- KEYS: 1 the model's state (HASH), 2 calls under way (ZSET), 3 the account's pause (HASH)
-- ARGV: 1 call id, 2 end (ok, limited, away, paused, dropped), 3 ms to wait or -1, 4 to 7 requests per minute and left,
--       tokens per minute and left (-1: not said), 8 tokens used more than was said when asking, 9 widest window,
--       10 burst ms, 11 reason as JSON
-- Returns: 'resumed' when this call ended a pause, 'paused' when it began one, else ''
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local said = ''
local state = redis.call('HMGET', KEYS[1], 'window', 'cut', 'strikes', 'requests_full', 'tokens_full', 'requests', 'tokens')
local widest = tonumber(ARGV[9])
local window, cut, strikes = tonumber(state[1] or widest), tonumber(state[2] or 0), tonumber(state[3] or 0)
local under_way = redis.call('ZCARD', KEYS[2])
redis.call('ZREM', KEYS[2], ARGV[1])

local function set(name, value)
  redis.call('HSET', KEYS[1], name, string.format('%.3f', value))
end

-- A provider that has nothing left gives no burst: somebody else uses the same account.
local function heard(limit_name, full_name, per_minute, left, full, need)
  if per_minute <= 0 then
    return
  end
  set(limit_name, per_minute)
  if left >= 0 and left < need then
    set(full_name, math.max(full, now + tonumber(ARGV[10]) + 61200 * (need - left) / per_minute))
  end
end
heard('requests', 'requests_full', tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(state[4] or 0), 1)
heard('tokens', 'tokens_full', tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(state[5] or 0), 1)
local more, tokens = tonumber(ARGV[8]), tonumber(state[7] or 0)
if more ~= 0 and tokens > 0 then
  set('tokens_full', tonumber(redis.call('HGET', KEYS[1], 'tokens_full') or now) + more * 61200 / tokens)
end

if ARGV[2] == 'ok' then
  if redis.call('DEL', KEYS[3]) == 1 then
    said = 'resumed'
  end
  if under_way * 2 >= window then
    set('window', math.min(widest, window + 1 / window))
  end
  if strikes > 0 then
    redis.call('HDEL', KEYS[1], 'strikes')
  end
elseif ARGV[2] == 'limited' or ARGV[2] == 'away' then
  if now > cut then
    set('window', math.max(1, window / 2))
    set('cut', now + 1000)
    strikes = math.min(strikes + 1, 6)
    redis.call('HSET', KEYS[1], 'strikes', strikes)
  end
  if ARGV[2] == 'limited' then
    redis.call('HINCRBY', KEYS[1], 'refusals', 1)
    local wait = tonumber(ARGV[3])
    if wait < 0 then
      wait = 500 * 2 ^ math.max(1, strikes)
    end
    local blocked = math.max(now + wait, tonumber(redis.call('HGET', KEYS[1], 'blocked') or 0))
    set('blocked', blocked)
    -- What waited for the end of the block does not come all at once.
    set('requests_full', math.max(blocked + tonumber(ARGV[10]), tonumber(state[4] or 0)))
  end
elseif ARGV[2] == 'paused' then
  local every = tonumber(redis.call('HGET', KEYS[3], 'every') or 1000)
  every = math.min(every * 2, 600000)
  if redis.call('HSETNX', KEYS[3], 'since', string.format('%.0f', now)) == 1 then
    said = 'paused'
  end
  redis.call('HSET', KEYS[3], 'reason', ARGV[11], 'every', every, 'probe_at', string.format('%.0f', now + math.max(every, tonumber(ARGV[3]))))
  redis.call('PEXPIRE', KEYS[3], 86400000)
end
redis.call('PEXPIRE', KEYS[1], 3600000)
return said
