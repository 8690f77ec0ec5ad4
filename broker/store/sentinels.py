"""Redis behind sentinels: each new connection goes to where most of them say that the primary is.

Connections to a primary that was replaced end by themselves: it is dead, or it answers READONLY, which redis-py takes
for a broken connection, or a sentinel has demoted it and closed them.
"""

import asyncio
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    SentinelConnectionPool,
    SentinelManagedConnection,
)

from broker.store.secured import SHARED, FreshPrimaryConnection, with_fresh_certificates
from broker.store.single import bounds, connect, first
from broker.store.urls import Sentinelled


class Sentinels:
    """Asked all at once, unlike redis-py's, which waits for a frozen one before it asks the next."""

    def __init__(self, target: Sentinelled, tls: dict[str, Any]) -> None:
        self._clients = [connect(options | tls) for options in target.sentinels]

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The primary's address. Raises MasterNotFoundError, which is a ConnectionError."""
        majority = len(self._clients) // 2 + 1
        states = await first([self._ask(client, service_name) for client in self._clients], enough=majority)
        if not states:
            raise MasterNotFoundError(f"none of {len(self._clients)} sentinels knows {service_name!r}")
        # One that was cut off may know the primary of before the last failover only. Whether the primary is up is not
        # asked: to connect to it tells.
        newest = max(states, key=lambda state: int(state["config-epoch"]))
        return str(newest["ip"]), int(newest["port"])

    async def _ask(self, client: Redis, service_name: str) -> dict[str, Any]:
        return cast(dict[str, Any], await client.sentinel_master(service_name))

    async def aclose(self) -> None:
        await asyncio.gather(*(client.aclose() for client in self._clients))


class PrimaryPool(SentinelConnectionPool, BlockingConnectionPool):
    """redis-py's pool for sentinels, which fails when it is empty, with its pool that waits."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def open_primary(target: Sentinelled) -> Redis:
    """A client of the primary, wherever that is; connects when it is first used."""
    options = with_fresh_certificates(target.options)
    tls: dict[str, Any] = {name: options[name] for name in SHARED if name in options}
    options["connection_class"] = FreshPrimaryConnection if tls else SentinelManagedConnection
    pool: BlockingConnectionPool = PrimaryPool(target.name, Sentinels(target, tls), **(bounds() | options))  # type: ignore[no-untyped-call]
    return Redis.from_pool(pool)
