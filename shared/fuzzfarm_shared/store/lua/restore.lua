-- Queue a payload again whose chunks have vanished. ARGV: batch, payload, units, lane, units done (packed), units left, bits.
-- Nothing if it has a chunk by now. Results of shards are made again. Returns whether it was queued (0/1).
local batch, payload, units = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local meta, payloads = key(batch, part.META), key(batch, part.PAYLOADS)
write_even_if_full()
if redis.call('HGET', meta, 'finished') or redis.call('HEXISTS', payloads, payload) == 0 then return 0 end
local chunks = redis.call('HVALS', key(batch, part.CHUNKS))
for _, raw in ipairs(chunks) do
  if cmsgpack.unpack(raw).p == payload then return 0 end
end
redis.call('DEL', key(batch, part.PARTIALS) .. payload)
redis.call('HSET', payloads, 'r' .. payload, ARGV[6])
forget_examinations(batch, payload)
new_chunk(batch, {p = payload, a = 0, b = units, l = ARGV[4], m = ARGV[5]}, ARGV[7])
return 1
