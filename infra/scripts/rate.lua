-- Lets one message of an endpoint through at its rate (GCRA: the time at which the next one is due is all that is kept).
--
-- KEYS: 1 the endpoint's time (expires when it has passed)
-- ARGV: 1 milliseconds between messages, 2 messages that may come at once, 3 the longest wait that is accepted, in ms
-- Returns: milliseconds to wait; when that is longer than what is accepted, nothing was reserved.
local now = redis.call('TIME')
now = now[1] * 1000 + now[2] / 1000
local interval = tonumber(ARGV[1])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local wait = math.max(0, due - now - interval * (tonumber(ARGV[2]) - 1))
if wait <= tonumber(ARGV[3]) then
  due = due + interval
  redis.call('SET', KEYS[1], string.format('%.3f', due), 'PX', math.ceil(due - now) + 1000)
end
return math.ceil(wait)
