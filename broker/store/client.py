"""The Redis client: made of a URL, with bounds on everything it may wait for."""

import asyncio
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from openline import errors
from openline.reasons import Reason

CONNECT_TIMEOUT_S = 0.5
ANSWER_TIMEOUT_S = 1.0
MAX_CONNECTIONS = 32

SCHEMES = ("redis://", "rediss://", "unix://")


def check_url(url: str) -> None:
    """Raises ValueError for a URL that no client can be made of."""
    parse_url(url)


def open_redis(url: str) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`; connects when it is first used.

    Retries are ours to decide, so the client makes none. The pool makes a call wait for a connection, not fail.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=ANSWER_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        # With one, redis-py sends by asyncio.wait_for, which on Python 3.11 swallows a cancel that comes as it ends: a
        # task that is to stop goes on for ever. So whoever asks bounds the time.
        socket_timeout=None,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


async def ask(redis: Redis, *commands: tuple[str | bytes | int | float, ...]) -> list[Any]:
    """The answers to some commands, in one round trip; strings are bytes. Raises STORE_UNAVAILABLE."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S), redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute())
    except (RedisError, OSError, TimeoutError) as failure:
        unavailable = errors.error(Reason.STORE_UNAVAILABLE, "Redis is out of reach", retry_after_s=1.0)
        raise errors.OpenlineError(unavailable) from failure
