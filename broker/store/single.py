"""One Redis server: a client with bounds on everything it may wait for, and many commands in one round trip."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from broker.store.secured import with_fresh_certificates

CONNECT_TIMEOUT_S = 0.5
ANSWER_TIMEOUT_S = 1.0
MAX_CONNECTIONS = 32
# How long several servers that should know the same are asked before the answer has to do.
KNOWN_WITHIN_S = 0.4

RedisCommand = tuple[str | bytes | int | float, ...]
T = TypeVar("T")


def bounds() -> dict[str, Any]:
    """Options of a connection pool. Retries are ours to decide, so the client makes none."""
    return {
        "max_connections": MAX_CONNECTIONS,
        "timeout": ANSWER_TIMEOUT_S,  # for a free connection: a call waits for one, and does not fail at once
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        # With one, redis-py sends by asyncio.wait_for, which on Python 3.11 swallows a cancel that comes as it ends: a
        # task that is to stop goes on for ever. So whoever asks bounds the time.
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        # They stretch the timeouts, and with them the pool of redis-py 8.1 gives out connections that the server has
        # closed (redis-py 4252): after a restart each would fail a call.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def connect(options: Mapping[str, Any]) -> Redis:
    """A client of one server, made of what its URL says; connects when it is first used.

    Raises OSError for certificates that cannot be used.
    """
    return Redis.from_pool(BlockingConnectionPool(**(bounds() | with_fresh_certificates(options))))


async def send_to(redis: Redis, commands: Iterable[RedisCommand]) -> list[Any]:
    """The answer to each command, an exception where Redis refuses one. Raises RedisError, OSError for none."""
    async with redis.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        return list(await pipeline.execute(raise_on_error=False))


async def first(questions: Sequence[Coroutine[Any, Any, T]], *, enough: int) -> list[T]:
    """The first answers that are no failure, as many as are enough; nobody waits for a server that is frozen."""
    tasks = [asyncio.create_task(question) for question in questions]
    found: list[T] = []
    try:
        async with asyncio.timeout(KNOWN_WITHIN_S):
            for answer in asyncio.as_completed(tasks):
                with contextlib.suppress(RedisError, OSError):
                    found.append(await answer)
                if len(found) >= enough:
                    break
    except TimeoutError:
        pass  # what came in time has to do
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found
