-- Shared by all scripts. KEYS[1] is the namespace; `part`, `ARQ` and `LANES` are written by scripts.py from keys.py.
--
-- The life of a chunk, kept as one record in the batch's chunks hash until its last unit has an outcome:
--
--            submit                claim                    commit (final)
--     ( ) ----------> waiting ----------------> leased ---------------------> done (no record)
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
-- Record: s state ("w", "l"), t token, n attempt, p payload, a, b units [a, b), m units with an outcome (packed by the
-- client), q last commit, d deaths, l lane, w worker, r workers that refused it, k kind ("merge" or nil).

local ns = KEYS[1]
local QUEUE, LEASES, BATCHES, WORKERS = ns .. ':queue', ns .. ':leases', ns .. ':batches', ns .. ':workers'

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local now = now_ms()

local function key(batch, suffix) return ns .. ':b:' .. batch .. suffix end
local function wake(lane) return ns .. ':wake:' .. lane end
local function attempt_id(batch, chunk, rec) return batch .. '/' .. chunk .. '@' .. rec.t end

local function parse_attempt(id)
  return string.match(id, '^(.*)/(%d+)@(.*)$')
end

local function load_chunk(batch, chunk)
  local raw = redis.call('HGET', key(batch, part.CHUNKS), chunk)
  return raw and cmsgpack.unpack(raw)
end

local function save_chunk(batch, chunk, rec)
  redis.call('HSET', key(batch, part.CHUNKS), chunk, cmsgpack.pack(rec))
end

-- Renew the life of a batch; at most every 30 s, because it costs a command per key.
local function touch(batch, force)
  local meta = key(batch, part.META)
  local state = redis.call('HMGET', meta, 'ttl', 'touched')
  if not state[1] or (not force and now - tonumber(state[2]) < 30000) then return end
  redis.call('HSET', meta, 'touched', now)
  for _, suffix in pairs(part) do redis.call('EXPIRE', key(batch, suffix), state[1]) end
  for payload = 0, tonumber(redis.call('HGET', meta, 'partials') or -1) do
    redis.call('EXPIRE', key(batch, part.PARTIALS) .. payload, state[1])
  end
  for _, name in ipairs({QUEUE, LEASES, BATCHES, WORKERS}) do
    if redis.call('TTL', name) < tonumber(state[1]) then redis.call('EXPIRE', name, state[1]) end
  end
end

-- Give a chunk a new token and let arq and a waiting worker see it.
local function enqueue(batch, chunk, rec, bits)
  rec.s, rec.t, rec.w = 'w', rec.n .. '-' .. bits, nil
  save_chunk(batch, chunk, rec)
  local id = attempt_id(batch, chunk, rec)
  local ttl = redis.call('HGET', key(batch, part.META), 'ttl')
  redis.call('SET', ARQ.JOB .. id, cmsgpack.pack({f = ARQ.FUNCTION, et = now}), 'EX', ttl)
  redis.call('ZADD', QUEUE, now - ARQ.CLOCK_SKEW_MS, id)
  redis.call('RPUSH', wake(rec.l), id)
  for _, name in ipairs({QUEUE, wake(rec.l)}) do
    if redis.call('TTL', name) < tonumber(ttl) then redis.call('EXPIRE', name, ttl) end
  end
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
end

local function flag(meta, name) return redis.call('HGET', meta, name) == '1' and 1 or 0 end
