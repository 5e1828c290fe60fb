-- Cancel a batch. ARGV: batch, signed order. Returns {known (0/1), attempt ids that wait...}; see `stop_batch`.
local meta = key(ARGV[1], part.META)
if redis.call('EXISTS', meta) == 0 then return {0} end
if redis.call('HGET', meta, 'finished') then return {1} end
write_even_if_full()
local reply = stop_batch(ARGV[1], 'cancelled', ARGV[2])
table.insert(reply, 1, 1)
return reply
