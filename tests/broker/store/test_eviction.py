"""A Redis that forgets when it is full is told of, at the start and when it is back; one that does not say is not."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from broker.store import eviction
from broker.store.eviction import warn_of_eviction
from broker.store.store import open_store

PATIENCE_S = 20.0
Lines = list[dict[str, Any]]


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


def named(lines: Lines, event: str) -> Lines:
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_it_is_said_once_at_the_start(server: Any, log_lines: Lines, policy: str) -> None:
    await server.redis.config_set("maxmemory-policy", policy)
    async with open_store(server.url, result_ttl_s=60):
        await until(lambda: named(log_lines, "redis.evicts"))
        await asyncio.sleep(0.1)
    [line] = named(log_lines, "redis.evicts")
    assert (line["log_level"], line["maxmemory_policy"], line["wanted"]) == ("warning", policy, "noeviction")


async def test_nothing_is_said_of_one_that_keeps_what_it_has(server: Any, log_lines: Lines) -> None:
    assert await warn_of_eviction(server.redis)
    assert log_lines == []


async def test_it_is_said_again_when_redis_is_back(start_server: Any, log_lines: Lines) -> None:
    """It may be another one."""
    server = await start_server("--maxmemory-policy", "allkeys-lru")
    async with open_store(server.url, result_ttl_s=60) as store:
        await until(lambda: len(named(log_lines, "redis.evicts")) == 1)
        await server.kill()
        store.behind.put("SET", "a", 1)
        await until(lambda: store.degraded)
        await server.start()
        await until(lambda: len(named(log_lines, "redis.evicts")) == 2)
        assert not store.degraded


async def test_one_that_is_not_there_yet_is_waited_for(
    start_server: Any, log_lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "ASK_AGAIN_S", 0.05)
    server = await start_server("--maxmemory-policy", "allkeys-lfu")
    await server.kill()
    async with open_store(server.url, result_ttl_s=60):
        assert named(log_lines, "redis.unavailable")
        assert named(log_lines, "redis.evicts") == []
        await server.start()
        await until(lambda: named(log_lines, "redis.evicts"))


async def test_one_that_refuses_to_say_is_believed(server: Any, log_lines: Lines) -> None:
    """As a managed one may."""
    await server.redis.execute_command("ACL", "SETUSER", "default", "-info")
    assert await warn_of_eviction(server.redis)
    assert [(line["event"], line["log_level"]) for line in log_lines] == [("redis.policy_unknown", "info")]


async def test_a_redis_cluster_is_asked_too(sharded: Any, log_lines: Lines) -> None:
    for node in sharded.nodes:
        await node.redis.config_set("maxmemory-policy", "allkeys-lru")
    async with open_store(sharded.url, result_ttl_s=60):
        await until(lambda: named(log_lines, "redis.evicts"))
