-- Ends many claims in one call: done, run again, or dead; refuses those whose lease another worker has now.
--
-- KEYS  1 queue  2 lost  3 clock  4 dead  5 dead:at  6 bell  7 arq:abort  8 running
-- ARGV  1 n, then n pairs (token, ids separated by newlines): done without a result, the common case
--       then per other job: id, token, verb, delay_ms, attempt, result, result_ttl_ms, keep_ms, dead letter
--         verb 'done' | 'dead' | 'again' | 'lost' (again, and its process died) | 'forgiven' (again, and its losses are
--         forgotten). result '' = none; result_ttl_ms 0 = for ever. attempt '' = not charged.
--         keep_ms > 0: the in-progress key stays that long (cron jobs, so that they do not run twice).
-- Reply the refused ids.
--
-- A claim whose in-progress key vanished (Redis was away for longer than the lease) still counts while the job is
-- in the queue: nobody else has it. Every verb is idempotent, because a cut connection makes the worker send twice.
local queue = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local n = tonumber(ARGV[1])

local ids, tokens, terms, holder_keys = {}, {}, {}, {}
for group = 1, n do
  local token = ARGV[2 * group]
  for id in string.gmatch(ARGV[2 * group + 1], '[^\n]+') do
    ids[#ids + 1] = id
    tokens[#ids] = token
  end
end
for at = 2 * n + 2, #ARGV, 9 do
  ids[#ids + 1] = ARGV[at]
  tokens[#ids] = ARGV[at + 1]
  terms[#ids] = {unpack(ARGV, at + 2, at + 8)}
end
for i = 1, #ids do holder_keys[i] = 'arq:in-progress:' .. ids[i] end
local holders = redis.call('MGET', unpack(holder_keys))

local ended = {}
local refused, deletes, leaves, moves, ring = {}, {}, {}, {}, false
local plain = {'done', '0', '', '', '0', '0', ''}
for i = 1, #ids do
  local id = ids[i]
  local verb, delay, attempt, result, ttl, keep, letter = unpack(terms[i] or plain)
  local mine = holders[i] == 'L' .. tokens[i]
  if not mine and not holders[i] then mine = redis.call('ZSCORE', queue, id) and true end
  if not mine then
    refused[#refused + 1] = id
  else
    ended[#ended + 1] = id
  end
  if not mine then
    -- Nothing of it is ours to change.
  elseif verb == 'again' or verb == 'lost' or verb == 'forgiven' then
    if verb == 'lost' then
      redis.call('HINCRBY', KEYS[2], id, 1)
      redis.call('PEXPIRE', KEYS[2], 86400000)
    elseif verb == 'forgiven' then
      redis.call('HDEL', KEYS[2], id)
    end
    if attempt ~= '' then
      redis.call('SET', 'arq:retry:' .. id, attempt, 'PX', 88400000 + tonumber(delay))
    end
    deletes[#deletes + 1] = holder_keys[i]
    moves[#moves + 1] = now + tonumber(delay)
    moves[#moves + 1] = id
    ring = true
  else
    if verb == 'dead' then
      local payload = redis.call('GET', 'arq:job:' .. id)
      redis.call('HSET', KEYS[4], id, letter .. '\n' .. (payload or ''))
      redis.call('ZADD', KEYS[5], now, id)
    end
    if result ~= '' then
      if ttl == '0' then
        redis.call('SET', 'arq:result:' .. id, result)
      else
        redis.call('SET', 'arq:result:' .. id, result, 'PX', ttl)
      end
    end
    if keep ~= '0' then
      redis.call('SET', holder_keys[i], 'kept', 'PX', keep)
    else
      deletes[#deletes + 1] = holder_keys[i]
    end
    deletes[#deletes + 1] = 'arq:job:' .. id
    deletes[#deletes + 1] = 'arq:retry:' .. id
    leaves[#leaves + 1] = id
  end
end

if #deletes > 0 then redis.call('DEL', unpack(deletes)) end
if #moves > 0 then redis.call('ZADD', queue, 'XX', unpack(moves)) end
if #ended > 0 then redis.call('ZREM', KEYS[8], unpack(ended)) end
if #leaves > 0 then
  redis.call('ZREM', queue, unpack(leaves))
  redis.call('ZREM', KEYS[7], unpack(leaves))
  redis.call('HDEL', KEYS[2], unpack(leaves))
  if redis.call('ZCARD', queue) == 0 then redis.call('DEL', KEYS[3]) end
end
if ring and redis.call('LLEN', KEYS[6]) == 0 then
  redis.call('LPUSH', KEYS[6], '1')
  redis.call('PEXPIRE', KEYS[6], 60000)
end
return refused
