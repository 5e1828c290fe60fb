-- Renew leases. ARGV: lease (ms), attempt ids. Returns for each: 0 renewed, 1 lost, 2 renewed and the batch cancelled,
-- 3 renewed and somebody looks at its progress.
local reply = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  if redis.call('ZSCORE', LEASES, id) then
    redis.call('ZADD', LEASES, now + tonumber(ARGV[1]), id)
    local batch = parse_attempt(id)
    touch(batch)
    reply[i - 1] = flag(key(batch, part.META), 'cancel') * 2
    if reply[i - 1] == 0 and redis.call('EXISTS', key(batch, part.WATCHED)) == 1 then reply[i - 1] = 3 end
  else
    reply[i - 1] = 1
  end
end
return reply
