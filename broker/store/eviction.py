"""Whether Redis forgets what it was given when it is full: asked once it is there, and whenever it is back.

Results, sessions and idempotency keys would go without a word, and a command could run twice.
"""

import asyncio

import structlog
from redis.exceptions import RedisError, ResponseError

from broker.store.client import Client
from broker.store.sharded import ShardedRedis
from broker.store.single import ANSWER_TIMEOUT_S

KEEPS = "noeviction"
ASK_AGAIN_S = 2.0

log = structlog.get_logger()


async def warn_once_there(redis: Client) -> None:
    """Waits for a Redis that is not there yet."""
    while not await warn_of_eviction(redis):
        await asyncio.sleep(ASK_AGAIN_S)


async def warn_of_eviction(redis: Client) -> bool:
    """Says in the log if it does; of a Redis Cluster one node is asked. False when it does not answer."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            # INFO and not CONFIG, which managed ones refuse.
            server = await redis.node() if isinstance(redis, ShardedRedis) else redis
            policy = (await server.info("memory")).get("maxmemory_policy", KEEPS)
    except ResponseError as refusal:
        log.info("redis.policy_unknown", detail=str(refusal)[:200])
        return True
    except (RedisError, OSError, TimeoutError):  # it is said elsewhere that Redis is away
        return False
    if policy != KEEPS:
        log.warning("redis.evicts", maxmemory_policy=policy, wanted=KEEPS)
    return True
