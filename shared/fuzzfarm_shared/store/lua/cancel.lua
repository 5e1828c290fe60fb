-- Cancel a batch: no more operations are accepted, what runs is told at its next renewal or commit. ARGV: batch.
-- Returns {known (0/1), attempt ids that wait...}; the caller claims these and records them as cancelled.
local meta = key(ARGV[1], part.META)
if redis.call('EXISTS', meta) == 0 then return {0} end
local reply = {1}
if redis.call('HGET', meta, 'finished') then return reply end
redis.call('HSET', meta, 'cancel', 1, 'sealed', 1)
redis.call('DEL', key(ARGV[1], part.DIGESTS))
local waiting = {}
local chunks = redis.call('HGETALL', key(ARGV[1], part.CHUNKS))
for i = 1, #chunks, 2 do
  local rec = cmsgpack.unpack(chunks[i + 1])
  if rec.s == 'w' then
    reply[#reply + 1] = attempt_id(ARGV[1], chunks[i], rec)
    waiting[reply[#reply]] = true
  end
end
-- Nobody is to wait for room behind chunks that only the caller will take. In one pass: an LREM for each reads on average
-- half of the list. If the caller dies, the take-over wakes them.
for _, lane in ipairs(next(waiting) and LANES or {}) do
  local ids, ttl = redis.call('LRANGE', wake(lane), 0, -1), redis.call('HGET', meta, 'ttl')
  redis.call('DEL', wake(lane))
  for _, id in ipairs(ids) do
    if not waiting[id] then redis.call('RPUSH', wake(lane), id) end
  end
  keep_shared(wake(lane), ttl)
end
finish_if_complete(ARGV[1])
return reply
