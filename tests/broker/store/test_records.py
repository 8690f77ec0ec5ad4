"""Results, sessions and clusters in a real Valkey."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from broker.store import keys
from broker.store.client import ask, open_redis
from broker.store.store import Store, open_store
from openline import ids
from openline.errors import OpenlineError
from openline.reasons import Reason
from openline.v1 import cluster_service_pb2, command_pb2, session_service_pb2

PATIENCE_S = 20.0


def session(cluster_id: str = "prod", **fields: Any) -> session_service_pb2.Session:
    return session_service_pb2.Session(
        session_id=ids.new_id(), cluster_id=cluster_id, owner="alice", **({"ttl_s": 300} | fields)
    )


def executor(executor_id: str) -> cluster_service_pb2.ConnectedExecutor:
    return cluster_service_pb2.ConnectedExecutor(
        executor_id=executor_id, instance_id="i-1", replica_id="replica-1", epoch=7
    )


# Results


async def test_a_result_is_found_until_it_expires(store: Store, redis: Redis) -> None:
    """Stored under its id, as it was, for --result-ttl."""
    name = ids.new_id()
    result = command_pb2.CommandResult(command_id=name, stdout=b"\xff\x00", exit_code=7)
    done = command_pb2.Command(command_id=name, owner="alice", state=command_pb2.COMMAND_STATE_DONE, result=result)
    stored: list[bool] = []
    assert store.results.put(done, stored.append)
    assert await store.behind.drain(PATIENCE_S)
    assert stored == [True]
    assert await store.results.get(name) == done
    assert 590 < await redis.ttl(keys.command(name)) <= 600
    assert await store.results.get(ids.new_id()) is None


async def test_an_exit_stands(store: Store) -> None:
    """A replica that was frozen finds later that its time is up, or one that took it over has a part of the output."""
    exited = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, stdout=b"begun, done")
    last_part = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, stdout=b"done")
    last_part.stdout_summary.cut_bytes = 7
    late = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_TIMED_OUT)
    for number, results in enumerate(([exited, late, last_part], [late, exited], [last_part, exited])):
        for result in results:
            assert store.results.put(command_pb2.Command(command_id=f"c{number}", result=result), lambda _stored: None)
        assert await store.behind.drain(PATIENCE_S)
        found = await store.results.get(f"c{number}")
        assert found is not None
        assert found.result == exited


async def test_a_result_that_cannot_be_read_is_none(store: Store, redis: Redis) -> None:
    await redis.set(keys.command("x"), b"\xff\xff garbage")
    assert await store.results.get("x") is None


# Sessions


async def test_a_session_lives_for_its_ttl(store: Store, redis: Redis) -> None:
    made = session(ttl_s=120)
    await store.sessions.create(made)
    assert 110 < await redis.ttl(keys.session(made.session_id)) <= 120
    found = await store.sessions.get(made.session_id)
    assert found == made
    assert found is not None
    assert found.expires_at.seconds - found.last_used_at.seconds == 120


async def test_a_use_begins_the_ttl_anew(store: Store, redis: Redis) -> None:
    """The record and the expiry that it shows move on, and the use is counted."""
    made = session(ttl_s=120)
    await store.sessions.create(made)
    for key in (keys.session(made.session_id), keys.cluster_session("prod")):
        await redis.expire(key, 5)
    found = await store.sessions.get(made.session_id)
    assert found is not None
    store.sessions.use(found, now=1.0, found=True)
    assert await store.behind.drain(PATIENCE_S)
    for key in (keys.session(made.session_id), keys.cluster_session("prod")):
        assert 110 < await redis.ttl(key) <= 120
    used = await store.sessions.get(made.session_id)
    assert used is not None
    assert used.command_count == 1
    assert used.expires_at.ToMilliseconds() >= made.expires_at.ToMilliseconds()


async def test_a_deleted_session_is_not_resurrected(store: Store) -> None:
    """A use that is written behind the delete changes nothing: the session stays deleted."""
    made = session()
    await store.sessions.create(made)
    found = await store.sessions.get(made.session_id)
    assert found is not None
    await store.sessions.delete(made)
    store.sessions.use(found, now=1.0, found=False)
    assert await store.behind.drain(PATIENCE_S)
    assert await store.sessions.get(made.session_id) is None


async def test_a_found_session_is_believed_for_a_second(store: Store) -> None:
    """And not after a delete here."""
    made = session()
    await store.sessions.create(made)
    assert store.sessions.believed(made.session_id, now=10.0) is None
    store.sessions.use(made, now=10.0, found=True)
    assert store.sessions.believed(made.session_id, now=10.9) is made
    assert store.sessions.believed(made.session_id, now=11.0) is None
    await store.sessions.delete(made)
    assert store.sessions.believed(made.session_id, now=10.5) is None


async def test_what_is_believed_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.store.sessions.MAX_BELIEVED", 10)
    for _ in range(100):
        store.sessions.use(session(), now=1.0, found=True)
    assert len(store.sessions._believed) <= 10


# Clusters


async def test_activity_is_written_once_a_second(store: Store, redis: Redis) -> None:
    """The key has exactly this name, and lives for 60 s from the last Execute."""
    for n in range(100):
        store.clusters.mark_active("prod", now=10.0 + n / 200)
    assert await store.behind.drain(PATIENCE_S)
    assert (await redis.info("commandstats"))["cmdstat_set"]["calls"] >= 1
    assert 1 <= await redis.ttl("cluster:active:prod") <= 60
    await redis.expire("cluster:active:prod", 5)
    store.clusters.mark_active("prod", now=10.99)
    assert await store.behind.drain(PATIENCE_S)
    assert await redis.ttl("cluster:active:prod") <= 5
    store.clusters.mark_active("prod", now=11.0)
    assert await store.behind.drain(PATIENCE_S)
    assert await redis.ttl("cluster:active:prod") > 50
    assert await redis.keys("cluster:active:*") == [b"cluster:active:prod"]


def test_presence_outlives_two_refreshes_that_fail() -> None:
    assert keys.SEEN_EVERY_S <= keys.PRESENCE_S / 3


async def test_presence_expires(store: Store, redis: Redis) -> None:
    """A replica that dies says nothing: who it held is gone in 30 s, and `last_seen` stays."""
    await store.presence.register([("prod", executor("a")), ("prod", executor("b"))], changed=True)
    assert 25 < await redis.ttl(keys.presence("prod")) <= 30
    [here] = await store.clusters.get(["prod"])
    assert here.connected
    assert sorted(one.executor_id for one in here.executors) == ["a", "b"]
    await redis.pexpire(keys.presence("prod"), 1)
    await asyncio.sleep(0.05)
    [gone] = await store.clusters.get(["prod"])
    assert not gone.connected
    assert list(gone.executors) == []
    assert gone.last_seen == here.last_seen


async def test_who_is_gone_is_taken_out(store: Store) -> None:
    await store.presence.register([("prod", executor("a")), ("prod", executor("b"))], changed=True)
    await store.presence.unregister([("prod", executor("a"))])
    [cluster] = await store.clusters.get(["prod"])
    assert [one.executor_id for one in cluster.executors] == ["b"]


async def test_a_cluster_that_was_never_seen(store: Store) -> None:
    [one, other] = await store.clusters.get(["never", "seen"])
    assert (one.cluster_id, other.cluster_id) == ("never", "seen")
    assert not one.connected
    assert not one.active
    assert not one.HasField("last_seen")
    assert await store.clusters.get([]) == []


async def test_a_cluster_says_whether_it_is_active_and_has_a_session(store: Store) -> None:
    store.clusters.mark_active("prod", now=10.0)
    await store.sessions.create(session("prod"))
    assert await store.behind.drain(PATIENCE_S)
    [prod, staging] = await store.clusters.get(["prod", "staging"])
    assert prod.active
    assert 1 <= prod.active_for_s <= 60
    assert prod.has_active_session
    assert not staging.active
    assert not staging.has_active_session


async def test_records_that_cannot_be_read_are_left_out(store: Store, redis: Redis) -> None:
    """Somebody else's bytes in Redis are no reason to leave a caller without an answer."""
    await store.presence.register([("prod", executor("b"))], changed=True)
    await redis.hset(keys.presence("prod"), "a", b"\xff\xff garbage")
    await redis.hset(keys.presence("prod"), "c", b"9" * 36 + b"\xff\xff")  # as if it had not expired
    await redis.set(keys.seen("prod"), b"\xff\xff garbage")
    [prod] = await store.clusters.get(["prod"])
    assert not prod.HasField("last_seen")
    assert [one.executor_id for one in prod.executors] == ["b"]


# The store


async def test_nothing_is_without_a_ttl(store: Store, redis: Redis) -> None:
    """Whatever is written expires."""
    made = session()
    await store.sessions.create(made)
    store.sessions.use(made, now=0.0, found=True)
    store.clusters.mark_active("prod", now=0.0)
    await store.presence.register([("prod", executor("a"))], changed=True)
    store.results.put(command_pb2.Command(command_id=ids.new_id()), lambda stored: None)
    assert await store.behind.drain(PATIENCE_S)
    names = await redis.keys("*")
    assert len(names) == 7
    assert [name for name in names if await redis.ttl(name) <= 0] == []


async def test_a_cluster_s_keys_share_a_slot(redis: Redis) -> None:
    """Hash tags, for a Redis Cluster."""
    names = [keys.seen("prod"), keys.presence("prod"), keys.cluster_session("prod")]
    assert len({name[name.index("{") : name.index("}")] for name in names}) == 1


async def test_what_waits_is_written_when_the_store_closes(valkey: str, redis: Redis) -> None:
    async with open_store(valkey, result_ttl_s=60) as store:
        for n in range(1000):
            store.results.put(command_pb2.Command(command_id=str(n)), lambda stored: None)
    assert await redis.dbsize() == 1000


async def test_a_redis_that_is_out_of_reach_is_no_reason_not_to_start(log_lines: list[dict[str, Any]]) -> None:
    """It is said once, and what needs Redis says STORE_UNAVAILABLE."""
    async with open_store("redis://127.0.0.1:1", result_ttl_s=60) as store:
        assert [line["event"] for line in log_lines] == ["redis.unavailable"]
        with pytest.raises(OpenlineError) as refusal:
            await store.results.get("x")
        assert refusal.value.reason is Reason.STORE_UNAVAILABLE
        assert refusal.value.error.retry_after_s > 0


async def test_more_questions_than_connections_wait_their_turn(valkey: str, redis: Redis) -> None:
    """A hundred at a time is no failure."""
    client = open_redis(valkey)
    answers = await asyncio.gather(*(ask(client, ("SET", f"key:{n}", n), ("GET", f"key:{n}")) for n in range(200)))
    assert answers[199][1] == b"199"
    await client.aclose()
