"""The tasks of a replica that are nobody's call."""

import asyncio
from typing import Any

import pytest
from grpc.aio._server import Server
from redis.asyncio import Redis

from broker.hearing import Hearing
from broker.presence import Presence
from broker.store import keys
from broker.store.store import Store


async def test_a_task_that_ends_is_told_of(
    start_broker: Any, store: Store, log_lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect must not leave a replica that nobody finds, and say nothing."""

    async def end(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Presence, "run", end)
    async with start_broker() as broker:
        await broker.refused()
    told = [(line["task"], str(line["exc_info"])) for line in log_lines if line["event"] == "replica.task_ended"]
    assert told == [("presence", "a defect")]


async def test_it_knows_the_common_secret_before_it_listens(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or an executor that comes at once, after a restart, would be told to drop what it holds."""
    known: list[bool | str] = []
    begin, start = Hearing.begin, Server.start

    async def agree(hearing: Hearing) -> None:
        await begin(hearing)
        known.append(hearing._proof.is_common)

    async def listen(server: Server) -> None:
        known.append("it listens")
        await start(server)

    monkeypatch.setattr(Hearing, "begin", agree)
    monkeypatch.setattr(Server, "start", listen)
    async with start_broker() as broker:
        await broker.refused()
    assert known == [True, "it listens"]


async def test_a_secret_that_was_given_is_not_in_redis(start_broker: Any, redis: Redis) -> None:
    """Whoever reads Redis could speak as a replica otherwise."""
    async with start_broker(peer_secret="a-secret-of-replicas") as broker:
        await broker.refused()
        async with asyncio.timeout(10):
            while not await redis.exists(keys.MARK):
                await asyncio.sleep(0.01)
        assert not await redis.exists(keys.PEER_SECRET)
