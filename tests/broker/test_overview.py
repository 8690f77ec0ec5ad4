"""WatchClusters: every cluster once, then each change, to keys that see it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from broker import overview
from broker.core.credentials import Caller, Credentials
from broker.core.patterns import Patterns
from broker.overview import Overview
from broker.presence import Presence
from broker.registry import Registry
from broker.store.store import Store, open_store
from openline.errors import OpenlineError, from_rpc_error
from openline.reasons import NO, Reason
from openline.v1 import admin_service_pb2, cluster_service_pb2
from openline.v1 import executor_service_pb2 as wire
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub

PATIENCE_S = 20.0
CHIEF = (("x-api-key", "the-key-of-the-chief"),)
SOME = "the-key-that-sees-some"
Cluster = cluster_service_pb2.Cluster


class Watcher:
    """One WatchClusters call, read when the test wants."""

    def __init__(self, broker: Any, key: str = "the-key-of-alice") -> None:
        stub = ClusterServiceStub(broker.channel())
        request = cluster_service_pb2.WatchClustersRequest()
        self.call = stub.WatchClusters(request, metadata=(("x-api-key", key),))

    async def next(self) -> Cluster:
        """Raises OpenlineError for a status."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return (await self.call.read()).cluster  # type: ignore[no-any-return]
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from failure

    async def until(self, true: Callable[[Cluster], bool]) -> Cluster:
        """The first that fits; what comes before is passed over."""
        while True:
            if true(cluster := await self.next()):
                return cluster


async def admin(broker: Any, method: str, request: Any) -> Any:
    return await getattr(AdminServiceStub(broker.channel()), method)(request, metadata=CHIEF, timeout=PATIENCE_S)


async def make_token(broker: Any, cluster_id: str) -> str:
    request = admin_service_pb2.CreateExecutorTokenRequest(cluster_id=cluster_id)
    return str((await admin(broker, "CreateExecutorToken", request)).token)


@pytest.fixture
async def often_read(monkeypatch: pytest.MonkeyPatch, start_broker: Any) -> AsyncIterator[Any]:
    """A broker that soon tells what an executor says of itself: of that there are no news."""
    monkeypatch.setattr("broker.hearing.READ_EVERY_S", 0.5)
    async with start_broker() as broker:
        yield broker


async def test_every_cluster_comes_once_and_then_each_change(often_read: Any) -> None:
    """An executor that comes, says something new of itself, and goes; the other cluster is not told of again."""
    broker = often_read
    watcher = Watcher(broker)
    first = [await watcher.next(), await watcher.next()]
    assert [(c.cluster_id, c.has_token, c.connected) for c in first] == [
        ("prod", True, False),
        ("staging", True, False),
    ]
    executor = await broker.executor()
    came = await watcher.next()
    assert (came.cluster_id, came.connected) == ("prod", True)
    assert [each.executor_id for each in came.executors] == ["exec-1"]
    await executor.send(wire.ExecutorFrame(capabilities=wire.Capabilities(verbs=["get"])))
    await watcher.until(lambda c: c.cluster_id == "prod" and list(c.executors[0].capabilities.verbs) == ["get"])
    await executor.call.done_writing()
    gone = await watcher.until(lambda c: not c.connected)
    assert (gone.cluster_id, gone.has_token, len(gone.executors)) == ("prod", True, 0)
    assert gone.HasField("last_seen")


async def test_a_cluster_comes_with_its_first_token_and_goes_with_the_last(broker: Any) -> None:
    watcher = Watcher(broker)
    await watcher.until(lambda c: c.cluster_id == "staging")
    await make_token(broker, "fresh")
    assert (await watcher.next()) == Cluster(cluster_id="fresh", has_token=True)
    await admin(broker, "RevokeExecutorToken", admin_service_pb2.RevokeExecutorTokenRequest(cluster_id="fresh"))
    assert (await watcher.next()) == Cluster(cluster_id="fresh")


async def test_another_replicas_executors_are_seen(start_broker: Any) -> None:
    async with start_broker(replica_id="r1") as one, start_broker(replica_id="r2") as other:
        watcher = Watcher(one)
        await watcher.until(lambda c: c.cluster_id == "staging")
        await other.executor()
        came = await watcher.until(lambda c: c.connected)
        assert (came.cluster_id, came.executors[0].replica_id) == ("prod", "r2")


async def test_a_hidden_cluster_is_not_watched(start_broker: Any) -> None:
    """Neither at first nor when it changes, comes or goes; one that the key sees and that comes later is."""
    async with start_broker(extra_keys=[f"zoe:{SOME}:read@prod*"]) as broker:
        some, everything = Watcher(broker, SOME), Watcher(broker)
        assert (await some.next()).cluster_id == "prod"
        staging = broker.dial(token="the-token-of-staging")
        await staging.hello(cluster_id="staging")
        await everything.until(lambda c: c.cluster_id == "staging" and c.connected)
        await make_token(broker, "fresh")
        await everything.until(lambda c: c.cluster_id == "fresh")
        await admin(broker, "RevokeExecutorToken", admin_service_pb2.RevokeExecutorTokenRequest(cluster_id="fresh"))
        await everything.until(lambda c: c.cluster_id == "fresh" and not c.has_token)
        await make_token(broker, "prod-2")
        assert (await some.next()).cluster_id == "prod-2"


@pytest.mark.parametrize(
    ("key", "reason"),
    [("", Reason.UNAUTHENTICATED), ("wrong", Reason.UNAUTHENTICATED), ("the-key-of-the-auditor", Reason.SCOPE_MISSING)],
)
async def test_who_may_not_watch(broker: Any, key: str, reason: Reason) -> None:
    with pytest.raises(OpenlineError) as refusal:
        await Watcher(broker, key).next()
    assert refusal.value.reason is reason


async def test_an_admin_may_watch_as_well(start_broker: Any) -> None:
    async with start_broker(extra_keys=["zoe:the-key-of-zoe:admin"]) as broker:
        assert (await Watcher(broker, "the-key-of-zoe").next()).cluster_id == "prod"


async def test_there_is_a_bound_on_watches(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leaves makes room."""
    monkeypatch.setattr(overview, "MAX_WATCHES", 1)
    first = Watcher(broker)
    await first.next()
    with pytest.raises(OpenlineError) as refusal:
        await Watcher(broker).next()
    assert refusal.value.reason is Reason.QUOTA_EXCEEDED
    first.call.cancel()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(OpenlineError):
                await Watcher(broker).next()
                break
            await asyncio.sleep(0.01)


async def test_a_replica_that_stops_sends_its_watchers_away(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To another one, at once: they do not hold it up."""
    monkeypatch.setattr("broker.server.STOP_GRACE_S", 60.0)
    async with start_broker() as broker:
        watcher = Watcher(broker)
        await watcher.until(lambda c: c.cluster_id == "staging")
        ended = asyncio.create_task(watcher.next())
        broker.close = lambda: asyncio.sleep(0)
    with pytest.raises(OpenlineError) as why:
        await ended
    assert (why.value.reason, why.value.error.executed) == (Reason.BROKER_UNAVAILABLE, NO)
    for channel in broker._channels:
        await channel.close()


async def test_without_redis_it_cannot_begin(start_broker: Any) -> None:
    """As a list of clusters cannot be had."""
    async with open_store("redis://127.0.0.1:1", result_ttl_s=60) as nowhere, start_broker(nowhere) as broker:
        with pytest.raises(OpenlineError) as refusal:
            await Watcher(broker).next()
        assert refusal.value.reason is Reason.STORE_UNAVAILABLE


# By itself


class Stage:
    """An overview of some clusters in a real Redis, and its task."""

    def __init__(self, store: Store, *clusters: str) -> None:
        self.store = store
        tokens = [f"{cluster_id}:token" for cluster_id in clusters]
        credentials = Credentials(api_keys=[], executor_tokens=tokens)
        here: Any = type("Nobody", (), {"executors": lambda _self, _cluster_id: []})()
        presence: Presence = here
        self.overview = Overview(store.clusters, Registry(credentials, store), presence, lambda _: [])


@pytest.fixture
async def stage(store: Store) -> AsyncIterator[Stage]:
    made = Stage(store, "a", "b", "c")
    task = asyncio.create_task(made.overview.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


EVERYBODY = Caller(owner="alice", scopes=("read",))


async def took(watch: Any, count: int) -> list[str]:
    """So many ids of what it is told."""
    ids: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        async for cluster in watch:
            ids.append(cluster.cluster_id)
            if len(ids) == count:
                return ids
    raise AssertionError


async def test_what_changes_twice_is_told_once_to_who_reads_slowly(stage: Stage) -> None:
    """As it is then; so nothing grows while somebody does not read."""
    async with stage.overview.watch(EVERYBODY) as slow, stage.overview.watch(EVERYBODY) as quick:
        assert await took(quick, 3) == ["a", "b", "c"]
        for number in range(3):
            await stage.store.sessions._redis.set("openline:cluster:{b}:session", "s", px=1 if number == 1 else None)
            await asyncio.sleep(0.01)
            stage.overview.news("b")
            assert await took(quick, 1) == ["b"]
        assert len(slow._untold) == 3
        async for cluster in slow:
            if cluster.cluster_id == "b":
                assert cluster.has_active_session
            if cluster.cluster_id == "c":
                break


async def test_what_is_no_change_is_not_told(stage: Stage) -> None:
    """How long a cluster is active yet, when it was seen and how much runs there: it would never end."""
    one = cluster_service_pb2.ConnectedExecutor(executor_id="e", running=1)
    before = Cluster(cluster_id="a", connected=True, active=True, active_for_s=3.0, executors=[one])
    after = Cluster(cluster_id="a", connected=True, active=True, active_for_s=2.0, executors=[one])
    after.last_seen.GetCurrentTime()
    after.executors[0].running = 7
    assert overview._essence(before) == overview._essence(after)
    assert after.executors[0].running == 7
    for name, value in (("active", False), ("connected", False), ("has_active_session", True)):
        other = Cluster()
        other.CopyFrom(after)
        setattr(other, name, value)
        assert overview._essence(before) != overview._essence(other)


async def test_while_nobody_watches_nothing_is_read_or_kept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage.overview.watch(EVERYBODY) as watch:
        await took(watch, 3)
        assert repr(stage.overview) == "<Overview known=3 watches=1>"
    asked: list[Any] = []
    monkeypatch.setattr(type(stage.store.clusters), "get", lambda *_: asked.append(1))
    stage.overview.news("a")
    await asyncio.sleep(2 * overview.GATHER_S)
    assert repr(stage.overview) == "<Overview known=0 watches=0>"
    assert asked == []


async def test_while_redis_is_away_nothing_is_told_and_then_all(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there was news of meanwhile is read when it is back."""
    monkeypatch.setattr(overview, "LOOK_EVERY_S", 0.05)
    async with stage.overview.watch(EVERYBODY) as watch:
        await took(watch, 3)
        get, tried = type(stage.store.clusters).get, asyncio.Event()

        async def away(*_arguments: Any) -> Any:
            tried.set()
            raise OpenlineError(overview.errors.error(Reason.STORE_UNAVAILABLE, "away"))

        with monkeypatch.context() as patch:
            patch.setattr(type(stage.store.clusters), "get", away)
            await stage.store.sessions._redis.set("openline:cluster:{b}:session", "s")
            stage.overview.news("b")
            async with asyncio.timeout(PATIENCE_S):
                await tried.wait()
            assert not watch._untold
        assert type(stage.store.clusters).get is get
        assert await took(watch, 1) == ["b"]


async def test_what_nobody_sees_is_neither_read_nor_held(stage: Stage) -> None:
    """How long a watcher waits for the first cluster tells nothing of those it does not see."""
    some = Caller(owner="alice", scopes=("read",), clusters=Patterns.of(["b"]))
    async with stage.overview.watch(some) as watch:
        assert list(watch._untold) == ["b"]
        watch.tell(["a", "c"])
        assert list(watch._untold) == ["b"]
        stage.overview.news("a")
        assert (list(stage.overview._known), stage.overview._stale) == (["b"], set())
        async with stage.overview.watch(EVERYBODY):
            assert list(stage.overview._known) == ["b", "a", "c"]
        async with asyncio.timeout(PATIENCE_S):
            while list(stage.overview._known) != ["b"]:
                await asyncio.sleep(0.01)
        assert list(watch._untold) == ["b"]
