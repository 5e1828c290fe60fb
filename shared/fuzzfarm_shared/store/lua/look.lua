-- Look at the progress of a batch, and say that somebody looks. ARGV: batch, how long that holds (ms).
-- Returns chunk, envelope, chunk, envelope...
local batch = ARGV[1]
if redis.call('EXISTS', key(batch, part.META)) == 0 then return {} end
refuse_if_full()
redis.call('SET', key(batch, part.WATCHED), 1, 'PX', ARGV[2])
return redis.call('HGETALL', key(batch, part.PROGRESS))
