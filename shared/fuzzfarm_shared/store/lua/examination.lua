-- Examinations of findings, in front of the scripts that order and end them.
--
-- Those of one fuzz operation have their turns one after another, so that its search never waits for more than one: field
-- 'e<payload>' of the payloads holds {ids, at: the one that has the chunk, busy: whether there is one}, and
-- 'f<payload>:<id>' the signed finding of each that waits. All of them together count as one unit of the operation.

local MOST_EXAMINED = 50 -- findings of one operation: with more of them it needs a repair, not more numbers

local function examinations(batch, payload)
  local raw = redis.call('HGET', key(batch, part.PAYLOADS), 'e' .. payload)
  return raw and cmsgpack.unpack(raw) or {ids = {}, at = 0, busy = false}
end

-- Give the next one a chunk, unless the batch was told to stop; returns whether there is one.
local function begin_next(batch, rec, all, bits)
  all.busy = all.at < #all.ids and stop_reason(key(batch, part.META)) == ''
  if all.busy then
    all.at = all.at + 1
    new_chunk(batch, {p = rec.p, a = 0, b = 1, l = rec.l, k = KIND.EXAMINATION, f = all.ids[all.at]}, bits)
  end
  redis.call('HSET', key(batch, part.PAYLOADS), 'e' .. rec.p, cmsgpack.pack(all))
  return all.busy
end

-- Have findings examined, each once for its operation. `rec`: a chunk of that; `wanted`: see `Sighting`.
local function examine(batch, rec, wanted, bits)
  local payloads, all, known = key(batch, part.PAYLOADS), examinations(batch, rec.p), {}
  for _, id in ipairs(all.ids) do known[id] = true end
  for _, s in ipairs(wanted) do
    if not known[s.id] and #all.ids < MOST_EXAMINED then
      known[s.id], all.ids[#all.ids + 1] = true, s.id
      redis.call('HSET', payloads, 'f' .. rec.p .. ':' .. s.id, s.envelope)
    end
  end
  local idle = not all.busy
  if idle and begin_next(batch, rec, all, bits) then
    if redis.call('HEXISTS', payloads, 'r' .. rec.p) == 1 then redis.call('HINCRBY', payloads, 'r' .. rec.p, 1) end
  elseif not idle then
    redis.call('HSET', payloads, 'e' .. rec.p, cmsgpack.pack(all))
  end
end

-- After the examination of chunk `rec`, begin the next one; returns whether there is one.
local function examine_next(batch, rec, bits)
  redis.call('HDEL', key(batch, part.PAYLOADS), 'f' .. rec.p .. ':' .. rec.f)
  return begin_next(batch, rec, examinations(batch, rec.p), bits)
end

local function forget_examinations(batch, payload)
  for _, id in ipairs(examinations(batch, payload).ids) do
    redis.call('HDEL', key(batch, part.PAYLOADS), 'f' .. payload .. ':' .. id)
  end
  redis.call('HDEL', key(batch, part.PAYLOADS), 'e' .. payload)
end
