-- May one call to the model API be made now, in a moment, or not? Shared by all processes that use the same account.
--
-- Requests and tokens are paced by the generic cell rate algorithm (ITU-T I.371): each has the time at which its
-- allowance is used up ("full"); a call may begin when that lies less than a burst ahead, and moves it on. A call that
-- may begin within the horizon gets its place at once, so nobody has to ask twice.
--
-- KEYS: 1 the model's state (HASH), 2 calls under way (ZSET by end of lease), 3 the account's pause (HASH)
-- ARGV: 1 call id, 2 tokens, 3 burst ms, 4 horizon ms, 5 share of the window in percent, 6 lease ms, 7 urgent (1 or 0),
--       8 and 9 requests and tokens per minute as an operator set them (0: as the provider says), 10 widest window
-- Returns: {'go', ms to wait first}, {'wait', ms after which to ask again}, or {'paused', ms, reason as JSON}
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

local pause = redis.call('HMGET', KEYS[3], 'reason', 'probe_at', 'every')
if pause[1] then
  local probe_at = tonumber(pause[2])
  if now < probe_at then
    return {'paused', math.ceil(probe_at - now), pause[1]}
  end
  -- This call is the one that finds out whether it works again; the others wait for it.
  redis.call('HSET', KEYS[3], 'probe_at', string.format('%.0f', now + tonumber(pause[3])))
end

local state = redis.call('HMGET', KEYS[1], 'requests', 'tokens', 'requests_full', 'tokens_full', 'blocked', 'window', 'urgent')
local requests = tonumber(ARGV[8]) > 0 and tonumber(ARGV[8]) or tonumber(state[1] or 0)
local tokens = tonumber(ARGV[9]) > 0 and tonumber(ARGV[9]) or tonumber(state[2] or 0)
local requests_full, tokens_full = tonumber(state[3] or 0), tonumber(state[4] or 0)
local blocked, window, urgent = tonumber(state[5] or 0), tonumber(state[6] or ARGV[10]), tonumber(state[7] or 0)
local burst, horizon = tonumber(ARGV[3]), tonumber(ARGV[4])

local begin = math.max(now, blocked, requests_full - burst, tokens_full - burst)
local wait = begin - now
if ARGV[7] ~= '1' and urgent > now then
  -- Somebody who is waited for found no room a moment ago and comes first.
  return {'wait', math.ceil(math.max(wait, urgent - now))}
end
if wait > horizon then
  return {'wait', math.ceil(wait - horizon)}
end

redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local room = math.max(1, math.floor(window * ARGV[5] / 100))
if redis.call('ZCARD', KEYS[2]) >= room then
  if ARGV[7] == '1' then
    redis.call('HSET', KEYS[1], 'urgent', string.format('%.0f', now + 150))
  end
  return {'wait', 50}
end
redis.call('ZADD', KEYS[2], begin + ARGV[6], ARGV[1])
redis.call('PEXPIRE', KEYS[2], math.ceil(wait + ARGV[6]))
-- Two hundredths stay unused, so that clocks and windows which do not match ours bring no refusal.
if requests > 0 then
  redis.call('HSET', KEYS[1], 'requests_full', string.format('%.3f', math.max(requests_full, begin) + 61200 / requests))
end
if tokens > 0 then
  redis.call('HSET', KEYS[1], 'tokens_full', string.format('%.3f', math.max(tokens_full, begin) + ARGV[2] * 61200 / tokens))
end
redis.call('HSET', KEYS[1], 'window', tostring(window))
redis.call('PEXPIRE', KEYS[1], 3600000)
return {'go', math.ceil(wait)}
