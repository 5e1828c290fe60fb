-- Report a heartbeat, free the chunks of dead workers, and wake jobs that a worker dropped before it claimed them.
-- ARGV: worker ("" for none), report, heartbeat ttl (ms), seed for tokens, most chunks to free, lease (ms).
-- Returns {freed, woken, waiting chunks, leased chunks, batches to look after...}; see reap.lua.
local worker, seed, most = ARGV[1], ARGV[4], tonumber(ARGV[5])
local tokens = 0
-- Without any heartbeat for so long, leases may have ended that nobody could renew; each third of one they are renewed.
local ABSENCE_MS = math.max(500, tonumber(ARGV[6]) * 2 / 3)
local LOOKS, DEADLINE_LOOKS = 4, 100 -- after batches, in one heartbeat
write_even_if_full()
local function bits()
  tokens = tokens + 1
  return string.sub(redis.sha1hex(seed .. tokens), 1, 16)
end

if worker ~= '' then
  redis.call('ZADD', WORKERS, now, worker)
  redis.call('SET', ns .. ':w:' .. worker, ARGV[2], 'PX', ARGV[3])
  redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', now - 86400000)
  redis.call('EXPIRE', WORKERS, 86400)
end

-- While nobody came here nobody could renew either: the server was away, or all workers were. Leases that ended
-- meanwhile say nothing about their holders, who get one more lease to come back.
local last = tonumber(redis.call('GET', TAKEN_OVER))
redis.call('SET', TAKEN_OVER, now, 'EX', 86400)
if last and now - last > ABSENCE_MS then
  local until_ms = now + tonumber(ARGV[6])
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now)) do
    local batch, chunk, token = parse_attempt(id)
    local rec = load_chunk(batch, chunk)
    -- Once: a holder that has not renewed since the last time is dead, however rarely anybody comes here.
    if rec and rec.t == token and rec.e ~= tonumber(redis.call('ZSCORE', LEASES, id)) then
      rec.e = until_ms
      save_chunk(batch, chunk, rec)
      redis.call('ZADD', LEASES, until_ms, id)
    end
  end
end

-- Shards of one operation whose leases end together, as those of one host do, had one death.
local function count_loading_death(batch, rec)
  local payloads, field = key(batch, part.PAYLOADS), 'v' .. rec.p
  local raw = redis.call('HGET', payloads, field)
  local loading = raw and cmsgpack.unpack(raw) or {deaths = 0, last = 0}
  if now - loading.last < tonumber(ARGV[6]) then return end
  redis.call('HSET', payloads, field, cmsgpack.pack({deaths = loading.deaths + 1, last = now}))
end

-- Count the death of a worker that held a chunk; as one of which nobody knows what ran, unless its recorder told that. A
-- chunk that was tried for the first time has not said what it did; one that is tried again is innocent until it runs.
local function count_death(batch, rec, token)
  if rec.y == token then
    rec.z = true
  elseif rec.i == PHASE.LOADING then
    count_loading_death(batch, rec)
  elseif rec.i == PHASE.RUNNING or (not rec.i and rec.d == 0) then
    rec.u, rec.o, rec.z = rec.u + 1, token, false
  end
  if rec.i ~= PHASE.WAITING then rec.d = rec.d + 1 end
end

local freed = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, most)) do
  local batch, chunk, token = parse_attempt(id)
  local rec = load_chunk(batch, chunk)
  redis.call('ZREM', LEASES, id)
  if rec and rec.t == token and rec.s == 'l' then
    count_death(batch, rec, token)
    rec.n, rec.q = rec.n + 1, 0
    enqueue(batch, chunk, rec, bits())
    freed = freed + 1
  end
end

-- A worker may die after it took an id from the wake list and before its claim. arq marks the job as in progress for
-- 10 s in between; what is older than 2 s, marked for longer than 2 s, and on no wake list was dropped. What is unmarked
-- may be on its way from the list to arq: it is marked here, and gets one more second.
local woken = 0
local function wake_again(id, list)
  local batch, chunk, token = parse_attempt(id)
  local rec = batch and load_chunk(batch, chunk)
  local marked = redis.call('PTTL', ARQ.IN_PROGRESS .. id)
  if not rec or rec.t ~= token then
    forget_job(id)
  elseif rec.s == 'w' and marked < ARQ.IN_PROGRESS_MS - 2000 and not redis.call('LPOS', list, id) then
    if marked < 0 then
      redis.call('SET', ARQ.IN_PROGRESS .. id, 1, 'PX', ARQ.IN_PROGRESS_MS - 1000)
      return
    end
    forget_job(id)
    enqueue(batch, chunk, rec, bits())
    woken = woken + 1
  end
end
-- Of one wake list what was dropped is older than what still waits, so the oldest are enough.
for _, lane in ipairs(LANES) do
  for _, priority in ipairs(PRIORITIES) do
    local newest, list = queue_score(lane, priority), wake(lane, priority)
    local range = {'(' .. (newest - ARQ.LANE_GAP_MS), newest - 2000}
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', QUEUE, range[1], range[2], 'LIMIT', 0, 32)) do wake_again(id, list) end
  end
end

-- One worker at a time looks after a batch: for the others it is not due again for a while.
local due = {}
for name, looks in pairs({[DEADLINES] = DEADLINE_LOOKS, [OPEN] = LOOKS}) do
  for _, batch in ipairs(redis.call('ZRANGEBYSCORE', name, '-inf', now, 'LIMIT', 0, looks)) do
    if redis.call('EXISTS', key(batch, part.META)) == 1 then
      redis.call('ZADD', name, now + LOOK_AFTER_MS, batch)
      due[#due + 1] = batch
    else
      redis.call('ZREM', name, batch)
    end
  end
end
return {freed, woken, depth(), redis.call('ZCARD', LEASES), unpack(due)}
