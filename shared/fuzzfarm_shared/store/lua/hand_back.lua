-- Give back what an attempt has not started. ARGV: batch, chunk, token, mode, random bits, units done below k, k,
-- units done from k, worker, refusals that settle it, ms after which a worker is no longer counted as alive.
--   rest     [k, b) becomes a new waiting chunk; the attempt keeps [a, k). The deaths of this one are not those of the
--            rest unless that is suspected (ARGV 12), or a recorder told that its examples ran
--   all      the chunk waits again; its attempt is not counted
--   refused  as `all`, and this worker will not get it again; when enough workers, or all that live, have refused it
--            the attempt keeps it instead, to record why
-- Returns "ok", "fenced" or "settled".
local batch, chunk, token, mode, bits = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
write_even_if_full()
local rec = load_chunk(batch, chunk)
if not rec or rec.t ~= token or rec.s ~= 'l' then return 'fenced' end

if mode == 'rest' then
  local k = tonumber(ARGV[7])
  if k >= rec.b then return 'ok' end
  local rest = {n = rec.n, p = rec.p, a = k, b = rec.b, m = ARGV[8], l = rec.l, r = rec.r, g = rec.g}
  local told = rec.x and rec.x.last >= k
  if ARGV[12] == '1' then rest.u, rest.c = math.min(rec.u, ONE_BY_ONE_DEATHS), rec.c end
  if ARGV[12] == '1' or told then rest.d = math.min(rec.d, ONE_BY_ONE_DEATHS) end
  if told then rest.x, rest.z = rec.x, rec.z end
  new_chunk(batch, rest, bits)
  rec.b, rec.m = k, ARGV[6]
  save_chunk(batch, chunk, rec)
  return 'ok'
end

rec.m = ARGV[6]
if mode == 'refused' then
  rec.r = rec.r or {}
  local known = false
  for _, name in ipairs(rec.r) do known = known or name == ARGV[9] end
  if not known then rec.r[#rec.r + 1] = ARGV[9] end
  if is_refused(rec, tonumber(ARGV[10]), tonumber(ARGV[11])) then
    save_chunk(batch, chunk, rec)
    return 'settled'
  end
end
redis.call('ZREM', LEASES, batch .. '/' .. chunk .. '@' .. token)
rec.q = 0
enqueue(batch, chunk, rec, bits)
return 'ok'
