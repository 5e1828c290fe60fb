-- Tell which examples of a shard ran when its worker died. ARGV: batch, chunk, token of the dead worker, first, last.
-- Those that ran at the death before, too, are suspected of both. Told while the next attempt runs, it is for the one after
-- that. Returns 1, or 0 when nobody can use it any more.
local batch, chunk, token, first, last = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
write_even_if_full()
local rec = load_chunk(batch, chunk)
if not rec or rec.y == token then return rec and 1 or 0 end
if rec.s ~= 'd' and rec.o == token then
  rec.u, rec.o, rec.z = rec.u - 1, nil, true
elseif rec.s ~= 'l' or rec.t ~= token then
  return 0
end
local x = rec.x
if x and first <= x.last and x.first <= last then
  rec.x = {first = math.max(first, x.first), last = math.min(last, x.last), deaths = x.deaths + 1}
else
  rec.x = {first = first, last = last, deaths = 1}
end
rec.y = token
save_chunk(batch, chunk, rec)
return 1
