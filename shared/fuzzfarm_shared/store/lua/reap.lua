-- Look after a batch that has not ended. ARGV: batch, seed for tokens. Returns one of
--   {"fine", chunks queued again}      its waiting chunks without a job and its leased ones without a lease are queued again
--   {"stop", reason, attempts...}      it was told to stop, or its deadline has passed: the caller settles what waits
--   {"lost", payload, units left, lane, ...} chunks of these payloads have vanished, others have not: see restore.lua
--   {"gone", pending}                  operations have no outcome, and neither chunk nor payload: see abandon.lua
local batch, seed = ARGV[1], ARGV[2]
local meta, payloads = key(batch, part.META), key(batch, part.PAYLOADS)
write_even_if_full()
if redis.call('EXISTS', meta) == 0 or redis.call('HGET', meta, 'finished') then
  redis.call('ZREM', OPEN, batch)
  return {'fine', 0}
end

local deadline = tonumber(redis.call('HGET', meta, 'deadline'))
local reason = stop_reason(meta)
if reason == '' and deadline > 0 and deadline <= now then reason = 'deadline' end
if reason ~= '' then
  local reply = stop_batch(batch, reason, redis.call('HGET', meta, 'order') or '')
  table.insert(reply, 1, reason)
  table.insert(reply, 1, 'stop')
  return reply
end

local queued, alive = 0, {}
local chunks = redis.call('HGETALL', key(batch, part.CHUNKS))
for i = 1, #chunks, 2 do
  local rec = cmsgpack.unpack(chunks[i + 1])
  if rec.s ~= 'd' then
    local id = attempt_id(batch, chunks[i], rec)
    local waits = redis.call('ZSCORE', QUEUE, id) and redis.call('EXISTS', ARQ.JOB .. id) == 1
    alive[rec.p] = true
    if (rec.s == 'w' and not waits) or (rec.s == 'l' and not redis.call('ZSCORE', LEASES, id)) then
      forget_job(id)
      rec.n, rec.q = rec.n + 1, 0
      enqueue(batch, chunks[i], rec, string.sub(redis.sha1hex(seed .. i), 1, 16))
      queued = queued + 1
    end
  end
end

local lost = {}
local fields = redis.call('HGETALL', payloads)
for i = 1, #fields, 2 do
  local payload = tonumber(string.match(fields[i], '^r(%d+)$'))
  if payload and tonumber(fields[i + 1]) > 0 and not alive[payload] then
    lost[#lost + 1], lost[#lost + 2] = payload, tonumber(fields[i + 1])
    lost[#lost + 1] = redis.call('HGET', payloads, 'l' .. payload)
  end
end
if #lost > 0 then
  table.insert(lost, 1, 'lost')
  return lost
end
local c = redis.call('HMGET', meta, 'total', 'succeeded', 'failed', 'cancelled', 'sealed')
local pending = c[1] - c[2] - c[3] - c[4]
if c[5] == '1' and pending > 0 and not next(alive) then return {'gone', pending} end
return {'fine', queued}
