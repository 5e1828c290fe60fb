-- Move an attempt from arq's queue into our leases. ARGV: batch, chunk, token, worker, lease (ms), random bits,
-- refusals that settle a chunk, ms after which a worker is no longer counted as alive, operations that it runs at once.
-- Returns {} when the attempt is no longer the chunk's; {"refused"} when this worker refused it before and others have
-- not (it is queued again for them); else {"ok", envelope, payload, a, b, units done, deaths, attempt, submit id,
-- stop reason, now, first claim of the payload (ms), kind, last commit, lane, given up, order to cancel, first claim of a
-- shard of the batch (ms), deaths in which nobody knows what ran, deaths while the target was loaded, examples blamed,
-- what recorders told: first, last, of how many deaths (-1, -1, 0: nothing), whether of the last one (0/1), operations that
-- workers which died with it may have run at once, what it encloses...}: results of shards for a merge, id and finding for
-- an examination.
local batch, chunk, token, worker, lease_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local id = batch .. '/' .. chunk .. '@' .. token
write_even_if_full()
forget_job(id)

local rec = load_chunk(batch, chunk)
if rec and redis.call('HGET', key(batch, part.META), 'finished') then return {} end
if not rec or rec.t ~= token then return {} end
if rec.s == 'd' or (rec.s == 'l' and rec.w ~= worker) then return {} end
if rec.s == 'w' and rec.r then
  local settled, refused = is_refused(rec, tonumber(ARGV[7]), tonumber(ARGV[8]))
  if refused[worker] and not settled then
    enqueue(batch, chunk, rec, ARGV[6])
    return {'refused'}
  end
end

local at_once = rec.d > 0 and rec.c or 0 -- only of those that died
rec.s, rec.w, rec.c = 'l', worker, math.max(at_once, tonumber(ARGV[9]))
save_chunk(batch, chunk, rec)
redis.call('ZADD', LEASES, now + lease_ms, id)

local meta, payloads = key(batch, part.META), key(batch, part.PAYLOADS)
redis.call('HSETNX', payloads, 'd' .. rec.p, now)
if rec.l ~= LANES[1] then redis.call('HSETNX', meta, 'fuzzed', now) end
keep(batch, part.PAYLOADS)
keep_shared(LEASES, redis.call('HGET', meta, 'ttl'))
touch(batch)
local loading = redis.call('HGET', payloads, 'v' .. rec.p)
local x = rec.x or {first = -1, last = -1, deaths = 0}
local reply = {'ok', redis.call('HGET', payloads, rec.p), rec.p, rec.a, rec.b, rec.m, rec.d, rec.n,
  redis.call('HGET', meta, 'submit'), stop_reason(meta), now, tonumber(redis.call('HGET', payloads, 'd' .. rec.p)),
  rec.k or '', rec.q, rec.l,
  redis.call('HEXISTS', payloads, 'x' .. rec.p), redis.call('HGET', meta, 'order') or '',
  tonumber(redis.call('HGET', meta, 'fuzzed') or now), rec.u,
  loading and cmsgpack.unpack(loading).deaths or 0, rec.g, x.first, x.last, x.deaths, rec.z and 1 or 0, at_once}
if rec.k == KIND.EXAMINATION then
  reply[#reply + 1], reply[#reply + 2] = rec.f, redis.call('HGET', payloads, 'f' .. rec.p .. ':' .. rec.f) or ''
elseif rec.k == KIND.MERGE then
  for _, partial in ipairs(redis.call('LRANGE', key(batch, part.PARTIALS) .. rec.p, 0, -1)) do
    reply[#reply + 1] = partial
  end
end
return reply
