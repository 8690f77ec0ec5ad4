"""A Redis that is full cannot be told who is connected, and forgets it: replicas that see each other still know."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from broker import hearing, presence
from broker.store import keys
from broker.store.client import open_redis
from broker.store.embedded import embedded_valkey
from broker.store.store import open_store
from openline.v1 import cluster_service_pb2
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub

PATIENCE_S = 20.0
CLUSTERS = ("prod", "staging")


@dataclass
class Stage:
    """Two replicas, each with an executor of one cluster, on a Redis of their own."""

    redis: Redis
    replicas: tuple[Any, Any]
    far: Any
    patch: pytest.MonkeyPatch

    async def connected(self) -> list[dict[str, bool]]:
        """By cluster, as each replica says it."""
        return [
            {each.cluster_id: each.connected for each in (await _list(replica)).clusters} for replica in self.replicas
        ]

    async def lacks_some(self) -> bool:
        """Whether Redis has not been told of all."""
        return bool(await self.redis.exists(*map(keys.presence, CLUSTERS)) < len(CLUSTERS))

    async def is_full(self) -> None:
        """It cannot be told who is there, which the replicas know, and has forgotten it."""
        hearings, presences = (
            [replica.inside.parts[part][0] for replica in self.replicas] for part in ("Hearing", "Presence")
        )
        for each in hearings:
            each._whole_at = 0.0
        await self.redis.config_set("maxmemory", "1mb")

        async def is_known() -> bool:
            told_again = all(each._changed for each in presences)
            return told_again and not any(each.is_whole for each in hearings)

        await until(is_known)
        # From now on it is told by those who know that, and by nobody else.
        self.patch.setattr(keys, "SEEN_EVERY_S", 3600.0)
        # It was told of them for half a minute, which the test does not wait for.
        await self.redis.delete(keys.REPLICAS, *map(keys.presence, CLUSTERS))


async def _list(replica: Any) -> cluster_service_pb2.ListClustersResponse:
    request = cluster_service_pb2.ListClustersRequest()
    call = ClusterServiceStub(replica.channel()).ListClusters(request, metadata=(("x-api-key", "the-key-of-alice"),))
    return await call  # type: ignore[no-any-return]


async def until(true: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await true():
            await asyncio.sleep(0.05)


@pytest.fixture
async def stage(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(keys, "SEEN_EVERY_S", 0.5)
    monkeypatch.setattr("broker.store.store.DRAIN_S", 0.1)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_valkey(None))
        redis = open_redis(url)
        stack.push_async_callback(redis.aclose)
        replicas = []
        for name in ("r1", "r2"):
            store = await stack.enter_async_context(open_store(url, result_ttl_s=60))
            replicas.append(await stack.enter_async_context(start_broker(store, replica_id=name)))
        await replicas[0].executor()
        far = replicas[1].dial(token="the-token-of-staging")
        await far.hello(cluster_id="staging")
        stage = Stage(redis, (replicas[0], replicas[1]), far, monkeypatch)

        async def is_ready() -> bool:
            """All is known to both, and the pipes between them stand."""
            shown = all(all(each.values()) for each in await stage.connected())
            insides = [each.inside for each in replicas]
            heard = [inside.ledger._routes._directory for inside in insides]
            reached = all(inside.dispatcher._forwarding._peers.reachable for inside in insides)
            return shown and reached and bool(heard[0].executors("staging")) and bool(heard[1].executors("prod"))

        await until(is_ready)
        yield stage


async def test_nobody_seems_to_have_left(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever replica is asked; also in the moment when Redis takes writes again and has not been told of all."""
    assert presence.RETRY_MAX_S < hearing.TOLD_AGAIN_S
    # That may take this machine longer than three seconds.
    monkeypatch.setattr(hearing, "TOLD_AGAIN_S", 30.0)
    everybody = [dict.fromkeys(CLUSTERS, True)] * 2
    await stage.is_full()
    assert await stage.connected() == everybody
    asked = stage.replicas[0].execute(cluster_id="staging")
    await stage.far.run_one(b"x")
    assert (await asked).result.stdout == b"x"
    await stage.redis.config_set("maxmemory", "0")
    async with asyncio.timeout(PATIENCE_S):
        while await stage.lacks_some():
            assert await stage.connected() == everybody
    assert await stage.connected() == everybody


async def test_who_leaves_meanwhile_is_gone_when_redis_can_be_told(stage: Stage) -> None:
    """At the replica that it was connected to at once."""
    await stage.is_full()
    await stage.far.call.done_writing()

    async def left(number: int) -> bool:
        return not (await stage.connected())[number]["staging"]

    await until(lambda: left(1))
    await stage.redis.config_set("maxmemory", "0")
    await until(lambda: stage.redis.exists(keys.presence("prod")))
    await until(lambda: left(0))
    assert [each["prod"] for each in await stage.connected()] == [True, True]
