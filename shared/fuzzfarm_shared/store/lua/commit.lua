-- Record outcomes of one attempt. ARGV: batch, chunk, token, commit number (1, 2, ...), envelope ("" for none),
-- succeeded, failed, cancelled, units, examples, units done so far (packed), final (0/1), partial (0/1), random bits,
-- given up (0/1: the fuzz operation has failed, so its other shards need not run), examples blamed for deaths, then what it
-- found: seconds to keep a finding, most of a target, most hosts of one, and the fields of each `Sighting`.
-- `partial` envelopes are results of a shard, kept until the last one of their fuzz operation is there, and all that it
-- found is examined; then a merge chunk is queued, whose commit records the operation's one outcome.
-- Returns {"ok" | "fenced" | "again", stop reason}.
local batch, chunk, token, number = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local envelope, units, final, partial = ARGV[5], tonumber(ARGV[9]), ARGV[12] == '1', ARGV[13] == '1'
local meta, payloads = key(batch, part.META), key(batch, part.PAYLOADS)
write_even_if_full()

local rec = load_chunk(batch, chunk)
if not rec or rec.t ~= token or rec.s ~= 'l' then
  -- The last commit of a chunk, once more: its reply was lost.
  if has_ended(batch, chunk, token, rec) then return {'again', stop_reason(meta)} end
  if redis.call('EXISTS', meta) == 1 then redis.call('HINCRBY', meta, 'late', ARGV[6] + ARGV[7] + ARGV[8]) end
  return {'fenced', ''}
end
if rec.q >= number then return {'again', stop_reason(meta)} end
redis.call('HDEL', key(batch, part.PROGRESS), chunk)

if partial then
  local partials = key(batch, part.PARTIALS) .. rec.p
  if envelope ~= '' then redis.call('RPUSH', partials, envelope) end
  redis.call('EXPIRE', partials, redis.call('HGET', meta, 'ttl'))
  if rec.p > tonumber(redis.call('HGET', meta, 'partials') or -1) then redis.call('HSET', meta, 'partials', rec.p) end
elseif envelope ~= '' then
  redis.call('XADD', key(batch, part.OUTCOMES), '*', 'd', envelope)
  keep(batch, part.OUTCOMES)
  for i, name in ipairs({'succeeded', 'failed', 'cancelled'}) do
    if ARGV[5 + i] ~= '0' then redis.call('HINCRBY', meta, name, ARGV[5 + i]) end
  end
end
local wanted = {}
for i = 20, #ARGV, #SIGHTING do
  local sighting = {}
  for j, name in ipairs(SIGHTING) do sighting[name] = ARGV[i + j - 1] end
  record_finding(sighting, tonumber(ARGV[17]), tonumber(ARGV[18]), tonumber(ARGV[19]))
  if sighting.examine == '1' then wanted[#wanted + 1] = sighting end
end
if #wanted > 0 then examine(batch, rec, wanted, ARGV[14]) end
if rec.k == KIND.EXAMINATION and final and examine_next(batch, rec, ARGV[14]) then units = 0 end
if ARGV[15] == '1' then redis.call('HSET', payloads, 'x' .. rec.p, 1) end
if ARGV[10] ~= '0' then redis.call('HINCRBY', meta, 'examples', ARGV[10]) end

if final then
  save_chunk(batch, chunk, {s = 'd', t = token})
  redis.call('ZREM', LEASES, batch .. '/' .. chunk .. '@' .. token)
else
  rec.q, rec.m, rec.g = number, ARGV[11], rec.g + ARGV[16]
  -- What got on is not what killed workers before; the next one is tried as carefully.
  if units > 0 then rec.d, rec.u = math.min(rec.d, ONE_BY_ONE_DEATHS), math.min(rec.u, ONE_BY_ONE_DEATHS) end
  save_chunk(batch, chunk, rec)
end

local left = 1
if units > 0 and redis.call('HEXISTS', payloads, 'r' .. rec.p) == 1 then
  left = redis.call('HINCRBY', payloads, 'r' .. rec.p, -units)
elseif units > 0 and partial then
  -- The server has lost its count: the first shard with an outcome makes the merge, and no other.
  left = redis.call('HSETNX', meta, 'merged' .. rec.p, 1) == 1 and 0 or -1
end
if left == 1 and partial and redis.call('HEXISTS', payloads, 'e' .. rec.p) == 1 and rec.k == nil then
  examine_next(batch, rec, ARGV[14])
elseif left == 0 and partial then
  new_chunk(batch, {p = rec.p, a = 0, b = 0, l = LANES[1], k = KIND.MERGE}, ARGV[14])
elseif (left <= 0 and not partial) or (rec.k == KIND.MERGE and final) then
  redis.call('HDEL', payloads, rec.p, 'r' .. rec.p, 'l' .. rec.p, 'd' .. rec.p, 'x' .. rec.p, 'v' .. rec.p)
  if rec.k == KIND.MERGE then
    redis.call('DEL', key(batch, part.PARTIALS) .. rec.p)
    forget_examinations(batch, rec.p)
  end
end
local reason = stop_reason(meta)
if finish_if_complete(batch) then redis.call('HSET', meta, 'last', chunk .. '@' .. token) end
touch(batch)
return {'ok', reason}
