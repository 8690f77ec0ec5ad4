"""The audit trail: who did what, written behind, and read with a scope of its own."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from broker.audit import Audit
from broker.core.credentials import Caller
from broker.store import keys
from broker.store.credentials import CredentialRecords
from broker.store.store import open_store
from openline.channels import MAX_MESSAGE_BYTES
from openline.errors import OpenlineError, error, from_rpc_error
from openline.ids import new_id
from openline.reasons import NO, YES, Reason
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.admin_service_pb2 import (
    AuditEntry,
    CreateApiKeyRequest,
    ListAuditEntriesRequest,
    ListAuditEntriesResponse,
)
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.session_service_pb2 import CreateSessionRequest, DeleteSessionRequest
from openline.v1.session_service_pb2_grpc import SessionServiceStub

PATIENCE_S = 20.0


async def page(broker: Any, key: str = "the-key-of-the-auditor", **fields: Any) -> ListAuditEntriesResponse:
    """Raises OpenlineError for a status."""
    request = ListAuditEntriesRequest(**{k: v for k, v in fields.items() if not isinstance(v, float)})
    for name, seconds in fields.items():
        if isinstance(seconds, float):
            getattr(request, name).FromMilliseconds(round(seconds * 1000))
    try:
        stub = AdminServiceStub(broker.channel())
        found: ListAuditEntriesResponse = await stub.ListAuditEntries(request, metadata=(("x-api-key", key),))
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from failure
    return found


async def entries(broker: Any, count: int, **fields: Any) -> list[AuditEntry]:
    """The trail, once it has so many entries that fit; and no more, though everything that is told by then is in it."""
    found: list[AuditEntry] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            broker.store.audit.flush()
            assert await broker.store.behind.drain(PATIENCE_S)
            found = list((await page(broker, **fields)).entries)
    assert len(found) == count
    return found


async def run(broker: Any, executor: Any, **fields: Any) -> None:
    asked = broker.execute(**fields)
    await executor.run_one(b"secret-output", exit_code=3)
    await asked


async def test_a_command_is_an_entry(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """With who, what, where and how it ended; and a line in the log, without what it was."""
    executor = await broker.executor()
    await run(broker, executor, argv=["get", "secret-pods"], correlation_id="c-1")
    [entry] = await entries(broker, 1)
    assert (entry.action, entry.owner, entry.cluster_id, entry.correlation_id) == ("execute", "alice", "prod", "c-1")
    assert list(entry.argv) == ["get", "secret-pods"]
    assert (entry.outcome, entry.exit_code, entry.executed) == (command_pb2.OUTCOME_EXITED, 3, YES)
    assert (entry.executor_id, entry.replica_id, entry.reason) == ("exec-1", "replica-1", "")
    assert entry.timings.total_s > 0
    assert abs(entry.at.seconds - time.time()) < 60
    assert b"secret-output" not in entry.SerializeToString()
    [line] = [line for line in log_lines if line["event"] == "audit"]
    assert (line["command_id"], line["owner"], line["exit_code"]) == (entry.command_id, "alice", 3)
    assert "secret-" not in str(log_lines)


async def test_what_the_policy_denies_is_an_entry(broker: Any) -> None:
    """One, though it is a command and a refusal."""
    executor = await broker.executor()
    asked = broker.execute(argv=["delete", "ns", "shop"])
    execute = await executor.expect("execute")
    denied = error(Reason.POLICY_DENIED, "no", executed=NO)
    await executor.send(broker._frames.rejected(execute.command_id, denied))
    with pytest.raises(OpenlineError):
        await asked
    [entry] = await entries(broker, 1)
    assert (entry.outcome, entry.reason, entry.executed) == (command_pb2.OUTCOME_REJECTED, "POLICY_DENIED", NO)
    assert entry.command_id == execute.command_id


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"cluster_id": "nowhere"}, "CLUSTER_UNKNOWN"),
        ({"key": "the-key-of-carol"}, "SCOPE_MISSING"),
        ({"argv": []}, "INVALID_COMMAND"),
        ({}, "CLUSTER_OFFLINE"),
        ({"session_id": "gone"}, "SESSION_UNKNOWN"),
    ],
    ids=["cluster", "scope", "argv", "offline", "session"],
)
async def test_a_refused_request_is_an_entry(broker: Any, fields: dict[str, Any], reason: str) -> None:
    """As it was asked."""
    await broker.refused(correlation_id="c-1", **fields)
    [entry] = await entries(broker, 1)
    owner = "carol" if "key" in fields else "alice"
    assert (entry.action, entry.owner, entry.cluster_id) == ("execute", owner, fields.get("cluster_id", "prod"))
    assert (entry.outcome, entry.reason, entry.executed) == (command_pb2.OUTCOME_REJECTED, reason, NO)
    assert (entry.correlation_id, list(entry.argv)) == ("c-1", fields.get("argv", ["get", "pods"]))


async def test_what_was_not_checked_is_bounded(broker: Any) -> None:
    """A refused request may hold anything."""
    await broker.refused(cluster_id="x" * 100_000, argv=["y" * 100_000], session_id="\n" * 1000)
    [entry] = await entries(broker, 1)
    assert (list(entry.argv), entry.session_id) == (["…"], "")
    assert entry.ByteSize() < 1000


async def test_a_session_that_is_refused_is_an_entry(broker: Any) -> None:
    stub = SessionServiceStub(broker.channel())
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.CreateSession(
            CreateSessionRequest(cluster_id="nowhere"), metadata=(("x-api-key", "the-key-of-bob"),)
        )
    [entry] = await entries(broker, 1)
    assert (entry.action, entry.owner, entry.reason) == ("create_session", "bob", "CLUSTER_UNKNOWN")


async def test_a_bad_key_is_counted_only(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """Whoever has none could write the trail full, and the log."""
    for _ in range(3):
        await broker.refused(key="wrong")
    await broker.refused(cluster_id="nowhere")
    [entry] = await entries(broker, 1)
    assert entry.cluster_id == "nowhere"
    assert [line["api_keys"] for line in log_lines if line["event"] == "credentials.refused"] == [1]


async def test_an_admin_s_action_is_an_entry(broker: Any) -> None:
    """Done or refused."""
    audit, root = Audit(broker.store.audit, replica_id="replica-1"), Caller(owner="root", scopes=("admin",))
    audit.acted("create_executor_token", root, cluster_id="prod", detail="token_id=t-1")
    audit.acted("create_api_key", root, error=error(Reason.INVALID_COMMAND, "no"))
    refused, done = await entries(broker, 2)
    assert (done.action, done.owner, done.cluster_id, done.detail) == (
        "create_executor_token", "root", "prod", "token_id=t-1",
    )  # fmt: skip
    assert (done.outcome, done.reason) == (command_pb2.OUTCOME_UNSPECIFIED, "")
    assert (refused.action, refused.outcome, refused.reason) == (
        "create_api_key", command_pb2.OUTCOME_REJECTED, "INVALID_COMMAND",
    )  # fmt: skip


async def test_entries_are_chosen(broker: Any) -> None:
    """By cluster, session, time and owner."""
    executor = await broker.executor()
    before = time.time() - 1
    await run(broker, executor)
    await broker.refused(cluster_id="nowhere", session_id="s-1")
    newest, oldest = await entries(broker, 2)
    assert (newest.cluster_id, oldest.cluster_id) == ("nowhere", "prod")
    assert list((await page(broker, cluster_id="prod")).entries) == [oldest]
    assert list((await page(broker, session_id="s-1")).entries) == [newest]
    assert list((await page(broker, since=before, until=time.time() + 1)).entries) == [newest, oldest]
    assert list((await page(broker, since=time.time() + 1)).entries) == []
    assert list((await page(broker, until=before)).entries) == []
    assert list((await page(broker, until=1.0)).entries) == []
    await broker.refused(cluster_id="nowhere", key="the-key-of-bob")
    [bobs] = await entries(broker, 1, owner="bob")
    assert (bobs.owner, bobs.cluster_id) == ("bob", "nowhere")
    assert newest in (await page(broker, owner="alice")).entries
    assert list((await page(broker, owner="bob", session_id="s-1")).entries) == []
    assert list((await page(broker, owner="bo")).entries) == []


async def test_entries_come_in_pages(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look has a bound: a page may be empty and not be the last."""
    monkeypatch.setattr("broker.rpc.audit.AT_A_TIME", 2)
    monkeypatch.setattr("broker.rpc.audit.MAX_LOOKED_AT", 4)
    for n in range(9):
        await broker.refused(cluster_id=f"nowhere-{n}")
    async with asyncio.timeout(PATIENCE_S):
        while not (await page(broker, cluster_id="nowhere-8")).entries:
            await asyncio.sleep(0.02)
    seen: list[str] = []
    token, pages = "", 0
    while True:
        found = await page(broker, page_size=3, page_token=token)
        seen += [entry.cluster_id for entry in found.entries]
        token, pages = found.next_page_token, pages + 1
        if not token:
            break
    assert seen == [f"nowhere-{n}" for n in range(8, -1, -1)]
    first = await page(broker, cluster_id="nowhere-0")
    assert (list(first.entries), bool(first.next_page_token)) == ([], True)


async def test_an_entry_that_was_written_twice_is_shown_once(broker: Any, redis: Redis) -> None:
    """Redis had it, and could not say so. What is no entry is passed over."""
    await broker.refused(cluster_id="nowhere")
    [entry] = await entries(broker, 1)
    await redis.xadd(keys.AUDIT, {"entry": entry.SerializeToString()})
    await redis.xadd(keys.AUDIT, {"entry": b"\xff\xff garbage"})
    await redis.xadd(keys.AUDIT, {"other": b"x"})
    assert list((await page(broker)).entries) == [entry]


@pytest.mark.parametrize("key", ["the-key-of-alice", "the-key-of-root"])
async def test_the_trail_needs_its_scope(broker: Any, key: str) -> None:
    """To be an admin is not enough."""
    with pytest.raises(OpenlineError) as refusal:
        await page(broker, key=key)
    assert (refusal.value.reason, refusal.value.metadata["scope"]) == (Reason.SCOPE_MISSING, "audit")


@pytest.mark.parametrize("token", ["x", "-", "1-1-1", "+"])
async def test_a_token_that_was_no_page_s(broker: Any, token: str) -> None:
    with pytest.raises(OpenlineError) as refusal:
        await page(broker, page_token=token)
    assert refusal.value.reason is Reason.INVALID_COMMAND


async def test_the_trail_has_a_length(valkey: str, redis: Redis, start_broker: Any) -> None:
    """About --audit-max-entries."""
    async with open_store(valkey, result_ttl_s=60, audit_max_entries=100) as store:
        for n in range(2000):
            store.audit.append(AuditEntry(entry_id=str(n)))
        store.audit.flush()
        assert await store.behind.drain(PATIENCE_S)
    assert 100 <= await redis.xlen(keys.AUDIT) < 400


async def test_no_trail(valkey: str, redis: Redis, start_broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """With --audit-max-entries 0 there are the lines in the log alone."""
    async with open_store(valkey, result_ttl_s=60, audit_max_entries=0) as store, start_broker(store) as broker:
        await run(broker, await broker.executor())
    assert not await redis.exists(keys.AUDIT)
    assert [line["action"] for line in log_lines if line["event"] == "audit"] == ["execute"]


async def test_without_redis_the_trail_is_unavailable(start_broker: Any) -> None:
    async with open_store("redis://127.0.0.1:1", result_ttl_s=600) as away, start_broker(away) as broker:
        with pytest.raises(OpenlineError) as refusal:
            await page(broker)
        assert refusal.value.reason is Reason.STORE_UNAVAILABLE


# What is done without a command


async def test_a_cancel_says_who_stopped_whose_command(broker: Any) -> None:
    """Beside the entry of the command itself, which is its caller's; over a pipe as by a call of its own."""
    executor = await broker.executor()
    asked = broker.execute(correlation_id="c-1")
    name = await executor.begin_one()
    await broker.cancel(name, why="enough", key="the-key-of-root")
    [cancelled] = await entries(broker, 1)
    assert (cancelled.action, cancelled.owner, cancelled.detail) == ("cancel", "root", "asked by alice: enough")
    assert (cancelled.cluster_id, cancelled.correlation_id, cancelled.command_id) == ("prod", "c-1", name)
    assert cancelled.outcome == command_pb2.OUTCOME_UNSPECIFIED
    pipe = await broker.pipe()
    await pipe.send(pb.CallerFrame(call_id=1, cancel=pb.CancelCommandRequest(command_id=name)))
    await pipe.next()
    by_pipe, _ = await entries(broker, 2)
    assert (by_pipe.owner, by_pipe.detail) == ("alice", "asked by alice: cancelled by the caller")
    await executor.send(*broker._frames.ran(name)[2:])
    await asked
    ended, _, _ = await entries(broker, 3)
    assert (ended.action, ended.owner, ended.command_id) == ("execute", "alice", name)
    await executor.expect("cancel")
    await executor.expect("cancel")
    await executor.expect("result_ack")
    # It has ended: nothing is done by this.
    assert await broker.cancel(name) == "DONE"
    await entries(broker, 3)


async def test_a_cancel_of_what_another_replica_has_is_told_once(start_broker: Any) -> None:
    """By the replica that was asked."""
    async with start_broker(replica_id="r1") as here, start_broker(replica_id="r2") as there:
        executor = await there.executor()
        peers = here.inside.dispatcher._forwarding._peers
        async with asyncio.timeout(PATIENCE_S):
            while not peers.reachable:
                await asyncio.sleep(0.01)
        asked = there.execute()
        name = await executor.begin_one()
        await here.cancel(name)
        assert (await executor.expect("cancel")).command_id == name
        await executor.send(*there._frames.ran(name)[2:])
        await asked
        ended, cancelled = await entries(here, 2)
        assert (ended.action, cancelled.action, cancelled.replica_id) == ("execute", "cancel", "r1")


async def test_sessions_that_are_made_and_ended_are_entries(broker: Any) -> None:
    stub, bob = SessionServiceStub(broker.channel()), (("x-api-key", "the-key-of-bob"),)
    request = CreateSessionRequest(cluster_id="prod", correlation_id="c-1")
    session_id = (await stub.CreateSession(request, metadata=bob)).session.session_id
    await stub.DeleteSession(DeleteSessionRequest(session_id=session_id), metadata=bob)
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.DeleteSession(DeleteSessionRequest(session_id=session_id), metadata=bob)
    told = await entries(broker, 2, session_id=session_id)
    assert {entry.action for entry in told} == {"create_session", "delete_session"}
    for entry in told:
        assert (entry.owner, entry.cluster_id, entry.correlation_id) == ("bob", "prod", "c-1")
        assert (entry.outcome, entry.reason) == (command_pb2.OUTCOME_UNSPECIFIED, "")


async def test_the_log_has_the_words_if_it_is_to_have_them(start_broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """As the trail has them: bounded, also of a request that was refused; and never what a command wrote."""
    async with start_broker(audit_log_argv=True) as broker:
        executor = await broker.executor()
        await run(broker, executor, argv=["get", "pods"])
        await broker.refused(cluster_id="nowhere", argv=["get", "x" * 100_000])
        await entries(broker, 2)
        trail = [list(entry.argv) for entry in await entries(broker, 2)]
    lines = [line["argv"] for line in log_lines if line["event"] == "audit"]
    assert lines == trail[::-1]
    assert lines[0] == ["get", "pods"]
    assert len(str(lines[1])) < 3000
    assert "secret-output" not in str(log_lines)


async def test_who_gives_up_a_call_has_not_done_it_unseen(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key may be in Redis by then."""
    reached = asyncio.Event()

    async def create(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(CredentialRecords, "create", create)
    request = CreateApiKeyRequest(owner="mallory", scopes=["read"])
    call = AdminServiceStub(broker.channel()).CreateApiKey(request, metadata=(("x-api-key", "the-key-of-root"),))
    asked = asyncio.ensure_future(call)
    waiting = asyncio.ensure_future(reached.wait())
    await asyncio.wait({asked, waiting}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    assert waiting.done(), asked
    call.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    [entry] = await entries(broker, 1)
    assert (entry.action, "broken off" in entry.detail) == ("create_api_key", True)


async def test_a_page_has_room_in_a_message(broker: Any) -> None:
    """With the longest words that there may be: it goes on on the next page."""
    written = 1050
    for _ in range(written):
        broker.store.audit.append(AuditEntry(entry_id=new_id(), action="execute", argv=["\U0001f41b" * 2048]))
    broker.store.audit.flush()
    assert await broker.store.behind.drain(PATIENCE_S)
    pages = [await page(broker, page_size=1000)]
    while token := pages[-1].next_page_token:
        pages.append(await page(broker, page_size=1000, page_token=token))
    assert sum(len(each.entries) for each in pages) == written
    assert sum(each.ByteSize() for each in pages) > MAX_MESSAGE_BYTES
    assert all(each.ByteSize() < MAX_MESSAGE_BYTES * 0.6 for each in pages)
