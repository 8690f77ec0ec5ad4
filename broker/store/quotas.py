"""What callers have used of their quotas, in Redis: each replica tells its counts, and hears what the others have.

Counts are said as they are, not added up there, so that a batch whose answer was lost may be told again.
"""

import asyncio
from collections.abc import Sequence

from redis.exceptions import RedisError

from broker.core.usage import IN_FLIGHT_TTL_S, Told
from broker.store import keys
from broker.store.claims import fingerprint
from broker.store.client import Client, send
from broker.store.single import ANSWER_TIMEOUT_S, RedisCommand

# Sets one counter's counts of an owner, and takes out those that mean nothing any more: of another window and with
# nothing in flight that counts.
# KEYS: the hash. ARGV: the counter's id, window, commands, in flight, for how many ms that counts, the key's TTL in s.
# Returns what the other counters have together: commands in the same window, and in flight.
TELL = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local value = string.format('%s %s %s %.0f', ARGV[2], ARGV[3], ARGV[4], now + ARGV[5])
redis.call('HSET', KEYS[1], ARGV[1], value)
redis.call('EXPIRE', KEYS[1], ARGV[6])
local commands, in_flight = 0, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] ~= ARGV[1] then
    local window, used, open, expiry = string.match(all[i + 1], '^(-?%d+) (%d+) (%d+) (%d+)$')
    local counts = window == ARGV[2]
    if counts then commands = commands + used end
    if window and tonumber(expiry) > now then
      in_flight = in_flight + open
      counts = true
    end
    if not counts then redis.call('HDEL', KEYS[1], all[i]) end
  end
end
return {commands, in_flight}
"""


class QuotaRecords:
    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def tell(self, counter_id: str, said: Sequence[tuple[str, Told]]) -> list[Told | None]:
        """Says what these owners have used by this counter, in one round trip; what the others have, in the same order.

        None where Redis does not say, which is everywhere when it is out of reach. A replica that begins anew is
        another counter: it must not take back what it had said.
        """
        commands = [_telling(counter_id, owner, told) for owner, told in said]
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answers = await send(self._redis, commands)
        except (RedisError, OSError, TimeoutError):
            return [None] * len(said)
        return [_others(told, answer) for (_, told), answer in zip(said, answers, strict=True)]


def _telling(counter_id: str, owner: str, told: Told) -> RedisCommand:
    counts = (told.window, told.commands, told.in_flight)
    life_ms = round(IN_FLIGHT_TTL_S * 1000)
    return ("EVAL", TELL, 1, keys.quota(fingerprint(owner)), counter_id, *counts, life_ms, keys.QUOTA_S)


def _others(told: Told, answer: object) -> Told | None:
    match answer:
        case [int(commands), int(in_flight)]:
            return Told(told.window, commands, in_flight)
        case _:
            return None
