"""Presence in a real Valkey: the newest connection wins, whatever comes late, and everything expires."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.store import keys
from broker.store.client import Client
from broker.store.news import Change, subscribe
from broker.store.presence import PresenceRecords
from broker.store.store import Store
from openline.errors import OpenlineError
from openline.reasons import Reason
from openline.v1.cluster_service_pb2 import ConnectedExecutor, Replica

PATIENCE_S = 20.0


def executor(executor_id: str = "a", *, epoch: int = 1, **fields: Any) -> ConnectedExecutor:
    return ConnectedExecutor(executor_id=executor_id, epoch=epoch, replica_id="r-1", **fields)


@pytest.fixture
def presence(redis: Redis) -> PresenceRecords:
    return PresenceRecords(redis)


async def expire(redis: Redis, executor_id: str, *, cluster_id: str = "prod") -> None:
    """As if 30 s had passed since it was last refreshed."""
    value = await redis.hget(keys.presence(cluster_id), executor_id)
    assert value is not None
    seconds, micros = await redis.time()
    past = seconds * 1000 + micros // 1000 - 1
    await redis.hset(keys.presence(cluster_id), executor_id, value[:20] + str(past).zfill(16).encode() + value[36:])


class Listener:
    """What comes out of one subscription."""

    def __init__(self, client: Client) -> None:
        self._changes = subscribe(client, keys.NEWS, Change.decode)

    async def next(self) -> Change | None:
        async with asyncio.timeout(PATIENCE_S):
            return await anext(self._changes)

    async def again(self) -> None:
        """Waits for the next subscription; whatever was published before it."""
        while await self.next() is not None:
            pass

    async def close(self) -> None:
        await self._changes.aclose()


@contextlib.asynccontextmanager
async def listening(client: Client) -> AsyncIterator[Listener]:
    listener = Listener(client)
    try:
        assert await listener.next() is None
        yield listener
    finally:
        await listener.close()


# Who holds it


async def test_who_is_registered_is_found(presence: PresenceRecords, redis: Redis) -> None:
    """As it was written, in the order that was asked for, until it has not been refreshed for 30 s."""
    a, b = executor("a", moving=True, replica_address="h:1"), executor("b")
    assert await presence.register([("prod", a), ("staging", b)], changed=True) == [True, True]
    assert await presence.read(["staging", "never", "prod"]) == [[b], [], [a]]
    assert 25 < await redis.ttl(keys.presence("prod")) <= 30
    await expire(redis, "a")
    assert await presence.read(["prod"]) == [[]]


async def test_a_newer_connection_takes_the_place(presence: PresenceRecords) -> None:
    """On any replica; and the older one is told at its next refresh that it does not hold."""
    older, newer = executor(epoch=9), executor(epoch=10)
    assert await presence.register([("prod", older)], changed=True) == [True]
    assert await presence.register([("prod", newer)], changed=True) == [True]
    assert await presence.register([("prod", older)], changed=False) == [False]
    assert await presence.read(["prod"]) == [[newer]]


async def test_epochs_may_have_64_bits(presence: PresenceRecords) -> None:
    """More than a double holds: neighbours are still told apart."""
    top = 2**64 - 1
    assert await presence.register([("prod", executor(epoch=top))], changed=True) == [True]
    assert await presence.register([("prod", executor(epoch=top - 1))], changed=True) == [False]
    await presence.unregister([("prod", executor(epoch=top - 1))])
    assert await presence.read(["prod"]) == [[executor(epoch=top)]]


async def test_a_refresh_keeps_it(presence: PresenceRecords, redis: Redis) -> None:
    """The same epoch again: the record may have changed, and its time begins anew."""
    await presence.register([("prod", executor())], changed=True)
    await redis.expire(keys.presence("prod"), 3)
    assert await presence.register([("prod", executor(running=3))], changed=False) == [True]
    assert await redis.ttl(keys.presence("prod")) > 15
    assert await presence.read(["prod"]) == [[executor(running=3)]]


async def test_an_expired_record_is_no_obstacle(presence: PresenceRecords, redis: Redis) -> None:
    """A clock that ran ahead, on a replica that is gone, does not lock an executor out."""
    await presence.register([("prod", executor(epoch=1000))], changed=True)
    await expire(redis, "a")
    assert await presence.register([("prod", executor(epoch=1))], changed=True) == [True]
    assert await presence.read(["prod"]) == [[executor(epoch=1)]]


async def test_what_has_expired_is_taken_out(presence: PresenceRecords, redis: Redis) -> None:
    """By whoever refreshes another: the hash does not grow with the names that executors had."""
    await presence.register([("prod", executor("old")), ("prod", executor("b"))], changed=True)
    await expire(redis, "old")
    await redis.hset(keys.presence("prod"), "garbage", b"\xff")
    await presence.register([("prod", executor("b"))], changed=False)
    assert await redis.hkeys(keys.presence("prod")) == [b"b"]


async def test_a_late_clean_up_changes_nothing(presence: PresenceRecords) -> None:
    """The old connection's end comes after the new one's beginning."""
    newer = executor(epoch=2)
    await presence.register([("prod", executor(epoch=1))], changed=True)
    await presence.register([("prod", newer)], changed=True)
    await presence.unregister([("prod", executor(epoch=1))])
    assert await presence.read(["prod"]) == [[newer]]
    await presence.unregister([("prod", newer)])
    assert await presence.read(["prod"]) == [[]]


async def test_what_cannot_be_read_is_left_out(presence: PresenceRecords, redis: Redis) -> None:
    """Somebody else's bytes, with and without an expiry, are nobody, and no obstacle either."""
    await redis.hset(keys.presence("prod"), "x", b"\xff\xff garbage")
    await redis.hset(keys.presence("prod"), "a", b"9" * 36 + b"\xff\xff")
    await presence.register([("prod", executor("x")), ("prod", executor("b"))], changed=True)
    [found] = await presence.read(["prod"])
    assert sorted(one.executor_id for one in found) == ["b", "x"]


async def test_when_a_cluster_was_seen_is_written_along(presence: PresenceRecords, store: Store) -> None:
    """And remains when its executor has left."""
    await presence.register([("prod", executor())], changed=True)
    [here] = await store.clusters.get(["prod"])
    assert here.connected
    assert list(here.executors) == [executor()]
    await presence.unregister([("prod", executor())])
    [gone] = await store.clusters.get(["prod"])
    assert not gone.connected
    assert gone.last_seen.ToMilliseconds() >= here.last_seen.ToMilliseconds() > 0


async def test_thousands_at_once(presence: PresenceRecords, redis: Redis) -> None:
    """In pieces; the answers come in the order of the questions, also when clusters are mixed."""
    entries = [(f"c-{n % 700}", executor(f"e-{n}")) for n in range(2000)]
    await presence.register([("c-3", executor("e-3", epoch=2))], changed=True)
    held = await presence.register(entries, changed=True)
    assert [n for n, holds in enumerate(held) if not holds] == [3]
    found = await presence.read([f"c-{n}" for n in range(700)])
    assert sum(len(each) for each in found) == 2000
    assert {one.executor_id for one in found[5]} == {"e-5", "e-705", "e-1405"}
    await presence.unregister(entries)
    assert sum(len(each) for each in await presence.read([f"c-{n}" for n in range(700)])) == 1
    assert await presence.register([], changed=True) == []
    assert await presence.read([]) == []


# Replicas


async def test_replicas_find_each_other(presence: PresenceRecords, redis: Redis) -> None:
    """The newest process of a name wins, and a late goodbye of the old one changes nothing."""
    one, other = Replica(replica_id="r-1", address="h:1"), Replica(replica_id="r-2", address="h:2", draining=True)
    assert await presence.register_replica(one, 5)
    assert await presence.register_replica(other, 1)
    assert sorted(await presence.read_replicas(), key=lambda each: each.replica_id) == [one, other]
    assert not await presence.register_replica(Replica(replica_id="r-1", address="h:9"), 4)
    await presence.unregister_replica("r-1", 4)
    assert len(await presence.read_replicas()) == 2
    await presence.unregister_replica("r-1", 5)
    assert await presence.read_replicas() == [other]
    assert 25 < await redis.ttl(keys.REPLICAS) <= 30


async def test_replicas_agree(presence: PresenceRecords, redis: Redis) -> None:
    """On the first one's mark and secret, for as long as one of them comes back within a day."""
    assert await presence.meet("mine", b"\xff\x00secret") == ("mine", b"\xff\x00secret")
    await redis.expire(keys.MARK, 5)
    await redis.expire(keys.PEER_SECRET, 5)
    assert await presence.meet("yours", b"another") == ("mine", b"\xff\x00secret")
    assert await redis.ttl(keys.MARK) > 80_000
    assert await redis.ttl(keys.PEER_SECRET) > 80_000


async def test_a_redis_that_comes_back_empty_has_another_mark(presence: PresenceRecords, redis: Redis) -> None:
    assert (await presence.meet("mine", b"s"))[0] == "mine"
    await redis.flushall()
    assert (await presence.meet("again", b"s"))[0] == "again"


# News


async def test_news_arrive(presence: PresenceRecords, redis: Redis) -> None:
    """Of what changes, not of a refresh, nor of what did not take effect."""
    async with listening(redis) as listener:
        await presence.register([("prod", executor("a", epoch=2))], changed=True)
        await presence.register([("prod", executor("a", epoch=2))], changed=False)
        await presence.register([("prod", executor("a", epoch=1))], changed=True)
        await presence.unregister([("prod", executor("a", epoch=1))])
        await presence.unregister([("prod", executor("a", epoch=2))])
        assert await listener.next() == Change("prod", executor("a", epoch=2), True)
        assert await listener.next() == Change("prod", executor("a", epoch=2), False)


async def test_garbage_is_no_news(presence: PresenceRecords, redis: Redis) -> None:
    async with listening(redis) as listener:
        for garbage in (b"\xff\xff", b"", b"\x0a\x04prod"):
            await redis.publish(keys.NEWS, garbage)
        await presence.register([("prod", executor())], changed=True)
        assert await listener.next() == Change("prod", executor(), True)


async def test_a_subscription_that_is_cancelled_leaves_no_connection(redis: Redis, valkey: str) -> None:
    """Neither open in Redis nor taken in the pool."""
    told = asyncio.Event()

    async def listen() -> None:
        async with contextlib.aclosing(subscribe(redis, keys.NEWS, Change.decode)) as changes:
            async for _change in changes:
                told.set()

    for _ in range(50):  # more than the pool has
        told.clear()
        task = asyncio.create_task(listen())
        async with asyncio.timeout(PATIENCE_S):
            await told.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    async with asyncio.timeout(PATIENCE_S):
        while await redis.pubsub_numsub(keys.NEWS) != [(keys.NEWS.encode(), 0)]:
            await asyncio.sleep(0.01)


async def test_a_subscription_survives_a_restart(server: Any) -> None:
    """kill -9, some refused connections, and an empty Redis: whoever listens is told to read anew, then hears again."""
    presence = PresenceRecords(server.redis)
    async with listening(server.redis) as listener:
        for _ in range(2):
            await server.kill()
            again = asyncio.create_task(listener.again())
            await asyncio.sleep(0.3)
            assert not again.done()
            await server.start()
            await again
            await presence.register([("prod", executor())], changed=True)
            assert await listener.next() == Change("prod", executor(), True)


async def test_a_frozen_redis_is_noticed(server: Any, log_lines: list[dict[str, Any]]) -> None:
    """Its socket stays open and silent: it is given up within seconds, and found again when it thaws."""
    presence = PresenceRecords(server.redis)
    async with listening(server.redis) as listener:
        with server.frozen():
            again = asyncio.create_task(listener.again())
            async with asyncio.timeout(PATIENCE_S):
                while "news.lost" not in [line["event"] for line in log_lines]:
                    await asyncio.sleep(0.05)
            assert not again.done()
        await again
        await presence.register([("prod", executor())], changed=True)
        assert await listener.next() == Change("prod", executor(), True)


async def test_silence_is_no_failure(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet server answers when it is asked, again and again, and nobody reads anew for it."""
    monkeypatch.setattr("broker.store.news.QUIET_S", 0.5)

    async def pings() -> int:
        return int((await redis.info("commandstats")).get("cmdstat_ping", {}).get("calls", 0))

    async with listening(redis) as listener:
        waiting = asyncio.create_task(listener.next())
        before = await pings()
        async with asyncio.timeout(PATIENCE_S):
            while await pings() < before + 2:
                await asyncio.sleep(0.02)
        assert not waiting.done()
        await redis.publish(keys.NEWS, Change("prod", executor(), True).encode())
        assert await waiting == Change("prod", executor(), True)


async def test_one_that_cannot_be_reached_is_tried_on(log_lines: list[dict[str, Any]], server: Any) -> None:
    """From the first subscription on."""
    await server.kill()
    listener = Listener(server.redis)
    first = asyncio.create_task(listener.next())
    async with asyncio.timeout(PATIENCE_S):
        while not log_lines:
            await asyncio.sleep(0.02)
    await server.start()
    assert await first is None
    await listener.close()


# Without Redis


async def test_without_redis_it_says_so_in_time(server: Any) -> None:
    """Frozen or gone: STORE_UNAVAILABLE, within a bound."""
    presence = PresenceRecords(server.redis)
    entries = [("prod", executor())]
    calls = (
        lambda: presence.register(entries, changed=True),
        lambda: presence.unregister(entries),
        lambda: presence.read(["prod"]),
        lambda: presence.read_replicas(),
        lambda: presence.meet("m", b"s"),
    )
    with server.frozen():
        for call in calls:
            with pytest.raises(OpenlineError) as refusal:
                async with asyncio.timeout(PATIENCE_S):
                    await call()
            assert refusal.value.reason is Reason.STORE_UNAVAILABLE
    await server.kill()
    for call in calls:
        with pytest.raises(OpenlineError):
            await call()


async def test_nothing_is_without_a_ttl(presence: PresenceRecords, redis: Redis) -> None:
    """Whatever is written expires, after all operations in any order."""
    entries = [("prod", executor("a")), ("staging", executor("b"))]
    for order in itertools.permutations(range(4)):
        await redis.flushall()
        for step in order:
            match step:
                case 0:
                    await presence.register(entries, changed=True)
                case 1:
                    await presence.unregister(entries[:1])
                case 2:
                    await presence.register_replica(Replica(replica_id="r"), 1)
                    await presence.meet("m", b"s")
                case 3:
                    await presence.read(["prod", "staging", "x"])
                    await presence.unregister_replica("r", 1)
        names = [name async for name in redis.scan_iter()]
        assert names
        assert [name for name in names if await redis.ttl(name) <= 0] == []
