-- Open a batch, append one payload to it, seal it: any of the three, so that a small batch takes one round trip.
-- ARGV: batch, submit id, ttl (s), queue limit, payload index or -1, operations, digest, envelope, lane,
--       units (examples of a fuzz operation, else operations), random bits, seal (payload count or -1), priority,
--       deadline (ms, 0: none), then digests of the operations' keys. Priority and deadline are those of the first submit.
-- Returns {status, submit id, payloads accepted, operations accepted, sealed, stop reason, waiting chunks, deadline}
-- where status is "ok", "wait" (queue full, nothing done), "conflict", "duplicate:N" (digest N was there before) or
-- "lost" (the batch was begun and is gone).
local batch, ttl, limit = ARGV[1], ARGV[3], tonumber(ARGV[4])
local index, count, digest, envelope = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[8]
local lane, units, bits, seal = ARGV[9], tonumber(ARGV[10]), ARGV[11], tonumber(ARGV[12])
local priority, deadline, first_digest = ARGV[13], tonumber(ARGV[14]), 15
local meta, boundaries = key(batch, part.META), key(batch, part.BOUNDARIES)
refuse_if_full()

if redis.call('EXISTS', meta) == 0 then
  if index > 0 or (index < 0 and seal >= 0) then return {'lost', '', 0, 0, 0, '', 0, 0} end
  redis.call('HSET', meta, 'submit', ARGV[2], 'created', now, 'ttl', ttl, 'touched', 0, 'total', 0, 'succeeded', 0,
    'failed', 0, 'cancelled', 0, 'sealed', 0, 'chunks', 0, 'examples', 0, 'late', 0,
    'priority', priority, 'deadline', deadline)
  redis.call('ZADD', BATCHES, now, batch)
  redis.call('ZADD', OPEN, now + LOOK_AFTER_MS, batch)
  if deadline > 0 then redis.call('ZADD', DEADLINES, deadline, batch) end
  -- Names of expired batches would pile up; looking at some for each new one keeps them a small part.
  for _, name in ipairs(redis.call('ZRANDMEMBER', BATCHES, 4)) do
    if redis.call('EXISTS', key(name, part.META)) == 0 then redis.call('ZREM', BATCHES, name) end
  end
  touch(batch, true)
end

local function reply(status)
  local state = redis.call('HMGET', meta, 'submit', 'total', 'sealed', 'deadline')
  return {status, state[1], redis.call('LLEN', boundaries), tonumber(state[2]), tonumber(state[3]), stop_reason(meta),
    depth(), tonumber(state[4])}
end

local function append()
  local known = redis.call('LINDEX', boundaries, index)
  if known then return known == digest and 'ok' or 'conflict' end
  if stop_reason(meta) ~= '' then return 'ok' end
  if flag(meta, 'sealed') == 1 or index ~= redis.call('LLEN', boundaries) then return 'conflict' end
  if redis.call('LLEN', wake(lane, redis.call('HGET', meta, 'priority'))) >= limit then return 'wait' end
  for i = first_digest, #ARGV, 1000 do
    local known_keys = redis.call('SMISMEMBER', key(batch, part.DIGESTS), unpack(ARGV, i, math.min(i + 999, #ARGV)))
    for j, found in ipairs(known_keys) do
      if found == 1 then return 'duplicate:' .. (i + j - 1 - first_digest) end
    end
  end
  for i = first_digest, #ARGV, 1000 do
    redis.call('SADD', key(batch, part.DIGESTS), unpack(ARGV, i, math.min(i + 999, #ARGV)))
  end
  redis.call('RPUSH', boundaries, digest)
  redis.call('HSET', key(batch, part.PAYLOADS), index, envelope, 'r' .. index, units, 'l' .. index, lane)
  redis.call('HINCRBY', meta, 'total', count)
  new_chunk(batch, {p = index, a = 0, b = units, l = lane}, bits)
  for _, suffix in ipairs({part.BOUNDARIES, part.DIGESTS, part.PAYLOADS}) do keep(batch, suffix) end
  return 'ok'
end

local status = 'ok'
if (index >= 0 or seal >= 0) and redis.call('HGET', meta, 'submit') ~= ARGV[2] then return reply('conflict') end
if index >= 0 then status = append() end
if status == 'ok' and seal >= 0 then
  if redis.call('LLEN', boundaries) ~= seal and stop_reason(meta) == '' then return reply('conflict') end
  redis.call('HSET', meta, 'sealed', 1)
  redis.call('DEL', key(batch, part.DIGESTS))
  finish_if_complete(batch)
  touch(batch, true)
end
return reply(status)
