-- Shared by all scripts. KEYS[1] is the namespace; `part`, `ARQ` and `LANES` are written by server.py from keys.py.
--
-- The life of a chunk, kept as one record in the batch's chunks hash until the batch has ended:
--
--            submit                claim                    commit (final)
--     ( ) ----------> waiting ----------------> leased ---------------------> done
--                        ^                      |    |
--                        |  hand back (all)     |    | hand back (rest): a new waiting chunk
--                        +----------------------+    | gets [k, b), this one keeps [a, k)
--                        |  take over: the lease     |
--                        +-- ended, deaths + 1 ------+       dead: three deaths, see `claim`
--
-- Every arrow is one script. A write names the attempt's token; a token that is not the record's is refused, so that
-- a worker which was believed dead changes nothing. All of them are idempotent: a client repeats one after a lost
-- reply. Keys are made from names in data, so the scripts need one server, not a cluster.
--
-- Record: s state ("w", "l", "d": done, with its last token and nothing else), t token, n attempt, p payload, a, b units [a, b), m units with an outcome (packed by the
-- client), q last commit, d deaths, l lane, w worker, r workers that refused it, k kind ("merge" or nil).

local ns = KEYS[1]
local QUEUE, LEASES, BATCHES, WORKERS = ns .. ':queue', ns .. ':leases', ns .. ':batches', ns .. ':workers'
local TAKEN_OVER = ns .. ':taken-over'

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local now = now_ms()

-- A full server refuses this, before the script has changed anything: it would stop a script half way otherwise.
redis.call('SET', ns .. ':room', 1, 'EX', 86400)

local function key(batch, suffix) return ns .. ':b:' .. batch .. suffix end
local function wake(lane) return ns .. ':wake:' .. lane end
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
  for _, name in ipairs({QUEUE, LEASES, BATCHES, WORKERS}) do keep_shared(name, state[1]) end
end

-- Each lane has its own stretch of arq's queue, so that the oldest of one are found behind any number of another.
local function queue_score(lane)
  for rank, name in ipairs(LANES) do
    if name == lane then return now - ARQ.CLOCK_SKEW_MS - (rank - 1) * ARQ.LANE_GAP_MS end
  end
end

-- Give a chunk a new token and let arq and a waiting worker see it.
local function enqueue(batch, chunk, rec, bits)
  rec.s, rec.t, rec.w = 'w', rec.n .. '-' .. bits, nil
  save_chunk(batch, chunk, rec)
  local id = attempt_id(batch, chunk, rec)
  local ttl = redis.call('HGET', key(batch, part.META), 'ttl')
  redis.call('SET', ARQ.JOB .. id, cmsgpack.pack({f = ARQ.FUNCTION, et = now}), 'EX', ttl)
  redis.call('ZADD', QUEUE, queue_score(rec.l), id)
  redis.call('RPUSH', wake(rec.l), id)
  for _, name in ipairs({QUEUE, wake(rec.l)}) do keep_shared(name, ttl) end
end

local function forget_job(id)
  redis.call('ZREM', QUEUE, id)
  redis.call('DEL', ARQ.JOB .. id, ARQ.RETRY .. id)
end

-- A chunk with a fresh record: `fields` overrides the defaults.
local function new_chunk(batch, fields, bits)
  local chunk = redis.call('HINCRBY', key(batch, part.META), 'chunks', 1) - 1
  local rec = {n = 1, m = '', q = 0, d = 0}
  for name, value in pairs(fields) do rec[name] = value end
  enqueue(batch, tostring(chunk), rec, bits)
  return chunk
end

-- Whether `most` workers, or all that live, have refused the chunk.
local function is_refused(rec, most, alive_ms)
  local refused = {}
  for _, name in ipairs(rec.r) do refused[name] = true end
  if #rec.r >= most then return true, refused end
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
  redis.call('XADD', key(batch, part.OUTCOMES), '*', 'end', 1)
  redis.call('DEL', key(batch, part.PAYLOADS), key(batch, part.CHUNKS), key(batch, part.DIGESTS))
  touch(batch, true)
  return true
end

local function flag(meta, name) return redis.call('HGET', meta, name) == '1' and 1 or 0 end
