"""Writes that nobody waits for, against a real Valkey that is stopped, throttled and told to refuse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.store import keys
from broker.store.behind import MAX_KEPT_BYTES, WriteBehind
from broker.store.client import open_redis
from broker.store.embedded import embedded_valkey
from broker.store.presence import registering
from openline.v1.cluster_service_pb2 import ConnectedExecutor

PATIENCE_S = 20.0


@contextlib.asynccontextmanager
async def running(redis: Redis) -> AsyncIterator[WriteBehind]:
    """A queue and its task."""
    behind = WriteBehind(redis)
    task = asyncio.create_task(behind.run())
    try:
        yield behind
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled(), "the writer died"


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


class Link:
    """A way to the Valkey that the test cuts and throttles."""

    def __init__(self, valkey: str) -> None:
        self._socket = valkey.removeprefix("unix://")
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.bytes_per_s = float("inf")
        self.up = True

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.up:
            writer.close()
            return
        there, back = await asyncio.open_unix_connection(self._socket)
        self._writers += [writer, back]
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pump(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                await asyncio.sleep(len(data) / self.bytes_per_s)
                target.write(data)
                await target.drain()
        target.close()

    async def cut(self) -> None:
        self.up = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self._writers.clear()


@pytest.fixture
async def link(valkey: str, redis: Redis) -> AsyncIterator[tuple[Link, Redis]]:
    """The link, and a client that goes through it."""
    way = Link(valkey)
    server = await asyncio.start_server(way.accept, "127.0.0.1", 0)
    client = open_redis(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    yield way, client
    await client.aclose()
    await way.cut()
    server.close()
    await server.wait_closed()


async def test_writes_arrive_in_order_and_say_so(redis: Redis) -> None:
    """`done` is called in the order of the queue, when Redis has the write."""
    done: list[int] = []
    async with running(redis) as behind:
        for n in range(2000):
            behind.put("RPUSH", "list", n, done=lambda stored, n=n: done.append(n) if stored else None)
        assert await behind.drain(PATIENCE_S)
    assert [int(n) for n in await redis.lrange("list", 0, -1)] == list(range(2000))
    assert done == list(range(2000))
    assert repr(behind) == "<WriteBehind waiting=0 bytes=0 degraded=False>"


async def test_many_leave_in_one_round_trip(redis: Redis) -> None:
    """What was put in one turn of the loop costs a few reads of the server, not one for each write."""
    async with running(redis) as behind:
        behind.put("SET", "first", 1)
        assert await behind.drain(PATIENCE_S)
        before = (await redis.info("stats"))["total_reads_processed"]
        for n in range(400):
            behind.put("SET", f"key:{n}", n)
        assert await behind.drain(PATIENCE_S)
        assert (await redis.info("stats"))["total_reads_processed"] - before < 20
    assert await redis.dbsize() == 401


async def test_nothing_is_lost_while_redis_is_away(link: tuple[Link, Redis], redis: Redis) -> None:
    """Down, and back: every write arrives, in order, and the queue says that it was degraded meanwhile."""
    way, through = link
    async with running(through) as behind:
        behind.put("SET", "counter", "before")
        assert await behind.drain(PATIENCE_S)
        await way.cut()
        for n in range(700):  # more than one batch
            behind.put("SET", "counter", n)
            behind.put("SET", f"key:{n}", n)
        await until(lambda: behind.degraded)
        assert not await behind.drain(0.05)
        way.up = True
        assert await behind.drain(PATIENCE_S)
        await until(lambda: not behind.degraded)
    assert await redis.get("counter") == b"699"
    assert await redis.dbsize() == 701


async def test_a_backlog_passes_through_a_slow_link(link: tuple[Link, Redis], monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage megabytes wait: they leave in pieces that each arrive in time, or none ever would."""
    way, through = link
    way.bytes_per_s = 6 << 20
    monkeypatch.setattr("broker.store.behind.TIMEOUT_S", 1.5)
    async with running(through) as behind:
        for n in range(12):
            behind.put("SET", f"key:{n}", b"x" * (1 << 20))
        assert await behind.drain(PATIENCE_S)


async def test_there_is_a_bound(redis: Redis) -> None:
    """A Redis that stays away costs 64 MiB, and who asks for more is told."""
    behind = WriteBehind(redis)
    piece = b"x" * (1 << 20)
    taken = sum(behind.put("SET", f"key:{n}", piece) for n in range(100))
    assert 60 <= taken <= MAX_KEPT_BYTES >> 20
    assert not behind.put("SET", "key", piece)


async def test_a_refused_write_does_not_block_the_others(redis: Redis, log_lines: list[dict[str, Any]]) -> None:
    """It is a defect of that write: it is logged without its content, and whoever put it is told."""
    told: list[tuple[str, bool]] = []
    await redis.set("string", "x")
    async with running(redis) as behind:
        behind.put("SET", "a", 1, done=lambda stored: told.append(("a", stored)))
        behind.put("HSET", "string", "field", "secret", done=lambda stored: told.append(("b", stored)))
        behind.put("SET", "c", 1, done=lambda stored: told.append(("c", stored)))
        assert await behind.drain(PATIENCE_S)
    assert told == [("a", True), ("b", False), ("c", True)]
    [line] = [line for line in log_lines if line["event"] == "redis.write_refused"]
    assert line["command"] == "HSET"
    assert "secret" not in str(log_lines)


async def test_what_passes_is_tried_again(frames: Any) -> None:
    """A server that has lost its replicas, or is full, refuses for a while: nothing is lost meanwhile."""
    async with embedded_valkey(None) as url:
        redis = open_redis(url)
        await redis.config_set("min-replicas-to-write", 1)
        async with running(redis) as behind:
            behind.put("SET", "a", 1)
            behind.put("SET", "b", 2)
            await until(lambda: behind.degraded)
            assert not await behind.drain(0.05)
            await redis.config_set("min-replicas-to-write", 0)
            assert await behind.drain(PATIENCE_S)
            await until(lambda: not behind.degraded)
        assert await redis.mget("a", "b") == [b"1", b"2"]
        await redis.aclose()


async def test_a_script_that_a_full_redis_refuses_is_tried_again(server: Any) -> None:
    """The refusal comes out of the script, in other words than that of a command."""
    recovered: list[None] = []
    async with running(server.redis) as behind:
        behind.on_recovered = lambda: recovered.append(None)
        await server.redis.config_set("maxmemory", 1)
        for command in registering([("prod", ConnectedExecutor(executor_id="e"))], changed=True)[1:]:
            assert command[0] == "EVAL"
            behind.put(*command)
        await until(lambda: behind.degraded)
        assert not await behind.drain(0.05)
        await server.redis.config_set("maxmemory", 0)
        assert await behind.drain(PATIENCE_S)
        await until(lambda: not behind.degraded)
        assert await server.redis.hlen(keys.presence("prod")) == 1
        assert recovered == [None]


async def test_a_primary_that_has_become_a_replica_is_tried_again(server: Any, start_server: Any) -> None:
    """Nothing is refused for good because of a failover, not even by a script."""
    other = await start_server()
    told: list[bool] = []
    async with running(server.redis) as behind:
        await server.redis.replicaof("127.0.0.1", other.port)
        behind.put("SET", "a", 1, done=told.append)
        behind.put("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "b", done=told.append)
        await until(lambda: behind.degraded)
        assert not await behind.drain(0.05)
        await server.redis.replicaof("NO", "ONE")
        assert await behind.drain(PATIENCE_S)
    assert told == [True, True]
