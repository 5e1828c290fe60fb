-- Examinations of findings, in front of the scripts that order and end them.
--
-- Those of one fuzz operation have their turns one after another, so that its search never waits for more than one; once it
-- has ended, many at once. All of them together are one unit of the operation, as long as one waits or runs. Fields of the
-- payloads: 'e<payload>' holds the chain {ids, at: of the newest chunk, busy: chunks}, 'f<payload>:<id>' the signed finding
-- of each that has not ended.

local MOST_EXAMINED = 50 -- findings of one operation: with more of them it needs a repair, not more numbers
local AT_ONCE = 16 -- when there is nothing else to do for the operation

local function examinations(batch, payload)
  local raw = redis.call('HGET', key(batch, part.PAYLOADS), 'e' .. payload)
  return raw and cmsgpack.unpack(raw) or {ids = {}, at = 0, busy = 0}
end

local function units_left(batch, payload)
  return tonumber(redis.call('HGET', key(batch, part.PAYLOADS), 'r' .. payload))
end

-- Give the next ones chunks, unless the batch was told to stop, and save the chain. The first of an operation goes in front
-- of what waits: somebody may look for it.
local function begin_next(batch, rec, chain, most, bits)
  local stopped = stop_reason(key(batch, part.META)) ~= ''
  while chain.busy < most and chain.at < #chain.ids and not stopped do
    chain.at, chain.busy = chain.at + 1, chain.busy + 1
    local fields = {p = rec.p, a = 0, b = 1, l = rec.l, k = KIND.EXAMINATION, f = chain.ids[chain.at]}
    new_chunk(batch, fields, bits, chain.at == 1)
  end
  redis.call('HSET', key(batch, part.PAYLOADS), 'e' .. rec.p, cmsgpack.pack(chain))
  keep(batch, part.PAYLOADS)
end

-- Have findings examined, each once for its operation. `rec`: a chunk of that; `wanted`: see `Sighting`.
local function examine(batch, rec, wanted, bits)
  local payloads, chain, known = key(batch, part.PAYLOADS), examinations(batch, rec.p), {}
  for _, id in ipairs(chain.ids) do known[id] = true end
  for _, s in ipairs(wanted) do
    if not known[s.id] and #chain.ids < MOST_EXAMINED then
      known[s.id], chain.ids[#chain.ids + 1] = true, s.id
      redis.call('HSET', payloads, 'f' .. rec.p .. ':' .. s.id, s.envelope)
    end
  end
  local idle = chain.busy == 0
  begin_next(batch, rec, chain, 1, bits)
  if idle and chain.busy > 0 and units_left(batch, rec.p) then redis.call('HINCRBY', payloads, 'r' .. rec.p, 1) end
end

-- A chunk of the operation has ended: begin what may be examined now. Returns whether anything of the chain is left.
local function examine_next(batch, rec, bits)
  local chain = examinations(batch, rec.p)
  if rec.k == KIND.EXAMINATION then
    redis.call('HDEL', key(batch, part.PAYLOADS), 'f' .. rec.p .. ':' .. rec.f)
    chain.busy = chain.busy - 1
  end
  begin_next(batch, rec, chain, units_left(batch, rec.p) == 1 and AT_ONCE or 1, bits)
  return chain.busy > 0
end

local function forget_examinations(batch, payload)
  for _, id in ipairs(examinations(batch, payload).ids) do
    redis.call('HDEL', key(batch, part.PAYLOADS), 'f' .. payload .. ':' .. id)
  end
  redis.call('HDEL', key(batch, part.PAYLOADS), 'e' .. payload)
end
