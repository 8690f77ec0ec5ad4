"""Records under one key of which the newest wins: a hash whose fields each have an epoch and an expiry of their own.

The scripts take one key each, as a Redis Cluster wants it, and tell the time by the server's clock only.

A field's value is 20 digits of epoch, 16 digits of expiry in ms since 1970, and the record. The digits are padded with
zeros, so that epochs are compared as strings: Lua's numbers have 53 bits. What is no such value is somebody else's, and
counts as expired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.store.single import RedisCommand

# Sets records, each unless a newer one is there that has not expired. Takes out what has, so that the hash holds only
# what is refreshed, and begins the key's TTL anew.
# KEYS: the hash. ARGV: TTL in s, channel, and for each record: field, epoch, record, news ('' for none).
# Returns for each record 1 if it holds now, 0 if a newer one does.
SET = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = string.format('%016.0f', now + ARGV[1] * 1000)
local holds = {}
for i = 3, #ARGV, 4 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if held and string.sub(held, 1, 20) > ARGV[i + 1] and (tonumber(string.sub(held, 21, 36)) or 0) > now then
    holds[#holds + 1] = 0
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1] .. expiry .. ARGV[i + 2])
    if ARGV[i + 3] ~= '' then redis.call('PUBLISH', ARGV[2], ARGV[i + 3]) end
    holds[#holds + 1] = 1
  end
end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if (tonumber(string.sub(all[i + 1], 21, 36)) or 0) <= now then redis.call('HDEL', KEYS[1], all[i]) end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return holds
"""

# Takes records out, each only if it is still the one of that epoch: a late clean-up cannot erase a newer one.
# KEYS: the hash. ARGV: channel, and for each record: field, epoch, news ('' for none). Returns how many are gone.
ERASE = """
local gone = 0
for i = 2, #ARGV, 3 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if held and string.sub(held, 1, 20) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    if ARGV[i + 2] ~= '' then redis.call('PUBLISH', ARGV[1], ARGV[i + 2]) end
    gone = gone + 1
  end
end
return gone
"""

# The records that have not expired. KEYS: the hash.
READ = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = {}
for _, value in ipairs(redis.call('HVALS', KEYS[1])) do
  if (tonumber(string.sub(value, 21, 36)) or 0) > now then live[#live + 1] = string.sub(value, 37) end
end
return live
"""

DIGITS = 20


@dataclass(frozen=True, slots=True)
class Entry:
    field: str
    epoch: int
    record: bytes
    # What is published when it takes effect, if anything.
    news: bytes = b""


def setting(key: str, entries: Sequence[Entry], *, ttl_s: int, channel: str) -> RedisCommand:
    parts = [part for entry in entries for part in (entry.field, _digits(entry.epoch), entry.record, entry.news)]
    return ("EVAL", SET, 1, key, ttl_s, channel, *parts)


def erasing(key: str, entries: Sequence[Entry], *, channel: str) -> RedisCommand:
    parts = [part for entry in entries for part in (entry.field, _digits(entry.epoch), entry.news)]
    return ("EVAL", ERASE, 1, key, channel, *parts)


def reading(key: str) -> RedisCommand:
    return ("EVAL", READ, 1, key)


def _digits(epoch: int) -> str:
    return str(epoch).zfill(DIGITS)
