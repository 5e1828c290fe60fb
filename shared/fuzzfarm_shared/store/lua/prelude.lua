-- Shared by all scripts. KEYS[1] is the namespace; what stands in capitals and is not defined here, and `part`, are
-- written by server.py from keys.py.
--
-- The life of a chunk, kept as one record in the batch's chunks hash until the batch has ended:
--
--            submit                claim                    commit (final)
--     ( ) ----------> waiting ----------------> leased ---------------------> done
--                        ^                      |    |
--                        |  hand back (all)     |    | hand back (rest): a new waiting chunk
--                        +----------------------+    | gets [k, b), this one keeps [a, k)
--                        |  take over: the lease     |
--                        +-- ended, deaths + 1 ------+       what deaths lead to: chunks/suspicion.py
--
-- Every arrow is one script. A write names the attempt's token; a token that is not the record's is refused, so that
-- a worker which was believed dead changes nothing. All of them are idempotent: a client repeats one after a lost
-- reply. Keys are made from names in data, so the scripts need one server, not a cluster.
--
-- The record of a chunk:
--   s state ("w", "l", "d": done, with its last token and nothing else), t token, n attempt, k kind (a `ChunkKind`, or nil),
--   l lane, w worker, r workers that refused it, e until when its lease was extended after an outage
--   p payload, a, b units [a, b), m units with an outcome (packed by the client), q last commit
--   d deaths, u those of them in which nobody knows what ran, o token of the last of these
--   i what is done with a chunk that is tried again (an `AttemptPhase`, or nil: nothing yet)
--   c how many operations its worker, or one that died before, runs at once
--   x which examples ran when workers died ({first, last, deaths}), y token of the last of these workers, z whether nobody
--     died after it of whom less is known, g examples of it that were blamed
--   f id of the finding that it examines

local ns = KEYS[1]
local QUEUE, LEASES, BATCHES, WORKERS = ns .. ':queue', ns .. ':leases', ns .. ':batches', ns .. ':workers'
local TAKEN_OVER, STOPS = ns .. ':taken-over', ns .. ':stops'
local OPEN, DEADLINES = ns .. ':open', ns .. ':deadlines'

local LOOK_AFTER_MS = 30000

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local now = now_ms()

-- A full server (`maxmemory`, noeviction) refuses the first write of a script if that may take memory, and nothing after
-- it. So every script makes up its mind with its first write, before it has changed anything:
-- new operations need room, and what ends operations, and so makes room, goes through.
local function refuse_if_full() redis.call('SET', ns .. ':room', 1, 'EX', 86400) end
local function write_even_if_full() redis.call('DEL', ns .. ':full') end

local function key(batch, suffix) return ns .. ':b:' .. batch .. suffix end
local function wake(lane, priority) return ns .. ':wake:' .. lane .. ':' .. priority end
local function attempt_id(batch, chunk, rec) return batch .. '/' .. chunk .. '@' .. rec.t end

local function parse_attempt(id)
  return string.match(id, '^(.*)/(%d+)@(.*)$')
end

-- The record of a chunk; none of a batch that has expired or was evicted, whatever is left of it.
local function load_chunk(batch, chunk)
  if redis.call('EXISTS', key(batch, part.META)) == 0 then return nil end
  local raw = redis.call('HGET', key(batch, part.CHUNKS), chunk)
  return raw and cmsgpack.unpack(raw)
end

-- Whether the last commit of a chunk was that of this attempt, which may not know it yet.
local function has_ended(batch, chunk, token, rec)
  if rec and rec.s == 'd' and rec.t == token then return true end
  return redis.call('HGET', key(batch, part.META), 'last') == chunk .. '@' .. token
end

-- Let a key that this script may have made expire with its batch, even if nothing ever touches the batch again.
local function keep(batch, suffix)
  local name = key(batch, suffix)
  if redis.call('TTL', name) == -1 then
    redis.call('EXPIRE', name, redis.call('HGET', key(batch, part.META), 'ttl'))
  end
end

-- The same for a key of the whole farm, which lives at least as long as any batch.
local function keep_shared(name, ttl)
  if redis.call('TTL', name) < tonumber(ttl) then redis.call('EXPIRE', name, ttl) end
end

local function save_chunk(batch, chunk, rec)
  redis.call('HSET', key(batch, part.CHUNKS), chunk, cmsgpack.pack(rec))
  keep(batch, part.CHUNKS)
end

-- Renew the life of a batch; at most every 30 s, because it costs a command per key.
local function touch(batch, force)
  local meta = key(batch, part.META)
  local state = redis.call('HMGET', meta, 'ttl', 'touched')
  if not state[1] or (not force and now - tonumber(state[2]) < 30000) then return end
  redis.call('HSET', meta, 'touched', now)
  for _, suffix in pairs(part) do
    if suffix ~= part.WATCHED and suffix ~= part.PROGRESS then redis.call('EXPIRE', key(batch, suffix), state[1]) end
  end
  for payload = 0, tonumber(redis.call('HGET', meta, 'partials') or -1) do
    redis.call('EXPIRE', key(batch, part.PARTIALS) .. payload, state[1])
  end
  if redis.call('HGET', meta, 'finished') == false then redis.call('ZADD', OPEN, 'NX', now + LOOK_AFTER_MS, batch) end
  for _, name in ipairs({QUEUE, LEASES, BATCHES, WORKERS, OPEN, DEADLINES}) do keep_shared(name, state[1]) end
end

-- Each wake list has its own stretch of arq's queue, so that the oldest of one are found behind any number of another.
local function queue_score(lane, priority)
  local rank = 0
  for _, a in ipairs(LANES) do
    for _, b in ipairs(PRIORITIES) do
      if a == lane and b == priority then return now - ARQ.CLOCK_SKEW_MS - rank * ARQ.LANE_GAP_MS end
      rank = rank + 1
    end
  end
end

-- Give a chunk a new token and let arq and a waiting worker see it, in front of others if it is to be `first`.
local function enqueue(batch, chunk, rec, bits, first)
  rec.s, rec.t, rec.w, rec.e, rec.i = 'w', rec.n .. '-' .. bits, nil, nil, nil
  save_chunk(batch, chunk, rec)
  local id = attempt_id(batch, chunk, rec)
  local meta = redis.call('HMGET', key(batch, part.META), 'ttl', 'priority')
  local ttl, list = meta[1], wake(rec.l, meta[2])
  redis.call('SET', ARQ.JOB .. id, cmsgpack.pack({f = ARQ.FUNCTION, et = now}), 'EX', ttl)
  redis.call('ZADD', QUEUE, queue_score(rec.l, meta[2]), id)
  redis.call(first and 'LPUSH' or 'RPUSH', list, id)
  for _, name in ipairs({QUEUE, list}) do keep_shared(name, ttl) end
end

local function forget_job(id)
  redis.call('ZREM', QUEUE, id)
  redis.call('DEL', ARQ.JOB .. id, ARQ.RETRY .. id)
end

-- A chunk with a fresh record: `fields` overrides the defaults; `first` as for `enqueue`.
local function new_chunk(batch, fields, bits, first)
  local chunk = redis.call('HINCRBY', key(batch, part.META), 'chunks', 1) - 1
  local rec = {n = 1, m = '', q = 0, d = 0, u = 0, g = 0}
  for name, value in pairs(fields) do rec[name] = value end
  enqueue(batch, tostring(chunk), rec, bits, first)
  return chunk
end

-- Whether workers of `most` hosts, or all that live, have refused the chunk: the processes of one host are set up alike.
local function is_refused(rec, most, alive_ms)
  local refused, hosts, count = {}, {}, 0
  for _, name in ipairs(rec.r) do
    local host = string.match(name, '^(.*)%-%d+%-%x+$') or name
    refused[name] = true
    if not hosts[host] then hosts[host], count = true, count + 1 end
  end
  if count >= most then return true, refused end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, now - alive_ms, '+inf')) do
    if not refused[name] then return false, refused end
  end
  return true, refused
end

-- End the batch if it is sealed and nothing is pending.
local function finish_if_complete(batch)
  local meta = key(batch, part.META)
  local c = redis.call('HMGET', meta, 'total', 'succeeded', 'failed', 'cancelled', 'sealed', 'finished')
  local pending = c[1] - c[2] - c[3] - c[4]
  if pending > 0 or c[5] ~= '1' or c[6] then return end
  redis.call('HSET', meta, 'finished', now)
  redis.call('ZREM', OPEN, batch)
  redis.call('ZREM', DEADLINES, batch)
  redis.call('XADD', key(batch, part.OUTCOMES), '*', 'end', 1)
  redis.call('DEL', key(batch, part.PAYLOADS), key(batch, part.CHUNKS), key(batch, part.DIGESTS))
  touch(batch, true)
  return true
end

local function flag(meta, name) return redis.call('HGET', meta, name) == '1' and 1 or 0 end

-- Why the batch was told to stop, or ''.
local function stop_reason(meta) return redis.call('HGET', meta, 'stop') or '' end

-- Tell a batch to stop: it takes no more operations, workers that hold chunks of it hear of it, and those that claim one.
-- `order` is the signed order of a canceller. Returns the attempts that wait; the caller claims and settles them.
local function stop_batch(batch, reason, order)
  local meta = key(batch, part.META)
  redis.call('HSET', meta, 'stop', reason, 'order', order, 'sealed', 1)
  redis.call('DEL', key(batch, part.DIGESTS))
  redis.call('XADD', STOPS, 'MAXLEN', '~', 1000, '*', 'batch', batch)
  keep_shared(STOPS, 86400)
  local ids, waiting = {}, {}
  local chunks = redis.call('HGETALL', key(batch, part.CHUNKS))
  for i = 1, #chunks, 2 do
    local rec = cmsgpack.unpack(chunks[i + 1])
    if rec.s == 'w' then
      ids[#ids + 1] = attempt_id(batch, chunks[i], rec)
      waiting[ids[#ids]] = true
    end
  end
  -- Nobody is to wait for room behind chunks that only the caller will take. In one pass: an LREM for each reads on
  -- average half of the list. If the caller dies, the take-over wakes them.
  local state = redis.call('HMGET', meta, 'ttl', 'priority')
  for _, lane in ipairs(#ids > 0 and LANES or {}) do
    local list = wake(lane, state[2])
    local others = redis.call('LRANGE', list, 0, -1)
    redis.call('DEL', list)
    for _, id in ipairs(others) do
      if not waiting[id] then redis.call('RPUSH', list, id) end
    end
    keep_shared(list, state[1])
  end
  finish_if_complete(batch)
  return ids
end

-- Chunks that wait on the whole farm.
local function depth()
  local waiting = 0
  for _, lane in ipairs(LANES) do
    for _, priority in ipairs(PRIORITIES) do waiting = waiting + redis.call('LLEN', wake(lane, priority)) end
  end
  return waiting
end
