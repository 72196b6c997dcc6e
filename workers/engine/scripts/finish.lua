-- Ends many claims in one call: done, run again, or dead; refuses those whose lease another worker has now.
--
-- KEYS  1 queue  2 lost  3 clock  4 dead  5 dead:at  6 bell  7 arq:abort  8 running claims
--       9 jobs held by each claim
-- ARGV  1 n, then n times (token, '1' if attempts may have been charged, ids separated by newlines): done without a
--       result, the common case
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

local refused, deletes, leaves, moves, ring = {}, {}, {}, {}, false

-- A claim that holds nothing any more is forgotten.
local function let_go(token, jobs)
  if jobs > 0 and redis.call('HINCRBY', KEYS[9], token, -jobs) <= 0 then
    redis.call('HDEL', KEYS[9], token)
    redis.call('ZREM', KEYS[8], token)
  end
end

-- Which of these jobs are still ours.
local function holds(ids, keys, mine)
  local holders = redis.call('MGET', unpack(keys))
  for i = 1, #ids do
    holders[i] = holders[i] == mine or (not holders[i] and redis.call('ZSCORE', queue, ids[i]) and true)
    if not holders[i] then refused[#refused + 1] = ids[i] end
  end
  return holders
end

local gone = 0
for at = 2, 3 * n, 3 do
  local charged, ids, keys, count = ARGV[at + 1] == '1', {}, {}, 0
  for id in string.gmatch(ARGV[at + 2], '[^\n]+') do
    count = count + 1
    ids[count], keys[count] = id, 'arq:in-progress:' .. id
  end
  local ours, before = holds(ids, keys, 'L' .. ARGV[at]), #leaves
  for i = 1, count do
    if ours[i] then
      local id = ids[i]
      leaves[#leaves + 1], deletes[gone + 1], deletes[gone + 2] = id, keys[i], 'arq:job:' .. id
      gone = gone + 2
      if charged then
        gone = gone + 1
        deletes[gone] = 'arq:retry:' .. id
      end
    end
  end
  let_go(ARGV[at], #leaves - before)
end

for at = 3 * n + 2, #ARGV, 9 do
  local id, token, verb, delay, attempt, result, ttl, keep, letter = unpack(ARGV, at, at + 8)
  local key = 'arq:in-progress:' .. id
  if not holds({id}, {key}, 'L' .. token)[1] then
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
    deletes[#deletes + 1] = key
    moves[#moves + 1] = now + tonumber(delay)
    moves[#moves + 1] = id
    let_go(token, 1)
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
      redis.call('SET', key, 'kept', 'PX', keep)
    else
      deletes[#deletes + 1] = key
    end
    deletes[#deletes + 1] = 'arq:job:' .. id
    deletes[#deletes + 1] = 'arq:retry:' .. id
    leaves[#leaves + 1] = id
    let_go(token, 1)
  end
end

if #deletes > 0 then redis.call('DEL', unpack(deletes)) end
if #moves > 0 then redis.call('ZADD', queue, 'XX', unpack(moves)) end
if #leaves > 0 then
  redis.call('ZREM', queue, unpack(leaves))
  if redis.call('EXISTS', KEYS[7]) == 1 then redis.call('ZREM', KEYS[7], unpack(leaves)) end
  if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('HDEL', KEYS[2], unpack(leaves)) end
  if redis.call('EXISTS', queue) == 0 then redis.call('DEL', KEYS[3]) end
end
if ring and redis.call('LLEN', KEYS[6]) == 0 then
  redis.call('LPUSH', KEYS[6], '1')
  redis.call('PEXPIRE', KEYS[6], 60000)
end
return refused
