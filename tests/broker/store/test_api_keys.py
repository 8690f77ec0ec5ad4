"""API keys in a real Valkey; what they have in common with tokens is tested with those."""

import json
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.core.book import Origin
from broker.core.credentials import Caller, Key
from broker.core.patterns import Patterns
from broker.core.quotas import Quota
from broker.store import keys
from broker.store.api_keys import ApiKeyRecords
from broker.store.store import Store, open_store
from openline.errors import OpenlineError
from openline.reasons import Reason


def key(number: int = 0, *, expires_at: float | None = None, **fields: Any) -> Key:
    digest = number.to_bytes(32, "big")
    usual: dict[str, Any] = {"owner": "alice", "scopes": ("read",), "key_id": f"id-{number}", "digest": digest}
    caller = Caller(**(usual | fields))
    return Key(digest=digest, origin=Origin.MADE, created_at=12.5, expires_at=expires_at, caller=caller)


@pytest.fixture
def records(store: Store) -> ApiKeyRecords:
    return store.api_keys


async def test_what_was_created_is_read(records: ApiKeyRecords, redis: Redis) -> None:
    """All that is known of it, and of the key itself its SHA-256 only; it has no TTL."""
    one = key(1, expires_at=99.0)
    other = key(
        2,
        scopes=("admin", "execute"),
        clusters=Patterns.of(["prod-*", "staging"]),
        quota=Quota(commands=3, in_flight=4),
    )
    await records.create(one)
    await records.create(other)
    found = await records.read()
    assert found == {one.digest: one, other.digest: other}
    assert found[other.digest].caller.digest == other.digest
    assert await redis.ttl(keys.API_KEYS) == -1
    assert set(await redis.hkeys(keys.API_KEYS)) == {
        b"version",
        one.digest.hex().encode(),
        other.digest.hex().encode(),
    }


async def test_a_key_is_created_once(records: ApiKeyRecords) -> None:
    """Whether it is still there or was revoked; nothing of the first one changes."""
    await records.create(key(1))
    revoked = replace(key(1), revoked_at=20.0)
    for now in (key(1), revoked):
        await records.keep([now])
        with pytest.raises(OpenlineError) as refusal:
            await records.create(key(1, owner="bob"))
        assert refusal.value.reason is Reason.KEY_EXISTS
        assert await records.read() == {now.digest: now}


async def test_there_is_a_bound(records: ApiKeyRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is created; to revoke is possible always."""
    monkeypatch.setattr(keys, "MAX_API_KEYS", 1)
    await records.create(key(1))
    with pytest.raises(OpenlineError, match="1 API keys") as refusal:
        await records.create(key(2))
    assert refusal.value.reason is Reason.QUOTA_EXCEEDED
    assert await records.keep([replace(key(1), revoked_at=20.0)]) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"clusters": []},
        {"clusters": None},
        {"clusters": "*"},
        {"clusters": ["Prod"]},
        {"clusters": [1]},
        {"scopes": None},
        {"scopes": [1]},
        {"owner": 1},
        {"key_id": None},
        {"quota": 1},
        {"quota": {}},
        {"quota": {"commands": -1, "in_flight": 0}},
        {"quota": {"commands": True, "in_flight": 0}},
        {"origin": "found"},
        {"revoked_at": 1.0},
    ],
    ids=str,
)
async def test_what_cannot_be_read_counts_as_revoked(
    records: ApiKeyRecords, redis: Redis, wrong: dict[str, Any]
) -> None:
    """Above all, patterns that are missing are not every cluster."""
    await records.create(key(1))
    field = key(1).digest.hex()
    stored = await redis.hget(keys.API_KEYS, field)
    assert stored is not None
    await redis.hset(keys.API_KEYS, field, "L" + json.dumps(json.loads(stored[1:]) | wrong))
    [found] = (await records.read()).values()
    assert (found.digest, found.is_revoked, found.caller.scopes) == (key(1).digest, True, ())


async def test_scopes_of_a_newer_version_are_kept(records: ApiKeyRecords) -> None:
    """They give the key nothing here; and a replica that gives it back to Redis must not take them away."""
    newer = key(1, scopes=("read", "teleport"))
    await records.create(newer)
    assert (await records.read())[newer.digest] == newer


@pytest.mark.parametrize("field", ["", "zz", "00" * 31, "00" * 33, "prod:" + "00" * 32, "\xff"])
async def test_fields_of_others_are_left_out(records: ApiKeyRecords, redis: Redis, field: str) -> None:
    await redis.hset(keys.API_KEYS, field, b"L{}")
    assert await records.read() == {}


async def test_a_redis_cluster_does_it_as_well(sharded: Any) -> None:
    """One hash, so one slot."""
    async with open_store(sharded.url, result_ttl_s=60) as store:
        await store.api_keys.create(key(1))
        assert await store.api_keys.keep([replace(key(1), revoked_at=20.0)]) == 1
        assert list((await store.api_keys.read()).values()) == [replace(key(1), revoked_at=20.0)]
