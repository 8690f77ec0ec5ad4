"""News: a subscription that survives its Redis, and says when it may have missed something."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import structlog
from google.protobuf.message import DecodeError
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from broker.store.client import Client
from openline.v1 import cluster_service_pb2

# After so long without a message the server is asked whether it is there, and after as long again it is given up.
QUIET_S = 1.5
# For the connection, its handshake and the subscription.
SUBSCRIBE_TIMEOUT_S = 3.0
RETRY_MIN_S, RETRY_MAX_S = 0.05, 1.0

log = structlog.get_logger()

News = TypeVar("News")


@dataclass(frozen=True, slots=True)
class Change:
    """An executor has come, or has changed, or is gone."""

    cluster_id: str
    executor: cluster_service_pb2.ConnectedExecutor
    present: bool

    def encode(self) -> bytes:
        return cluster_service_pb2.Cluster(
            cluster_id=self.cluster_id, connected=self.present, executors=[self.executor]
        ).SerializeToString()

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """None for what is no change: anybody may publish."""
        try:
            cluster = cluster_service_pb2.Cluster.FromString(data)
        except DecodeError:
            return None
        if not cluster.cluster_id or len(cluster.executors) != 1:
            return None
        return cls(cluster.cluster_id, cluster.executors[0], cluster.connected)


async def subscribe(
    client: Client, channel: str, decode: Callable[[bytes], News | None]
) -> AsyncGenerator[News | None]:
    """Yields what is published there, and None after each subscription; what `decode` makes None of is passed over.

    Never ends by itself, and has one connection.
    """
    pause_s = RETRY_MIN_S
    lost = False
    while True:
        try:
            async with contextlib.aclosing(_listen(client, channel)) as messages:
                async for message in messages:
                    match message["type"]:
                        case "subscribe":
                            # Also when redis-py has connected again by itself.
                            log.info("news.subscribed", channel=channel)
                            pause_s = RETRY_MIN_S
                            lost = False
                            yield None
                        case "message" if (news := decode(message["data"])) is not None:
                            yield news
        except (RedisError, OSError) as failure:
            if not lost:
                lost = True
                log.warning("news.lost", channel=channel, error=type(failure).__name__, detail=str(failure)[:200])
        # With jitter: all replicas have lost it at once.
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  (jitter)
        pause_s = min(RETRY_MAX_S, pause_s * 2)


async def _listen(client: Client, channel: str) -> AsyncGenerator[dict[str, Any]]:
    """What comes in on one subscription, until that ends with a RedisError or an OSError."""
    async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
        # In a Redis Cluster every node passes on what is published on any.
        redis = client if isinstance(client, Redis) else await client.node()
    pubsub: PubSub = redis.pubsub()
    try:
        async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
            await pubsub.subscribe(channel)
        asked = False
        while True:
            message = await pubsub.get_message(timeout=QUIET_S)
            if message is not None:
                asked = False
                yield message
            elif asked:
                # Frozen, or out of reach without a word: its socket alone would not tell for minutes.
                raise TimeoutError(f"no answer for {QUIET_S} s")
            else:
                asked = True
                await pubsub.ping()
    finally:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
