-- Forget a finding of a target. ARGV: target, id. Returns whether it was known (0/1).
local target, id = ARGV[1], ARGV[2]
local hash = findings_of(target)
write_even_if_full()
local known = drop_finding(target, id)
if redis.call('EXISTS', hash) == 0 then redis.call('ZREM', ns .. ':findings', target) end
return known
