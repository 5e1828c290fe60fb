-- Keep how far a chunk's jobs are, for those who look. ARGV: batch, chunk, token, life (ms), envelope, most chunks.
-- Only of the attempt that holds the chunk, and only as long as somebody looks. A commit forgets it: it may name jobs
-- that have an outcome by then.
local batch, chunk, token, life, envelope, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local name = key(batch, part.PROGRESS)
local rec = load_chunk(batch, chunk)
local held = rec and rec.t == token and rec.s == 'l'
if not held or redis.call('EXISTS', key(batch, part.WATCHED)) == 0 then return 0 end
if redis.call('HLEN', name) >= most and redis.call('HEXISTS', name, chunk) == 0 then return 0 end
refuse_if_full()
redis.call('HSET', name, chunk, envelope)
redis.call('PEXPIRE', name, life)
return 1
