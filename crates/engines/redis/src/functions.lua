#!lua name=LIBRARY
-- What of the cache must happen in one step, next to the data. See functions.rs for the library's name, and value.rs
-- for how a string is written:
--
--   L<token>                                  a load holds the key; there is no value yet
--   V<stale><lease ends><token><the bytes>    a value; `stale` and `lease ends` are 12 hexadecimal digits each
--   N                                         "there is none", remembered
--   B<level>:<at>                             a bucket, at microseconds since 1970
--   digits                                    a number
--
-- Times within a value are counted down with the key's own time to live (PTTL), so no clock but the server's is asked:
-- a value is stale once no more than `stale` milliseconds are left, and a lease is over once no more than `lease ends`
-- are.

local HEAD = 41
local NO_LEASE = 'ffffffffffff' .. '0000000000000000'
local FOREVER_MS = 3e12
-- Arithmetic in floating point is off by less than this share of a token.
local NEARLY = 1e-9

local function wrong_shape()
  return redis.error_reply('WRONGTYPE the key holds a value of another shape')
end

-- The first bytes of a string, or the error that it is none.
local function head_of(key, bytes)
  return redis.pcall('GETRANGE', key, 0, bytes - 1)
end

local function is_error(answer)
  return type(answer) == 'table' and answer.err ~= nil
end

local function whole(number)
  return string.format('%.0f', number)
end

local function lease_header(left, lease_ms, token)
  return string.format('%012x', math.max(left - lease_ms, 0)) .. token
end

-- The bytes of a key and how many milliseconds it has left.
local function get(keys)
  local raw = redis.pcall('GET', keys[1])
  if is_error(raw) then return raw end
  if not raw then return {} end
  return {raw, redis.call('PTTL', keys[1])}
end

-- What a key holds, or the right to load it. ARGV: token, lease in milliseconds.
local function begin(keys, args)
  local key, token, lease_ms = keys[1], args[1], tonumber(args[2])
  local raw = redis.pcall('GET', key)
  if is_error(raw) then return raw end
  if not raw then
    redis.call('SET', key, 'L' .. token, 'PX', args[2])
    return {'leased'}
  end
  local kind = string.sub(raw, 1, 1)
  if kind == 'L' then
    local holder = string.sub(raw, 2)
    if holder == token then return {'leased'} end
    return {'held', holder}
  end
  local left = redis.call('PTTL', key)
  if kind == 'N' then return {'kept', raw, left} end
  if kind ~= 'V' then return wrong_shape() end
  if left > tonumber(string.sub(raw, 2, 13), 16) then return {'kept', raw, left} end
  local lease_ends = tonumber(string.sub(raw, 14, 25), 16)
  if left > lease_ends and string.sub(raw, 26, HEAD) ~= token then return {'kept', raw, left} end
  redis.call('SETRANGE', key, 13, lease_header(left, lease_ms, token))
  return {'stale', raw, left}
end

-- Whether a load still has the right to a key, and of which kind the key is.
local function holds(key, token)
  local head = head_of(key, HEAD)
  if is_error(head) then return false end
  local kind = string.sub(head, 1, 1)
  if kind == 'L' then return string.sub(head, 2) == token, kind end
  return kind == 'V' and string.sub(head, 26, HEAD) == token, kind
end

-- Keeps the right to load a key. ARGV: token, lease in milliseconds.
local function renew(keys, args)
  local mine, kind = holds(keys[1], args[1])
  if not mine then return 0 end
  if kind == 'L' then
    redis.call('PEXPIRE', keys[1], args[2])
  else
    local left = redis.call('PTTL', keys[1])
    redis.call('SETRANGE', keys[1], 13, lease_header(left, tonumber(args[2]), args[1]))
  end
  return 1
end

-- Ends a load, if nobody wrote the key since it began. ARGV: token, then `keep`, its milliseconds and what to keep,
-- or `drop` (there is nothing to keep), or `release` (the load failed: what was there stays).
local function finish(keys, args)
  local key, what = keys[1], args[2]
  local mine, kind = holds(key, args[1])
  if not mine then return 0 end
  if what == 'keep' then
    redis.call('SET', key, args[4], 'PX', args[3])
  elseif what == 'drop' or kind == 'L' then
    redis.call('DEL', key)
  else
    redis.call('SETRANGE', key, 13, NO_LEASE)
  end
  return 1
end

-- Takes what stands for no value out of the way of another shape; an error if there is a value.
local function clear(key)
  local head = head_of(key, 1)
  if is_error(head) then return head end
  if head == 'L' or head == 'N' then
    redis.call('DEL', key)
  elseif head == 'V' or head == 'B' then
    return wrong_shape()
  end
end

-- ARGV: what to add, milliseconds from the first increment on.
local function incr(keys, args)
  local key, delta = keys[1], args[1]
  local wrong = clear(key)
  if wrong then return wrong end
  if is_error(redis.pcall('INCRBY', key, delta)) then
    local bound = string.sub(delta, 1, 1) == '-' and '-9223372036854775808' or '9223372036854775807'
    redis.call('SET', key, bound, 'KEEPTTL')
  end
  -- A number of 64 bits does not fit in a number of Lua.
  local sum = redis.call('GET', key)
  if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, args[2]) end
  return sum
end

-- ARGV: tokens to take, capacity, tokens a second.
local function take(keys, args)
  local key = keys[1]
  local tokens, capacity, rate = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local raw = redis.pcall('GET', key)
  if is_error(raw) then return raw end
  local level = capacity
  if raw then
    local kind = string.sub(raw, 1, 1)
    if kind == 'B' then
      local before, at = string.match(raw, '^B([^:]+):(.+)$')
      -- A clock that went back, as after a failover, brings nothing.
      local gained = math.max(now - tonumber(at), 0) * rate / 1000000
      level = math.min(capacity, tonumber(before) + gained)
    elseif kind ~= 'L' and kind ~= 'N' then
      return wrong_shape()
    end
  end
  local allowed = level + NEARLY >= tokens
  local retry_ms = 0
  if allowed then
    level = math.max(level - tokens, 0)
  else
    retry_ms = math.ceil((tokens - level) / rate * 1000)
  end
  local reset_ms = math.ceil((capacity - level) / rate * 1000)
  if reset_ms > 0 then
    -- A bucket that is full again is like a new one, and need not be kept.
    local life = math.min(reset_ms, FOREVER_MS)
    redis.call('SET', key, string.format('B%.17g:%.0f', level, now), 'PX', whole(life))
  elseif raw then
    redis.call('DEL', key)
  end
  return {allowed and 1 or 0, whole(math.floor(level + NEARLY)), whole(retry_ms), whole(reset_ms)}
end

-- Scores are kept negated: Redis orders equal scores by member in the direction of the scores, and the highest score
-- comes first here, but equal ones in the order of their members.

local function is_ranked(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'zset' then return true end
  if kind == 'none' then return false end
  if kind == 'string' then
    local head = head_of(key, 1)
    if head == 'L' or head == 'N' then return false end
  end
  return nil, wrong_shape()
end

-- ARGV: member, negated score, how many to keep, milliseconds.
local function zadd(keys, args)
  local key = keys[1]
  local ranked, wrong = is_ranked(key)
  if wrong then return wrong end
  if not ranked then redis.call('DEL', key) end
  redis.call('ZADD', key, args[2], args[1])
  redis.call('ZREMRANGEBYRANK', key, args[3], -1)
  redis.call('PEXPIRE', key, args[4])
  return 1
end

-- ARGV: member.
local function zrem(keys, args)
  local ranked, wrong = is_ranked(keys[1])
  if wrong then return wrong end
  if not ranked then return 0 end
  return redis.call('ZREM', keys[1], args[1])
end

-- ARGV: first and last rank.
local function zrange(keys, args)
  local ranked, wrong = is_ranked(keys[1])
  if wrong then return wrong end
  if not ranked then return {} end
  return redis.call('ZRANGE', keys[1], args[1], args[2], 'WITHSCORES')
end

redis.register_function{function_name = 'LIBRARY_get', callback = get, flags = {'no-writes'}}
redis.register_function('LIBRARY_begin', begin)
redis.register_function('LIBRARY_renew', renew)
redis.register_function('LIBRARY_finish', finish)
redis.register_function('LIBRARY_incr', incr)
redis.register_function('LIBRARY_take', take)
redis.register_function('LIBRARY_zadd', zadd)
redis.register_function('LIBRARY_zrem', zrem)
redis.register_function{function_name = 'LIBRARY_zrange', callback = zrange, flags = {'no-writes'}}
