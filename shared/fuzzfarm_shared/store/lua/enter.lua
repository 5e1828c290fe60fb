-- Say what an attempt does from now on, whose worker may die of that. ARGV: batch, chunk, token, phase.
-- Returns "ok" or "fenced".
local batch, chunk, token, phase = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
write_even_if_full()
local rec = load_chunk(batch, chunk)
if not rec or rec.t ~= token or rec.s ~= 'l' then return 'fenced' end
rec.i = phase
if phase == PHASE.RUNNING then redis.call('HDEL', key(batch, part.PAYLOADS), 'v' .. rec.p) end
save_chunk(batch, chunk, rec)
return 'ok'
