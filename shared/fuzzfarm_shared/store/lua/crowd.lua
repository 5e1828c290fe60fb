-- Who else wants to fuzz. ARGV: batch and payload of the shard that asks, lane of shards, ms after which a worker is no
-- longer counted as alive.
-- Returns {chunks that wait, whether one of the first of them is of another operation, or an examination (0/1), live
-- workers}.
local HEADS = 64
local batch, payload, lane = ARGV[1], tonumber(ARGV[2]), ARGV[3]

local function is_other(id)
  local of, chunk = parse_attempt(id)
  if of ~= batch then return true end
  local rec = load_chunk(of, chunk)
  return rec and (rec.p ~= payload or rec.k ~= nil)
end

local waiting, others = 0, 0
for _, priority in ipairs(PRIORITIES) do
  local list = wake(lane, priority)
  waiting = waiting + redis.call('LLEN', list)
  for _, id in ipairs(redis.call('LRANGE', list, 0, HEADS - 1)) do
    if others == 1 then break end
    if is_other(id) then others = 1 end
  end
end
return {waiting, others, redis.call('ZCOUNT', WORKERS, now - tonumber(ARGV[4]), '+inf')}
