-- End a batch whose operations are lost. ARGV: batch, pending operations, envelope of an error for each of them.
-- Nothing if their number is another by now. Returns whether it ended (0/1).
local batch, pending = ARGV[1], tonumber(ARGV[2])
local meta = key(batch, part.META)
write_even_if_full()
local c = redis.call('HMGET', meta, 'total', 'succeeded', 'failed', 'cancelled', 'finished')
if not c[1] or c[5] or c[1] - c[2] - c[3] - c[4] ~= pending then return 0 end
redis.call('XADD', key(batch, part.OUTCOMES), '*', 'd', ARGV[3])
keep(batch, part.OUTCOMES)
redis.call('HINCRBY', meta, 'failed', pending)
finish_if_complete(batch)
return 1
