"""The Redis client: made of a URL, with bounds on everything it may wait for."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.store.folding import fold, unfold
from broker.store.sentinels import open_primary
from broker.store.sharded import ShardedRedis
from broker.store.single import ANSWER_TIMEOUT_S, RedisCommand, connect, send_to
from broker.store.urls import Clustered, OneServer, parse
from openline import errors
from openline.reasons import Reason

Client = Redis | ShardedRedis


def check_url(url: str) -> None:
    """Raises ValueError for a URL that no client can be made of."""
    target = parse(url)
    try:
        match target:
            case Clustered(seeds, options):
                redis = connect(options | dict(zip(("host", "port"), seeds[0], strict=True)))
            case _:
                redis = open_redis(url)
        redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # it is not opened
    except (TypeError, RedisError):
        raise ValueError("it has options that a Redis client does not know") from None
    except OSError as unusable:
        raise ValueError(str(unusable)) from None


def open_client(url: str) -> Client:
    """A client for any URL that `urls.SCHEMES` names; connects when it is first used. Raises ValueError."""
    target = parse(url)
    return ShardedRedis(target) if isinstance(target, Clustered) else open_redis(url)


def open_redis(url: str) -> Redis:
    """A client for what is one server at a time, that is, for no Redis Cluster. Raises ValueError."""
    match parse(url):
        case OneServer(options):
            return connect(options)
        case Clustered():
            raise ValueError("a Redis Cluster is more than one server")
        case target:
            return open_primary(target)


async def send(client: Client, commands: Iterable[RedisCommand]) -> list[Any]:
    """The answer to each command, an exception where Redis refuses it or its node is out of reach.

    Strings are bytes. Raises RedisError or OSError when there is no answer at all.
    """
    return await client.send(commands) if isinstance(client, ShardedRedis) else await send_to(client, commands)


async def send_folded(client: Client, commands: Sequence[RedisCommand]) -> list[Any]:
    """As `send`, for many commands whose answers say no more than whether they were carried out."""
    if isinstance(client, ShardedRedis):
        return await client.send(commands)
    folded, stands_for = fold(commands)
    answers = await send_to(client, folded)
    unfolded = unfold(answers, stands_for)
    # A script fails as a whole, and hardly says why: a server of a Redis Cluster that is not known as one, an older one
    # that is full. Each write is asked for by itself then, and answered for itself.
    again = [
        place
        for answer, places in zip(answers, stands_for, strict=True)
        if len(places) > 1 and isinstance(answer, Exception)
        for place in places
    ]
    if again:
        for place, answer in zip(again, await send_to(client, [commands[place] for place in again]), strict=True):
            unfolded[place] = answer
    return unfolded


async def ask(client: Client, *commands: RedisCommand) -> list[Any]:
    """The answers to some commands, in one round trip; strings are bytes. Raises STORE_UNAVAILABLE.

    To none there are none, wherever Redis is: whether a key is good is asked of a broker by a list of nothing.
    """
    if not commands:
        return []
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            answers = await send(client, commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
    except (RedisError, OSError, TimeoutError) as failure:
        why = "Redis is out of reach, or takes no writes"
        unavailable = errors.error(Reason.STORE_UNAVAILABLE, why, retry_after_s=1.0)
        raise errors.OpenlineError(unavailable) from failure
    return answers
