-- Renew leases. ARGV: lease (ms), attempt ids. Returns for each: "" renewed, or ended with the attempt's own last commit;
-- "lost"; "watched": renewed and somebody looks at its progress; or why its batch was told to stop.
write_even_if_full()
local reply = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local batch, chunk, token = parse_attempt(id)
  if redis.call('ZSCORE', LEASES, id) then
    redis.call('ZADD', LEASES, now + tonumber(ARGV[1]), id)
    touch(batch)
    reply[i - 1] = stop_reason(key(batch, part.META))
    if reply[i - 1] == '' and redis.call('EXISTS', key(batch, part.WATCHED)) == 1 then reply[i - 1] = 'watched' end
  else
    reply[i - 1] = has_ended(batch, chunk, token, load_chunk(batch, chunk)) and '' or 'lost'
  end
end
return reply
