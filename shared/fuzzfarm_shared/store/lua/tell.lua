-- Keep what a chunk's jobs have got to, for those who look. ARGV: batch, chunk, token, life (ms), envelope ("" for none).
-- Only of the attempt that holds the chunk, and only as long as somebody looks.
local batch, chunk, token, life, envelope = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local name = key(batch, part.PROGRESS)
local rec = load_chunk(batch, chunk)
local held = rec and rec.t == token and rec.s == 'l'
if envelope == '' or not held or redis.call('EXISTS', key(batch, part.WATCHED)) == 0 then
  redis.call('HDEL', name, chunk)
  return 0
end
redis.call('HSET', name, chunk, envelope)
redis.call('PEXPIRE', name, life)
return 1
