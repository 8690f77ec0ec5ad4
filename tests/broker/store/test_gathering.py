"""Small writes gathered for a moment, against a real Valkey that is also killed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.store.behind import WriteBehind
from broker.store.client import open_redis
from broker.store.gathering import Gathering

PATIENCE_S = 20.0


def push(items: Sequence[int]) -> list[tuple[str | int, ...]]:
    """One Redis command for all of them, and none for none that is positive."""
    kept = [item for item in items if item >= 0]
    return [("RPUSH", "items", *kept)] if kept else []


@asynccontextmanager
async def gathering(redis: Redis, **bounds: int) -> AsyncIterator[tuple[WriteBehind, Gathering[int]]]:
    behind = WriteBehind(redis)
    writer = asyncio.create_task(behind.run())
    try:
        yield behind, Gathering[int](behind, push, name="items", **({"max_waiting": 1000} | bounds))
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


async def test_many_items_are_one_command(redis: Redis) -> None:
    """In their order, after a moment and without being told."""
    async with gathering(redis) as (_, some):
        for n in range(300):
            some.add(n)
        async with asyncio.timeout(PATIENCE_S):
            while await redis.llen("items") < 300 or "waiting=0" not in repr(some):
                await asyncio.sleep(0.02)
    assert await redis.lrange("items", 0, -1) == [str(n).encode() for n in range(300)]
    assert (await redis.info("commandstats"))["cmdstat_rpush"]["calls"] >= 1


async def test_too_many_for_one_command_are_some(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.store.gathering.MAX_TOGETHER", 10)
    async with gathering(redis) as (behind, some):
        for n in range(25):
            some.add(n)
        some.flush()
        assert "waiting=3" in repr(behind)
        assert await behind.drain(PATIENCE_S)
    assert await redis.llen("items") == 25


async def test_what_comes_to_nothing_waits_for_nothing(redis: Redis) -> None:
    async with gathering(redis) as (_, some):
        some.add(-1)
        some.flush()
        assert "waiting=0" in repr(some)


async def test_what_waits_while_redis_is_away_is_bounded(server: Any, log_lines: list[dict[str, Any]]) -> None:
    """The rest is dropped, and counted; afterwards it goes on."""
    redis = open_redis(server.url)
    async with gathering(redis, max_waiting=100) as (behind, some):
        await server.kill()
        for n in range(250):
            some.add(n)
        some.flush()
        assert "waiting=100 dropped=150" in repr(some)
        await server.start()
        assert await behind.drain(PATIENCE_S)
        some.add(250)
        some.flush()
        assert await behind.drain(PATIENCE_S)
        assert await redis.llen("items") == 101
    told = [(line["event"], line.get("count")) for line in log_lines if line["event"].startswith("items.")]
    assert told == [("items.dropping", None), ("items.dropped", 150)]
    await redis.aclose()
