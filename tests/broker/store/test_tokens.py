"""Executor tokens in a real Valkey: what is written when, what is read, and what is heard."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.core.book import Origin
from broker.core.tokens import Token
from broker.store import keys
from broker.store.credentials import Change
from broker.store.store import Store, open_store
from broker.store.tokens import TokenRecords
from openline.errors import OpenlineError
from openline.reasons import Reason

PATIENCE_S = 20.0


def token(number: int = 0, cluster_id: str = "prod", **fields: Any) -> Token:
    usual: dict[str, Any] = {"origin": Origin.MADE, "token_id": f"id-{number}", "created_at": 12.5}
    return Token(cluster_id=cluster_id, digest=number.to_bytes(32, "big"), **(usual | fields))


@pytest.fixture
def records(store: Store) -> TokenRecords:
    return store.tokens


async def reason_of(call: Any) -> Reason:
    with pytest.raises(OpenlineError) as refusal:
        await call
    return refusal.value.reason


async def test_what_was_created_is_read(records: TokenRecords, redis: Redis) -> None:
    """All that is known of it, and of the token itself its SHA-256 only; it has no TTL."""
    assert (await records.version(), await records.read()) == ("", {})
    one, other = token(1), token(2, "staging", origin=Origin.CHOSEN, expires_at=99.0)
    await records.create(one)
    version = await records.version()
    await records.create(other)
    assert await records.read() == {one.name: one, other.name: other}
    assert "" != version != await records.version() != ""
    assert await redis.ttl(keys.TOKENS) == -1
    assert set(await redis.hkeys(keys.TOKENS)) == {
        b"version", f"prod:{one.digest.hex()}".encode(), f"staging:{other.digest.hex()}".encode(),
    }  # fmt: skip


async def test_thousands_are_read_a_part_at_a_time(records: TokenRecords) -> None:
    many = [token(number) for number in range(3000)]
    assert await records.keep(many) == 3000
    assert await records.read() == {each.name: each for each in many}


async def test_a_token_is_created_once(records: TokenRecords) -> None:
    """Whether it is still there or was revoked; nothing of the first one changes."""
    await records.create(token(1))
    assert await reason_of(records.create(token(1, token_id="another"))) is Reason.TOKEN_EXISTS
    revoked = replace(token(1), revoked_at=20.0)
    assert await records.keep([revoked]) == 1
    assert await reason_of(records.create(token(1))) is Reason.TOKEN_EXISTS
    assert list((await records.read()).values()) == [revoked]


async def test_a_revoked_token_stays_revoked(records: TokenRecords) -> None:
    """Whoever remembers it as good comes too late, and the version stays as well: nothing has changed."""
    revoked = replace(token(1), revoked_at=20.0)
    await records.keep([revoked])
    version = await records.version()
    assert await records.keep([token(1), revoked]) == 0
    assert (await records.read(), await records.version()) == ({revoked.name: revoked}, version)


async def test_there_is_a_bound(records: TokenRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is created; to revoke is possible always."""
    monkeypatch.setattr(keys, "MAX_TOKENS", 2)
    await records.create(token(1))
    await records.create(token(2))
    assert await reason_of(records.create(token(3))) is Reason.QUOTA_EXCEEDED
    assert await records.keep([replace(token(4), revoked_at=20.0)]) == 1


@pytest.mark.parametrize(
    "value", [b"", b"L", b"L{}", b"X{}", b"L\xff", b"L[1]", b'R{"origin":"made"}', b"Lnull", b"L" + b"[" * 100_000]
)
async def test_what_cannot_be_read_counts_as_revoked(records: TokenRecords, redis: Redis, value: bytes) -> None:
    """And nothing takes its place."""
    await redis.hset(keys.TOKENS, f"prod:{token(1).digest.hex()}", value)
    [found] = (await records.read()).values()
    assert (found.name, found.is_revoked) == (token(1).name, True)


@pytest.mark.parametrize("field", ["", "prod", "prod:", "prod:zz", "-:" + "00" * 32, "prod:" + "00" * 31, "\xff:00"])
async def test_fields_of_others_are_left_out(records: TokenRecords, redis: Redis, field: str) -> None:
    await redis.hset(keys.TOKENS, field, b"L{}")
    assert await records.read() == {}


async def test_what_is_dropped_is_gone(records: TokenRecords) -> None:
    await records.keep([token(number) for number in range(500)])
    await records.drop([token(number).name for number in range(499)])
    assert list(await records.read()) == [token(499).name]


async def test_changes_are_heard(records: TokenRecords) -> None:
    """With the versions before and after, so that whoever has missed one knows it."""
    async with contextlib.aclosing(records.subscribe()) as changes, asyncio.timeout(PATIENCE_S):
        assert await anext(changes) is None
        await records.create(token(1))
        first = await anext(changes)
        revoked = replace(token(1), revoked_at=20.0)
        await records.keep([revoked, token(2)])
        second = await anext(changes)
    assert first is not None
    assert second is not None
    assert (first.was, first.changed) == ("", (token(1),))
    assert (second.was, set(second.changed)) == (first.version, {revoked, token(2)})
    assert second.version == await records.version()


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"1", b'{"changed":{}}', b'{"was":"","version":"","changed":[]}', b'{"changed":{"a":1}}'],
)
async def test_what_is_no_change_is_passed_over(records: TokenRecords, data: bytes) -> None:
    """Anybody may publish."""
    assert records.change(data) is None


async def test_a_token_that_nobody_was_told_is_revoked(server: Any) -> None:
    """The answer of Redis was lost, so the caller was told that there is none. A chosen one may be asked for again."""
    async with open_store(server.url, result_ttl_s=60) as store:
        with server.frozen():
            assert await reason_of(store.tokens.create(token(1))) is Reason.STORE_UNAVAILABLE
            chosen = token(2, origin=Origin.CHOSEN)
            assert await reason_of(store.tokens.create(chosen)) is Reason.STORE_UNAVAILABLE
        assert await store.behind.drain(PATIENCE_S)
        found = await store.tokens.read()
        assert found[token(1).name].is_revoked
        assert chosen.name not in found or not found[chosen.name].is_revoked


async def test_a_redis_cluster_does_it_as_well(sharded: Any) -> None:
    """One key, so one slot."""
    async with open_store(sharded.url, result_ttl_s=60) as store:
        records = store.tokens
        async with contextlib.aclosing(records.subscribe()) as changes, asyncio.timeout(PATIENCE_S):
            assert await anext(changes) is None
            await records.create(token(1))
            assert (await anext(changes) or Change("", "", ())).changed == (token(1),)
        assert await records.keep([replace(token(1), revoked_at=20.0), token(2)]) == 2
        assert len(await records.read()) == 2
        await records.drop([token(2).name])
        assert len(await records.read()) == 1


@pytest.mark.parametrize("instant", ["-1", "1e99", "NaN", '"x"', "1" + "0" * 400, "[]"])
async def test_an_instant_that_is_none_counts_as_revoked(records: TokenRecords, redis: Redis, instant: str) -> None:
    value = '{"token_id":"id","origin":"made","created_at":%s,"expires_at":null,"revoked_at":null}'
    for text, is_revoked in ((value % "1.5", False), (value % instant, True)):
        await redis.hset(keys.TOKENS, f"prod:{token(1).digest.hex()}", "L" + text)
        [found] = (await records.read()).values()
        assert found.is_revoked is is_revoked
