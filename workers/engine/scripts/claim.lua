-- Takes up to `want` ready jobs under lease, with payloads, attempt counters and losses, in one call.
--
-- KEYS  1 queue  2 lost  3 clock  4 paused  5 bell  6 arq:abort  7 running
-- ARGV  1 want  2 lease_ms  3 memory_ms (how long after its end a lease is still recognised as lost)
--       4 mode: 'many', or 'alone' (take one suspect: a job whose worker died at least twice)
--       5 '1' if abort requests are to be honoured  6… explicit ids (then only these are considered)
-- Reply {now_ms, next_due_ms or -1, token, suspects, more, paused,
--        then per job: id, score, payload or false, tries or false, losses, aborted}
--
-- A claim moves the job's score to the end of its lease: nobody sees the job as ready before that, neither our
-- workers nor arq's, and nobody has to sweep. arq's keys are known only once the sorted set is read: they cannot be
-- declared, so Redis Cluster is out.
local queue, lost_key, clock_key = KEYS[1], KEYS[2], KEYS[3]
local want, lease, memory = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local alone, honour_aborts = ARGV[4] == 'alone', ARGV[5] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local found
if #ARGV > 5 then
  found = {}
  for i = 6, #ARGV do
    local score = redis.call('ZSCORE', queue, ARGV[i])
    if score and tonumber(score) <= now then
      found[#found + 1] = ARGV[i]
      found[#found + 1] = score
    end
  end
else
  found = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'WITHSCORES', 'LIMIT', 0, want + 1)
end

if #found == 0 then
  local first = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
  return {now, tonumber(first[2]) or -1, 0, 0, 0, 0}
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  return {now, -1, 0, 0, 0, 1}
end

-- Suspects are passed over in mode 'many', so the window is wider by as many as there can be.
local known_losses = redis.call('HLEN', lost_key)
if known_losses > 0 and #ARGV == 5 then
  local window = want + 1 + math.min(known_losses, 1000)
  found = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'WITHSCORES', 'LIMIT', 0, window)
end

local ids, scores, holders_keys = {}, {}, {}
for i = 1, #found, 2 do
  ids[#ids + 1] = found[i]
  scores[#scores + 1] = found[i + 1]
  holders_keys[#holders_keys + 1] = 'arq:in-progress:' .. found[i]
end
local holders = redis.call('MGET', unpack(holders_keys))
local losses_of = known_losses > 0 and redis.call('HMGET', lost_key, unpack(ids)) or {}

local taken, moves, suspects, more = {}, {}, 0, 0
for i = 1, #ids do
  local id, holder, free = ids[i], holders[i], true
  local losses = tonumber(losses_of[i] or 0)
  if holder then
    local left = redis.call('PTTL', holders_keys[i])
    local is_lease = string.sub(holder, 1, 1) == 'L'
    if is_lease and left <= memory then
      -- The lease ran out: its worker died, or was away for that long.
      losses = redis.call('HINCRBY', lost_key, id, 1)
      redis.call('PEXPIRE', lost_key, 86400000)
      redis.call('DEL', holders_keys[i])
    else
      -- Still leased (Job.abort() resets scores), held by stock arq, or a cron job that must not run twice.
      free = false
      local wait = is_lease and left - memory or math.min(left > 0 and left or 5000, 5000)
      moves[#moves + 1] = now + wait
      moves[#moves + 1] = id
    end
  end
  if free then
    local suspect = losses >= 2
    if suspect and not alone then
      suspects = suspects + 1
    elseif alone and not suspect then
      free = false
    elseif #taken >= want then
      more = 1
      if not alone then break end
    else
      taken[#taken + 1] = {id, scores[i], losses}
    end
  end
end

local next_due = -1
if more == 0 then
  local after = redis.call('ZRANGEBYSCORE', queue, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  next_due = tonumber(after[2]) or -1
end
if #taken == 0 then
  if #moves > 0 then redis.call('ZADD', queue, 'XX', unpack(moves)) end
  return {now, next_due, 0, suspects, more, 0}
end

-- Fencing token: Redis's clock in microseconds, never behind the last one given out for this queue.
local token = time[1] * 1000000 + time[2]
local last = redis.call('GET', clock_key)
if last and tonumber(last) >= token then token = tonumber(last) + 1 end
local token_text = string.format('%.0f', token)
redis.call('SET', clock_key, token_text, 'PX', 86400000)

local reads = {}
for i = 1, #taken do
  reads[i] = 'arq:job:' .. taken[i][1]
  reads[#taken + i] = 'arq:retry:' .. taken[i][1]
end
local values = redis.call('MGET', unpack(reads))
local aborts = {}
if honour_aborts then
  local only = {}
  for i = 1, #taken do only[i] = taken[i][1] end
  aborts = redis.call('ZMSCORE', KEYS[6], unpack(only))
end

local leases = {}
local reply, until_ms = {now, next_due, token_text, suspects, more, 0}, now + lease
for i = 1, #taken do
  local id = taken[i][1]
  redis.call('SET', 'arq:in-progress:' .. id, 'L' .. token_text, 'PX', lease + memory)
  leases[2 * i - 1], leases[2 * i] = until_ms, id
  local n = #reply
  reply[n + 1], reply[n + 2] = id, taken[i][2]
  reply[n + 3], reply[n + 4] = values[i], values[#taken + i]
  reply[n + 5], reply[n + 6] = taken[i][3], aborts[i] and 1 or 0
end
redis.call('ZADD', queue, 'XX', unpack(leases))
redis.call('ZADD', KEYS[7], unpack(leases))
if #moves > 0 then redis.call('ZADD', queue, 'XX', unpack(moves)) end

if more == 1 and redis.call('LLEN', KEYS[5]) == 0 then
  -- Work remains: wake the next idle worker.
  redis.call('LPUSH', KEYS[5], '1')
  redis.call('PEXPIRE', KEYS[5], 60000)
end
return reply
