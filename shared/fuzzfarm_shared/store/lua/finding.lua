-- Findings of a target, all its batches together, in front of the scripts that write them; keys.py names the keys.
--
-- Record: e the signed finding with the best example, r its rank (see merging.py), n how often it was seen, a first
-- and z last time (s), h hosts, p replays of the example, q those that failed. What is added up is not signed, as counters
-- of batches are not.

local SIGHTING = {'target', 'id', 'envelope', 'rank', 'count', 'first_s', 'last_s', 'host', 'replays', 'failures', 'examine'}

local function findings_of(target) return ns .. ':f:' .. target, ns .. ':fs:' .. target end

local function drop_finding(target, id)
  local hash, seen = findings_of(target)
  redis.call('ZREM', seen, id)
  return redis.call('HDEL', hash, id)
end

-- Make room for a finding that is new: forget what was not seen for `ttl` seconds, and the oldest of `most`.
local function make_room(target, ttl, most)
  local _, seen = findings_of(target)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', now - ttl * 1000, 'LIMIT', 0, 100)) do
    drop_finding(target, id)
  end
  if redis.call('ZCARD', seen) >= most then drop_finding(target, redis.call('ZRANGE', seen, 0, 0)[1]) end
  redis.call('ZREMRANGEBYSCORE', ns .. ':findings', '-inf', now - ttl * 1000)
end

local function add_host(rec, host, most)
  for _, known in ipairs(rec.h) do
    if known == host then return end
  end
  if #rec.h < most then rec.h[#rec.h + 1] = host end
end

-- Add a sighting to what is known of a finding. `s`: a `Sighting`, see findings.py.
local function record_finding(s, ttl, most, most_hosts)
  local hash, seen = findings_of(s.target)
  local raw = redis.call('HGET', hash, s.id)
  if not raw then make_room(s.target, ttl, most) end
  local rec = raw and cmsgpack.unpack(raw) or {r = '', n = 0, a = tonumber(s.first_s), z = 0, h = {}, p = 0, q = 0}
  if rec.r == '' or s.rank < rec.r then
    rec.e, rec.r, rec.p, rec.q = s.envelope, s.rank, tonumber(s.replays), tonumber(s.failures)
  end
  rec.n = rec.n + tonumber(s.count)
  -- A worker whose clock is ahead has seen nothing that is still to come; `now` is the begin of this millisecond.
  local latest = (now + 1) / 1000
  rec.a, rec.z = math.min(rec.a, s.first_s, latest), math.max(rec.z, math.min(s.last_s, latest))
  add_host(rec, s.host, most_hosts)
  redis.call('HSET', hash, s.id, cmsgpack.pack(rec))
  redis.call('ZADD', seen, now, s.id)
  redis.call('ZADD', ns .. ':findings', now, s.target)
  for _, name in ipairs({hash, seen}) do redis.call('EXPIRE', name, ttl) end
  keep_shared(ns .. ':findings', ttl)
end
