-- Renew leases. ARGV: lease (ms), attempt ids. Returns for each: "" renewed, "lost", "watched": renewed and somebody looks
-- at its progress, or why its batch was told to stop.
write_even_if_full()
local reply = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  if redis.call('ZSCORE', LEASES, id) then
    redis.call('ZADD', LEASES, now + tonumber(ARGV[1]), id)
    local batch = parse_attempt(id)
    touch(batch)
    reply[i - 1] = stop_reason(key(batch, part.META))
    if reply[i - 1] == '' and redis.call('EXISTS', key(batch, part.WATCHED)) == 1 then reply[i - 1] = 'watched' end
  else
    reply[i - 1] = 'lost'
  end
end
return reply
