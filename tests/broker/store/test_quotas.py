"""Counts of quotas in Redis: what a process says, what it hears of the others, and what is forgotten."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.core.usage import Told
from broker.store import keys
from broker.store.claims import fingerprint
from broker.store.client import open_client
from broker.store.quotas import QuotaRecords

KEY = keys.quota(fingerprint("alice"))


@pytest.fixture
async def records(valkey: str, redis: Redis) -> AsyncIterator[QuotaRecords]:
    client = open_client(valkey)
    yield QuotaRecords(client)
    await client.aclose()


async def test_each_hears_what_the_others_have(records: QuotaRecords, redis: Redis) -> None:
    """Of the same owner and window; what is said twice is there once, and all of it has a TTL."""
    assert await records.tell("here", [("alice", Told(7, 3, 2)), ("bob", Told(7, 1, 1))]) == [
        Told(7, 0, 0),
        Told(7, 0, 0),
    ]
    assert await records.tell("there", [("alice", Told(7, 10, 5))]) == [Told(7, 3, 2)]
    assert await records.tell("there", [("alice", Told(7, 10, 5))]) == [Told(7, 3, 2)]
    assert await records.tell("here", [("alice", Told(8, 0, 1))]) == [Told(8, 0, 5)]
    assert 0 < await redis.ttl(KEY) <= keys.QUOTA_S


async def test_what_counts_no_more_is_taken_out(records: QuotaRecords, redis: Redis) -> None:
    """A killed process's commands count to the end of their window, what it had in flight for some seconds."""
    await redis.hset(KEY, mapping={"killed": "7 5 4 1", "older": "6 5 4 1", "garbage": "x", "negative": "7 -5 0 1"})
    assert await records.tell("here", [("alice", Told(7, 0, 0))]) == [Told(7, 5, 0)]
    assert sorted(await redis.hkeys(KEY))[-1] == b"killed"
    assert await redis.hlen(KEY) == 2


async def test_without_redis_nothing_is_heard() -> None:
    client = open_client("redis://127.0.0.1:1")
    assert await QuotaRecords(client).tell("here", [("alice", Told(7, 1, 1)), ("bob", Told(7, 1, 1))]) == [None, None]
    await client.aclose()


async def test_what_redis_does_not_take_is_not_heard(records: QuotaRecords, redis: Redis) -> None:
    """The others' are, all the same."""
    await redis.set(KEY, "somebody else's")
    assert await records.tell("here", [("alice", Told(7, 1, 1)), ("bob", Told(7, 1, 1))]) == [None, Told(7, 0, 0)]


async def test_in_a_redis_cluster_each_owner_has_a_slot(sharded: Any) -> None:
    client = open_client(sharded.url)
    said = [(f"owner-{n}", Told(7, n, 1)) for n in range(20)]
    await QuotaRecords(client).tell("here", said)
    assert await QuotaRecords(client).tell("there", said) == [told for _, told in said]
    await client.aclose()
