-- Takes up to `want` ready jobs under lease, lanes in turn, with payloads, attempt counters and losses, in one call.
--
-- KEYS  1 queue  2 lost  3 clock  4 paused  5 bell  6 arq:abort  7 running claims  8 urgent turns  9 bulk turns
--       10 turn  11 jobs held by each claim
-- ARGV  1 want  2 lease_ms  3 memory_ms (how long after its end a lease is still recognised as lost)
--       4 mode: 'many', 'alone' (take one suspect: a job whose worker died at least twice), or 'any' (suspects too)
--       5 '1' if abort requests are to be honoured  6 prefix of lanes  7 prefix of limited groups' sets
--       8 n limits, then n pairs (group, at most)  then explicit ids (then only these are considered)
-- Reply {now_ms, next_due_ms or -1, token, suspects, more, paused, held (limits keep ready work back)},
--       and if jobs were taken six lists, an element per job: ids, scores as they were, payloads or false, tries or
--       false, losses, 1 where an abort is asked for; of the last two an empty list means 0 for all.
--
-- A claim moves the job's score to the end of its lease: nobody sees the job as ready before that, neither our
-- workers nor arq's, and nobody has to sweep. arq's keys are known only once the sorted set is read: they cannot be
-- declared, so Redis Cluster is out.
--
-- Scores: a job that waits in a lane has its due time less 2^52, so all such jobs lie below zero and what is in no
-- lane (arq's own producers, work that came due, lapsed leases) is found between zero and now without scanning.
local LANED = 4503599627370496
local SUSPECT, RETURNING, EXTRA_VISITS, MINUS = 2, 500, 64, 45
local queue, lost_key, clock_key = KEYS[1], KEYS[2], KEYS[3]
local want, lease, memory = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local alone, any = ARGV[4] == 'alone', ARGV[4] == 'any'
local honour_aborts, lane_prefix, group_prefix = ARGV[5] == '1', ARGV[6], ARGV[7]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local limits, limited = {}, tonumber(ARGV[8]) > 0
for i = 9, 7 + 2 * ARGV[8], 2 do limits[ARGV[i]] = tonumber(ARGV[i + 1]) end
local explicit = #ARGV > 8 + 2 * ARGV[8] and {unpack(ARGV, 9 + 2 * ARGV[8])}

if not explicit then
  local first = tonumber(redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')[2])
  if not first or first > now then return {now, first or -1, 0, 0, 0, 0, 0} end
end
if redis.call('EXISTS', KEYS[4]) == 1 then return {now, -1, 0, 0, 0, 1, 0} end

local known_losses = redis.call('HLEN', lost_key)
local moves, suspects, more, held = {}, 0, 0, 0
local loose, returning, seen = {}, {}, {}
local fresh, group_members = {}, {}
-- What is taken: lists in step, because a table per job costs more than the rest of its claim.
local count, anxious, ids_taken, scores_taken, losses_taken, holders_taken = 0, false, {}, {}, {}, {}

local function move(id, score)
  moves[#moves + 1], moves[#moves + 2] = score, id
end

local function take(id, score, losses, holder_key, groups)
  count = count + 1
  ids_taken[count], scores_taken[count], losses_taken[count], holders_taken[count] = id, score, losses, holder_key
  anxious = anxious or losses > 0
  if groups then
    for _, group in ipairs(groups) do
      fresh[group.name] = (fresh[group.name] or 0) + 1
      group_members[#group_members + 1] = {group_prefix .. group.name, id}
    end
  end
end

-- A claim holds one job less; one that holds nothing is forgotten.
local function let_go(token)
  if redis.call('HINCRBY', KEYS[11], token, -1) <= 0 then
    redis.call('HDEL', KEYS[11], token)
    redis.call('ZREM', KEYS[7], token)
  end
end

-- The losses of each of these jobs, or false for those that may not be taken now. `keys` gets their in-progress keys.
local function vet(ids, keys, in_lane)
  for i = 1, #ids do keys[i] = 'arq:in-progress:' .. ids[i] end
  local holders = redis.call('MGET', unpack(keys))
  local losses_of = known_losses > 0 and redis.call('HMGET', lost_key, unpack(ids)) or {}
  local free = {}
  for i = 1, #ids do
    local losses = tonumber(losses_of[i] or 0)
    if holders[i] then
      local left = redis.call('PTTL', keys[i])
      local is_lease = string.sub(holders[i], 1, 1) == 'L'
      if is_lease and left <= memory then
        -- The lease ran out: its worker died, or was away for that long.
        losses = redis.call('HINCRBY', lost_key, ids[i], 1)
        redis.call('PEXPIRE', lost_key, 86400000)
        redis.call('DEL', keys[i])
        let_go(string.sub(holders[i], 2))
        known_losses = known_losses + 1
      else
        -- Still leased (Job.abort() resets scores), held by stock arq, or a cron job that must not run twice.
        move(ids[i], now + (is_lease and left - memory or math.min(left > 0 and left or 5000, 5000)))
        losses = false
      end
    end
    if losses and not any and (losses >= SUSPECT) ~= alone then
      if not alone then
        suspects = suspects + 1
        if in_lane then move(ids[i], now) end
      end
      losses = false
    end
    free[i] = losses
  end
  return free
end

-- Sorts what is due outside the lanes into `loose` and, by their lanes, `returning`. Suspects are passed over in
-- mode 'many', so the window is wider by as many as there can be.
local function look(found)
  local ids, dues = {}, {}
  for i = 1, #found, 2 do
    if not seen[found[i]] then
      seen[found[i]] = true
      ids[#ids + 1], dues[#dues + 1] = found[i], found[i + 1]
    end
  end
  if #ids == 0 then return end
  local held_keys, keys = {}, {}
  local free = vet(ids, held_keys)
  for i = 1, #ids do keys[i] = 'arq:job:' .. ids[i] end
  local payloads = redis.call('MGET', unpack(keys))
  for i = 1, #ids do
    if free[i] then
      local lane = not alone and not explicit and payloads[i] and string.match(payloads[i], '"lane":"([^"]*)"}$')
      if lane then
        returning[lane] = returning[lane] or {}
        table.insert(returning[lane], 1, ids[i])
        local due = tonumber(dues[i])
        move(ids[i], due < 0 and due or due - LANED)
      else
        loose[#loose + 1] = {ids[i], dues[i], free[i], held_keys[i]}
      end
    end
  end
end

if explicit then
  local found, scores = {}, redis.call('ZMSCORE', queue, unpack(explicit))
  for i = 1, #explicit do
    if scores[i] and tonumber(scores[i]) <= now then
      found[#found + 1], found[#found + 2] = explicit[i], scores[i]
    end
  end
  look(found)
else
  -- Without any lane, what lies below zero has lost its lane, and is put into one again.
  local lowest = redis.call('EXISTS', KEYS[8], KEYS[9]) > 0 and 0 or '-inf'
  local window = want + 1 + math.min(known_losses, 1000)
  look(redis.call('ZRANGEBYSCORE', queue, lowest, now, 'WITHSCORES', 'LIMIT', 0, window))
  if next(returning) then
    look(redis.call('ZRANGEBYSCORE', queue, lowest, now, 'WITHSCORES', 'LIMIT', 0, RETURNING))
  end
end

local function turns_of(lane)
  return string.sub(lane, 1, 1) == 'u' and KEYS[8] or KEYS[9]
end

-- Work that comes back waited its turn already: it goes to the head of its lane.
for lane, ids in pairs(returning) do
  if redis.call('LPUSH', lane_prefix .. lane, unpack(ids)) == #ids then redis.call('RPUSH', turns_of(lane), lane) end
end
if #moves > 0 then redis.call('ZADD', queue, 'XX', unpack(moves)) end
moves = {}

-- Whether a worker that lives holds the job.
local function runs(id)
  local holder = redis.call('GET', 'arq:in-progress:' .. id)
  local ends = holder and redis.call('ZSCORE', KEYS[7], string.sub(holder, 2))
  return ends and tonumber(ends) > now
end

-- How many of `share` jobs of a lane the limits let through now. A group's set is pruned only when it is full: it is
-- never counted down, so that no crash can leave it wrong.
local function allowed(groups, share)
  for _, group in ipairs(groups) do
    local key, running = group_prefix .. group.name, fresh[group.name] or 0
    if running + redis.call('SCARD', key) + share > group.limit then
      for _, id in ipairs(redis.call('SMEMBERS', key)) do
        if runs(id) then running = running + 1 else redis.call('SREM', key, id) end
      end
      share = math.min(share, math.max(0, group.limit - running))
    end
  end
  return share
end

local function groups_of(lane)
  local kind, tenant = string.match(lane, '^%a/([^/]*)/(.*)$')
  local groups = {}
  local per_type, per_tenant = limits['type ' .. kind], limits['tenant ' .. tenant] or limits['tenant *']
  if per_type then groups[1] = {name = 'type ' .. kind, limit = per_type} end
  if per_tenant then groups[#groups + 1] = {name = 'tenant ' .. tenant, limit = per_tenant} end
  return groups
end

local visits = 0
-- Takes from lanes in turn, each its share of the room, until the room is used or a whole round brings nothing.
local function from_lanes(turns, room)
  local goal = math.min(want, count + room)
  local progress = true
  while progress and count < goal do
    progress = false
    local lanes = redis.call('LLEN', turns)
    local equal = math.max(1, math.floor((goal - count) / lanes))
    for _ = 1, lanes do
      if count >= goal then return end
      if visits >= want + EXTRA_VISITS then
        more = 1
        return
      end
      visits = visits + 1
      local lane = redis.call('LMOVE', turns, turns, 'LEFT', 'RIGHT')
      local key, groups = lane_prefix .. lane, limited and groups_of(lane) or nil
      local share = groups and allowed(groups, equal) or equal
      local ids = share > 0 and redis.call('LPOP', key, share) or {}
      local found = #ids
      local waiting, dues, keys, n = {}, {}, {}, 0
      local scores = found > 0 and redis.call('ZMSCORE', queue, unpack(ids)) or {}
      for i = 1, found do
        -- An entry whose job is gone, or has moved (stock arq ran it, say), is dropped.
        local score = scores[i]
        if score and string.byte(score) == MINUS then
          n = n + 1
          waiting[n], dues[n] = ids[i], score
        end
      end
      local free = n > 0 and vet(waiting, keys, true)
      for i = 1, n do
        if free[i] then take(waiting[i], dues[i], free[i], keys[i], groups) end
      end
      if share == 0 then held = 1 end
      progress = progress or found > 0
      if found < share or redis.call('EXISTS', key) == 0 then redis.call('RPOP', turns) end
    end
  end
end

local loosened = 0
local function from_loose(room)
  while room > 0 and count < want and loosened < #loose do
    loosened, room = loosened + 1, room - 1
    take(unpack(loose[loosened]))
  end
end

local urgent, bulk = 0, 0
if not alone and not explicit then urgent, bulk = redis.call('LLEN', KEYS[8]), redis.call('LLEN', KEYS[9]) end
if urgent + bulk == 0 then
  from_loose(want)
else
  -- Urgent before bulk, but bulk keeps a quarter; what has no lane counts as one bulk lane. `turn` makes the shares
  -- hold also for workers that claim one job at a time.
  local turn = redis.call('INCR', KEYS[10])
  redis.call('PEXPIRE', KEYS[10], 86400000)
  local others = bulk + (#loose > 0 and 1 or 0)
  local kept = others > 0 and math.floor((want + turn % 4) / 4) or 0
  from_lanes(KEYS[8], want - kept)
  local room = want - count
  from_loose(math.floor((room + turn % (bulk + 1)) / (bulk + 1)))
  from_lanes(KEYS[9], want - count)
  from_loose(want)
  from_lanes(KEYS[8], want - count)
  if count >= want and redis.call('EXISTS', KEYS[8], KEYS[9]) > 0 then more = 1 end
end
if loosened < #loose then more = 1 end
if #moves > 0 then redis.call('ZADD', queue, 'XX', unpack(moves)) end

local next_due = -1
if more == 0 then
  local after = redis.call('ZRANGEBYSCORE', queue, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  next_due = tonumber(after[2]) or -1
end
if count == 0 then return {now, next_due, 0, suspects, more, 0, held} end

-- Fencing token: Redis's clock in microseconds, never behind the last one given out for this queue.
local token = time[1] * 1000000 + time[2]
local last = redis.call('GET', clock_key)
if last and tonumber(last) >= token then token = tonumber(last) + 1 end
local token_text = string.format('%.0f', token)
redis.call('SET', clock_key, token_text, 'PX', 86400000)

local payload_keys, retry_keys, leases, holders = {}, {}, {}, {'MSETEX', count}
local ends, holder, held_ms = now + lease, 'L' .. token_text, lease + memory
for i = 1, count do
  local id = ids_taken[i]
  payload_keys[i], retry_keys[i] = 'arq:job:' .. id, 'arq:retry:' .. id
  leases[2 * i - 1], leases[2 * i] = ends, id
  holders[2 * i + 1], holders[2 * i + 2] = holders_taken[i], holder
end
holders[2 * count + 3], holders[2 * count + 4] = 'PX', held_ms
local set = redis.pcall(unpack(holders))
if type(set) == 'table' and set.err then
  -- Servers before Valkey 9.1 and Redis 8.4 know no MSETEX.
  for i = 1, count do redis.call('PSETEX', holders_taken[i], held_ms, holder) end
end
redis.call('ZADD', queue, 'XX', unpack(leases))
redis.call('ZADD', KEYS[7], ends, token_text)
redis.call('HSET', KEYS[11], token_text, count)
for _, member in ipairs(group_members) do
  redis.call('SADD', member[1], member[2])
  redis.call('PEXPIRE', member[1], 86400000)
end
local aborts = {}
if honour_aborts and redis.call('EXISTS', KEYS[6]) == 1 then
  for i, asked in ipairs(redis.call('ZMSCORE', KEYS[6], unpack(ids_taken))) do aborts[i] = asked and 1 or 0 end
end
if more == 1 and redis.call('LLEN', KEYS[5]) == 0 then
  -- Work remains: wake the next idle worker.
  redis.call('LPUSH', KEYS[5], '1')
  redis.call('PEXPIRE', KEYS[5], 60000)
end
return {now, next_due, token_text, suspects, more, 0, held, ids_taken, scores_taken,
        redis.call('MGET', unpack(payload_keys)), redis.call('MGET', unpack(retry_keys)),
        anxious and losses_taken or {}, aborts}
