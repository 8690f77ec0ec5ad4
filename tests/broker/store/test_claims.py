"""Claims of idempotency keys in a real Valkey."""

import asyncio
import contextlib
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.store import keys
from broker.store.behind import WriteBehind
from broker.store.claims import Claim, Claims, fingerprint
from broker.store.client import open_redis
from broker.store.store import Store
from openline import ids
from openline.errors import OpenlineError
from openline.reasons import NO, Reason

PATIENCE_S = 20.0


def claim(*parts: str, command_id: str = "") -> Claim:
    return Claim(fingerprint(*parts), command_id or ids.new_id())


async def test_who_comes_first_holds_the_key(store: Store) -> None:
    """Everybody else is told by which command, also of the same request, and also with the same command id."""
    first = claim("a")
    assert await store.claims.claim("alice", "k", first, runs_s=10) is None
    assert await store.claims.claim("alice", "k", claim("a"), runs_s=10) == first
    assert await store.claims.claim("alice", "k", claim("b"), runs_s=10) == first
    assert await store.claims.claim("alice", "k", claim("a", command_id=first.command_id), runs_s=10) == first
    assert await store.claims.claim("alice", "k", first, runs_s=10) == first


async def test_of_many_at_once_one_is_first(store: Store) -> None:
    answers = await asyncio.gather(*(store.claims.claim("alice", "k", claim("a"), runs_s=10) for _ in range(100)))
    assert answers.count(None) == 1
    assert len({answer.command_id for answer in answers if answer is not None}) == 1


async def test_a_key_is_its_owners(store: Store) -> None:
    """The same key of another owner is another key, however the two are spelled."""
    assert await store.claims.claim("alice", "k", claim("a"), runs_s=10) is None
    assert await store.claims.claim("bob", "k", claim("a"), runs_s=10) is None
    assert await store.claims.claim("alic", "ek", claim("a"), runs_s=10) is None


async def test_a_claim_outlives_its_command(store: Store, redis: Redis) -> None:
    """It holds while the command may wait and run, and then for as long as its result can be had."""
    await store.claims.claim("alice", "k", claim("a"), runs_s=3899.5)
    [name] = await redis.keys("openline:idempotency:*")
    assert 600 + 3890 < await redis.ttl(name) <= 600 + 3900
    assert b"alice" not in name


async def test_a_released_key_can_be_claimed_again(store: Store) -> None:
    first, second = claim("a"), claim("a")
    await store.claims.claim("alice", "k", first, runs_s=10)
    store.claims.release("alice", "k", first)
    assert await store.behind.drain(PATIENCE_S)
    assert await store.claims.claim("alice", "k", second, runs_s=10) is None


@pytest.mark.parametrize("same_id", [False, True])
async def test_a_late_release_does_not_free_what_is_somebody_elses(store: Store, same_id: bool) -> None:
    """The write behind may come after the claim has expired and another request, even a retry, has made its own."""
    first = claim("a")
    second = claim("a", command_id=first.command_id if same_id else "")
    await store.claims.claim("alice", "k", second, runs_s=10)
    store.claims.release("alice", "k", first)
    assert await store.behind.drain(PATIENCE_S)
    assert await store.claims.claim("alice", "k", claim("a"), runs_s=10) == second


async def test_what_was_taken_over_is_not_freed_by_the_first_try(store: Store, redis: Redis) -> None:
    """A caller's retry goes on with the same command; whatever becomes of its first try changes nothing any more."""
    first = claim("a")
    again = claim("a", command_id=first.command_id)
    await store.claims.claim("alice", "k", first, runs_s=10)
    assert await store.claims.take_over("alice", "k", first, again)
    assert not await store.claims.take_over("alice", "k", first, claim("a"))
    store.claims.release("alice", "k", first)
    assert await store.behind.drain(PATIENCE_S)
    assert await store.claims.claim("alice", "k", claim("a"), runs_s=10) == again
    [name] = await redis.keys("openline:idempotency:*")
    assert 0 < await redis.ttl(name) <= 610
    store.claims.release("alice", "k", again)
    assert await store.behind.drain(PATIENCE_S)
    assert not await store.claims.take_over("alice", "k", again, first)


async def test_somebody_elses_bytes_are_another_request(store: Store, redis: Redis) -> None:
    await redis.set(keys.claim(fingerprint("alice", "k")), b"\xff\xff garbage")
    held = await store.claims.claim("alice", "k", claim("a"), runs_s=10)
    assert held is not None
    assert held.fingerprint != claim("a").fingerprint


def test_fingerprints_tell_where_parts_begin() -> None:
    assert fingerprint("a", "bc") != fingerprint("ab", "c")
    assert fingerprint("a", "") != fingerprint("a")
    assert fingerprint("ä") == fingerprint("ä")


async def test_a_claim_whose_answer_is_lost_does_not_hold_the_key(
    valkey: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has it, and we do not know: nobody would run anything for it, so it is taken back when Redis is there."""
    monkeypatch.setattr("broker.store.client.ANSWER_TIMEOUT_S", 0.5)
    tasks: set[asyncio.Task[Any]] = set()

    async def there_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        _back, there = await asyncio.open_unix_connection(valkey.removeprefix("unix://"))
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                there.write(data)
        for one in (there, writer):
            one.close()

    server = await asyncio.start_server(there_only, "127.0.0.1", 0)
    mute = open_redis(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/?protocol=2")
    behind = WriteBehind(redis)
    claims = Claims(mute, behind, ttl_s=60)
    writer = asyncio.create_task(behind.run())
    # The connection's own handshake would wait for answers as well: the claim itself must get through.
    name = keys.claim(fingerprint("alice", "k"))
    mine = claim("a")
    with pytest.raises(OpenlineError) as lost:
        await claims.claim("alice", "k", mine, runs_s=10)
    assert (lost.value.reason, lost.value.error.executed) == (Reason.STORE_UNAVAILABLE, NO)
    assert await behind.drain(PATIENCE_S)
    assert await redis.get(name) is None
    # The same with certainty: the claim has arrived.
    await redis.set(name, str(mine))
    with pytest.raises(OpenlineError):
        await claims.claim("alice", "k", mine, runs_s=10)
    assert await behind.drain(PATIENCE_S)
    assert await redis.get(name) is None
    for task in (*tasks, writer):
        task.cancel()
    await asyncio.gather(*tasks, writer, return_exceptions=True)
    await mute.aclose()
    server.close()
    await server.wait_closed()
