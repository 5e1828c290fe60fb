-- Cancel a batch: no more operations are accepted, what runs is told at its next renewal or commit. ARGV: batch.
-- Returns {known (0/1), attempt ids that wait...}; the caller claims these and records them as cancelled.
local meta = key(ARGV[1], part.META)
if redis.call('EXISTS', meta) == 0 then return {0} end
local reply = {1}
if redis.call('HGET', meta, 'finished') then return reply end
redis.call('HSET', meta, 'cancel', 1, 'sealed', 1)
redis.call('DEL', key(ARGV[1], part.DIGESTS))
local chunks = redis.call('HGETALL', key(ARGV[1], part.CHUNKS))
for i = 1, #chunks, 2 do
  local rec = cmsgpack.unpack(chunks[i + 1])
  if rec.s == 'w' then reply[#reply + 1] = attempt_id(ARGV[1], chunks[i], rec) end
end
finish_if_complete(ARGV[1])
return reply
