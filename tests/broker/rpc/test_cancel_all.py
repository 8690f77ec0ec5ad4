"""The kill switch: everything of a session, an owner or a cluster ends, wherever it is, and what is told of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from broker import killing
from broker.core.proof import METADATA_KEY
from broker.rpc import everywhere
from openline.errors import OpenlineError, from_rpc_error
from openline.reasons import NO, UNKNOWN, Reason
from openline.settings import Address
from openline.v1 import admin_service_pb2 as pb
from openline.v1 import command_pb2, command_service_pb2, session_service_pb2
from openline.v1 import executor_service_pb2 as wire
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2 import Replica
from openline.v1.session_service_pb2_grpc import SessionServiceStub

PATIENCE_S = 20.0
ROOT, AUDITOR, BOB = "the-key-of-root", "the-key-of-the-auditor", "the-key-of-bob"
OF_PROD = "the-key-of-an-admin-of-prod"


@pytest.fixture
async def broker(start_broker: Any) -> AsyncIterator[Any]:
    async with start_broker(extra_keys=[f"pat:{OF_PROD}:admin@prod*"]) as running:
        yield running


@pytest.fixture
async def replicas(start_broker: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Two that know each other."""
    async with start_broker(replica_id="r1") as one, start_broker(replica_id="r2") as other:
        for each in (one, other):
            await until(lambda each=each: bool(peers_of(each).reachable))  # type: ignore[misc]
        yield one, other


def peers_of(broker: Any) -> Any:
    return broker.inside.dispatcher._forwarding._peers


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def cancel_all(broker: Any, key: str | None = ROOT, **fields: Any) -> pb.CancelAllResponse:
    """Raises OpenlineError for a status."""
    metadata = () if key is None else (("x-api-key", key),)
    try:
        call = AdminServiceStub(broker.channel()).CancelAll
        answer: pb.CancelAllResponse = await call(pb.CancelAllRequest(**fields), metadata=metadata, timeout=PATIENCE_S)
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from failure
    return answer


async def refusal(asked: Any) -> OpenlineError:
    with pytest.raises(OpenlineError) as refused:
        await asked
    return refused.value


async def is_stopped(executor: Any, *command_ids: str, why: str) -> None:
    """The executor is told to stop these, which it does."""
    for _ in command_ids:
        stop = await executor.expect("cancel")
        assert stop.command_id in command_ids
        assert stop.why == why
        error = command_pb2.Error(reason="CANCELLED", message=why)
        await executor.send(executor._say.finished(stop.command_id, outcome=command_pb2.OUTCOME_CANCELLED, error=error))


async def audited(broker: Any, count: int, action: str) -> list[pb.AuditEntry]:
    """The entries of this action, once there are so many."""
    stub = AdminServiceStub(broker.channel())
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page = await stub.ListAuditEntries(pb.ListAuditEntriesRequest(), metadata=(("x-api-key", AUDITOR),))
            found = [entry for entry in page.entries if entry.action == action]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


# Whose


async def test_everything_of_an_owner_ends_whatever_it_does(broker: Any) -> None:
    """What runs, what was written, what waits for a place and what waits for its cluster; nobody else's."""
    executor = await broker.executor(max_concurrency=1)
    running_asked = broker.execute()
    running = await executor.begin_one()
    written_asked = broker.execute()
    written = (await executor.expect("execute")).command_id
    queued_asked = broker.execute()
    absent_asked = broker.execute(cluster_id="staging", wait_for_cluster_s=20)
    bob_asked = broker.execute(key=BOB)
    await until(lambda: len(broker.inside.ledger.commands) == 5)
    answer = await cancel_all(broker, owner="alice", reason="it ran away")
    assert (answer.cancelled, list(answer.unreached_replica_ids), list(answer.command_ids)) == (4, [], [])
    for asked in (queued_asked, absent_asked):
        refused = await refusal(asked)
        assert (refused.reason, refused.error.executed) == (Reason.CANCELLED, NO)
        assert refused.error.message == "it ran away"
    for _ in range(2):
        stop = await executor.expect("cancel")
        assert stop.why == "it ran away"
        error = command_pb2.Error(reason="CANCELLED", message=stop.why, executed=NO)
        ended = {
            running: executor._say.finished(running, outcome=command_pb2.OUTCOME_CANCELLED, error=error),
            written: executor._say.rejected(written, error),
        }
        await executor.send(ended[stop.command_id])
    for asked in (running_asked, written_asked):
        assert (await refusal(asked)).reason is Reason.CANCELLED
    while not (frame := await executor.next()).HasField("execute"):
        assert frame.HasField("result_ack")
    await executor.send(*executor._say.ran(frame.execute.command_id, b"bob's"))
    assert (await bob_asked).result.stdout == b"bob's"
    await broker.inside.nothing_left()


async def test_everything_of_a_session_or_a_cluster_ends(broker: Any) -> None:
    executor = await broker.executor()
    request = session_service_pb2.CreateSessionRequest(cluster_id="prod")
    alice = (("x-api-key", "the-key-of-alice"),)
    session_id = (await SessionServiceStub(broker.channel()).CreateSession(request, metadata=alice)).session.session_id
    of_session = broker.execute(session_id=session_id)
    name = await executor.begin_one()
    other_asked = broker.execute()
    other = await executor.begin_one()
    assert (await cancel_all(broker, session_id=session_id)).cancelled == 1
    await is_stopped(executor, name, why="an operator has stopped it")
    assert (await refusal(of_session)).reason is Reason.CANCELLED
    assert (await executor.expect("result_ack")).command_id == name
    assert (await cancel_all(broker, cluster_id="prod", reason="stop")).cancelled == 1
    await is_stopped(executor, other, why="stop")
    assert (await refusal(other_asked)).reason is Reason.CANCELLED


async def test_everything_of_a_conversation_ends(broker: Any) -> None:
    """Of whoever has one of this name, or of one owner; the rest runs on."""
    executor = await broker.executor()
    alices, first = broker.execute(correlation_id="c-1"), await executor.begin_one()
    bobs, second = broker.execute(correlation_id="c-1", key=BOB), await executor.begin_one()
    other, third = broker.execute(correlation_id="c-2"), await executor.begin_one()
    of_alice = pb.Conversation(correlation_id="c-1", owner="alice")
    assert (await cancel_all(broker, conversation=of_alice, reason="stop")).cancelled == 1
    await is_stopped(executor, first, why="stop")
    assert (await refusal(alices)).reason is Reason.CANCELLED
    assert (await executor.expect("result_ack")).command_id == first
    assert (await cancel_all(broker, conversation=pb.Conversation(correlation_id="c-1"), reason="stop")).cancelled == 1
    await is_stopped(executor, second, why="stop")
    assert (await refusal(bobs)).reason is Reason.CANCELLED
    assert (await executor.expect("result_ack")).command_id == second
    await executor.send(*executor._say.ran(third)[2:])
    assert (await other).result.exit_code == 0
    done = (await audited(broker, 2, "cancel_all"))[-1]
    assert done.detail == "correlation c-1 owner alice: 1 commands: stop"


async def test_nothing_is_forbidden_by_it(broker: Any) -> None:
    """What is asked for afterwards runs, and there may be nothing to end at all."""
    assert (await cancel_all(broker, owner="nobody")).cancelled == 0
    assert (await cancel_all(broker, owner="alice")).cancelled == 0
    executor = await broker.executor()
    asked = broker.execute()
    await executor.run_one(b"x")
    assert (await asked).result.stdout == b"x"


async def test_it_may_be_said_twice(broker: Any) -> None:
    """A command that does not end is counted, and told, again."""
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    for _ in range(2):
        assert (await cancel_all(broker, owner="alice", reason="stop")).cancelled == 1
        assert (await executor.expect("cancel")).command_id == name
    await executor.send(*executor._say.ran(name)[2:])
    assert (await asked).result.exit_code == 0


async def test_hundreds_end(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other callers are served meanwhile: not all in one turn of the loop."""
    for bound in ("MAX_WAITING_OF_SHARE", "MAX_WAITING_OF_CALLER"):
        monkeypatch.setattr(f"broker.core.queue.{bound}", 1024)
    monkeypatch.setattr(killing, "AT_A_TIME", 100)
    executor = await broker.executor(max_concurrency=1)
    pipe = await broker.pipe()
    calls = 600
    request = command_service_pb2.ExecuteRequest(cluster_id="prod", argv=["get", "pods"], timeout_s=20)
    await pipe.send(*(command_service_pb2.CallerFrame(call_id=n + 1, execute=request) for n in range(calls)))
    await executor.begin_one()
    await until(lambda: len(broker.inside.ledger.commands) == calls)
    assert (await cancel_all(broker, cluster_id="prod")).cancelled == calls
    for _ in range(calls - 2):  # one runs, and one is on its way to the executor
        assert (await pipe.next()).response.result.error.reason == "CANCELLED"


# Those that wait for Redis


@pytest.fixture
async def held(broker: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, asyncio.Event]:
    """A broker and its executor, and what has Redis answer about keys and sessions again."""
    answers = asyncio.Event()

    def late(ask: Any) -> Any:
        async def asked(*arguments: Any, **named: Any) -> Any:
            await answers.wait()
            return await ask(*arguments, **named)

        return asked

    store = broker.store
    monkeypatch.setattr(store.claims, "claim", late(store.claims.claim))
    monkeypatch.setattr(store.sessions, "get", late(store.sessions.get))
    return broker, await broker.executor(), answers


@pytest.mark.parametrize(
    ("fields", "executed"),
    [({"idempotency_key": "k"}, UNKNOWN), ({"session_id": "s-1"}, NO)],
    ids=["for its key", "for its session"],
)
async def test_what_waits_for_redis_is_never_sent(
    held: tuple[Any, Any, asyncio.Event], fields: dict[str, Any], executed: command_pb2.Executed.ValueType
) -> None:
    """It is answered at once. Behind a key there may be an earlier command; and the key is free afterwards."""
    broker, executor, answers = held
    asked = broker.execute(**fields)
    [executions] = broker.inside.parts["Executions"]
    await until(lambda: len(executions.waiting) == 1)
    assert (await cancel_all(broker, owner="alice")).cancelled == 1
    refused = await refusal(asked)
    assert (refused.reason, refused.error.executed) == (Reason.CANCELLED, executed)
    answers.set()
    await until(lambda: len(executions.waiting) == 0)
    await executor.sync()
    if "idempotency_key" in fields:
        asked = broker.execute(**fields)
        await executor.run_one(b"x")
        answer = await asked
        assert (answer.replayed, answer.result.stdout) == (False, b"x")


async def test_a_stream_that_waits_for_redis_ends(held: tuple[Any, Any, asyncio.Event]) -> None:
    """There is nothing to watch yet, so its status says it."""
    broker, executor, answers = held
    watcher = broker.stream(idempotency_key="k")
    [executions] = broker.inside.parts["Executions"]
    await until(lambda: len(executions.waiting) == 1)
    assert (await cancel_all(broker, cluster_id="prod")).cancelled == 1
    with pytest.raises(OpenlineError) as ended:
        await watcher.next()
    assert ended.value.reason is Reason.CANCELLED
    answers.set()
    await until(lambda: len(executions.waiting) == 0)
    await executor.sync()


# On all replicas


async def test_what_was_forwarded_ends_and_counts_once(replicas: tuple[Any, Any]) -> None:
    """Asked of a replica that has the executor, or of the one that has the caller."""
    here, there = replicas
    executor = await there.executor()
    await until(lambda: bool(here.inside.dispatcher._ledger._routes._directory.place("prod", now=0.0)))
    for asked_of in replicas:
        forwarded_asked, own_asked = here.execute(), there.execute()
        names = [await executor.begin_one(), await executor.begin_one()]
        answer = await cancel_all(asked_of, cluster_id="prod", reason="stop")
        assert (answer.cancelled, list(answer.unreached_replica_ids)) == (2, [])
        stopped: set[str] = set()
        # The replica that forwarded one passes the cancel on as well.
        while stopped != set(names):
            frame = await executor.next()
            if frame.HasField("cancel") and frame.cancel.command_id not in stopped:
                stopped.add(frame.cancel.command_id)
                error = command_pb2.Error(reason="CANCELLED", message="stop")
                ended = {"outcome": command_pb2.OUTCOME_CANCELLED, "error": error}
                await executor.send(executor._say.finished(frame.cancel.command_id, **ended))
        for asked in (forwarded_asked, own_asked):
            assert (await refusal(asked)).reason is Reason.CANCELLED
        for broker in replicas:
            await broker.inside.nothing_left()
        await _nothing_but_acks(executor)


async def _nothing_but_acks(executor: Any) -> None:
    """What is still on its way to the executor, up to the answer to a heartbeat."""
    await executor.send(wire.ExecutorFrame(heartbeat=wire.Heartbeat(seq=7)))
    while not (frame := await executor.next()).HasField("heartbeat_ack"):
        assert frame.WhichOneof("frame") in ("result_ack", "cancel")


async def test_it_is_asked_of_one_replica_and_done_on_the_other(replicas: tuple[Any, Any]) -> None:
    """Which tells what it has done to replicas alone."""
    here, there = replicas
    executor = await there.executor()
    asked = there.execute()
    name = await executor.begin_one()
    answer = await cancel_all(here, owner="alice", reason="stop")
    assert (answer.cancelled, list(answer.command_ids)) == (1, [])
    await is_stopped(executor, name, why="stop")
    assert (await refusal(asked)).reason is Reason.CANCELLED


async def test_a_replica_that_does_not_answer_is_named(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have some left, so that it is asked again; what can be reached has ended all the same."""
    monkeypatch.setattr(everywhere, "TIMEOUT_S", 0.2)
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    async with await asyncio.start_server(_say_nothing, "127.0.0.1", 0) as silent:
        silent_at = Address(f"127.0.0.1:{silent.sockets[0].getsockname()[1]}")
        peers = peers_of(broker)
        await peers.know([Replica(replica_id="r2", address="127.0.0.1:1")])
        monkeypatch.setattr(peers, "know", _learn_nothing)
        peers._vanished[silent_at] = float("inf")
        peers._vanished[Address("127.0.0.1:1")] = float("inf")
        answer = await cancel_all(broker, owner="alice", reason="stop")
    assert (answer.cancelled, list(answer.unreached_replica_ids)) == (1, sorted([silent_at, "r2"]))
    await is_stopped(executor, name, why="stop")
    assert (await refusal(asked)).reason is Reason.CANCELLED
    [entry] = await audited(broker, 1, "cancel_all")
    assert "without" in entry.detail
    assert "r2" in entry.detail


async def _learn_nothing(_replicas: object) -> None:
    """Redis knows nothing of the other replica, and is not believed."""


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_a_proof_that_is_none_is_no_replica(broker: Any) -> None:
    """Whoever makes one up is an admin without a key."""
    call = AdminServiceStub(broker.channel()).CancelAll
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(pb.CancelAllRequest(owner="alice"), metadata=((METADATA_KEY, "r2 replica-1 0 x 00"),))
    assert from_rpc_error(refused.value).reason is Reason.UNAUTHENTICATED


# Who may, and what is told


async def test_a_restricted_key_ends_what_it_sees(broker: Any) -> None:
    """Of an owner who has commands elsewhere as well; and no cluster that it does not see is there for it."""
    prod = await broker.executor()
    staging = broker.dial(token="the-token-of-staging")
    await staging.hello(cluster_id="staging")
    seen, hidden = broker.execute(), broker.execute(cluster_id="staging")
    name, other = await prod.begin_one(), await staging.begin_one()
    assert (await cancel_all(broker, OF_PROD, owner="alice", reason="stop")).cancelled == 1
    await is_stopped(prod, name, why="stop")
    assert (await refusal(seen)).reason is Reason.CANCELLED
    await staging.sync()
    unseen, unknown = [await refusal(cancel_all(broker, OF_PROD, cluster_id=each)) for each in ("staging", "gnigats")]
    assert unseen.reason is unknown.reason is Reason.CLUSTER_UNKNOWN
    assert unseen.error.message.replace("staging", "gnigats") == unknown.error.message
    assert (await refusal(cancel_all(broker, OF_PROD, owner="alice", clusters=["*"]))).reason is Reason.SCOPE_MISSING
    await staging.send(*staging._say.ran(other)[2:])
    assert (await hidden).result.exit_code == 0


async def test_it_can_be_narrowed_to_some_clusters(broker: Any) -> None:
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    assert (await cancel_all(broker, owner="alice", clusters=["stag*"])).cancelled == 0
    assert (await cancel_all(broker, owner="alice", clusters=["pr*"], reason="stop")).cancelled == 1
    await is_stopped(executor, name, why="stop")
    assert (await refusal(asked)).reason is Reason.CANCELLED


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "whose"),
        ({"owner": ""}, "owner"),
        ({"session_id": "\n"}, "session_id"),
        ({"owner": "x" * 201}, "owner"),
        ({"cluster_id": "PROD"}, "cluster_id"),
        ({"conversation": pb.Conversation()}, "conversation"),
        ({"conversation": pb.Conversation(owner="alice")}, "conversation"),
        ({"conversation": pb.Conversation(correlation_id="two words")}, "conversation"),
        ({"conversation": pb.Conversation(correlation_id="c-1", owner="\n")}, "conversation"),
        ({"owner": "alice", "reason": "x" * 201}, "reason"),
        ({"owner": "alice", "reason": "two\nlines"}, "reason"),
        ({"owner": "alice", "clusters": ["Prod"]}, "clusters"),
    ],
)
async def test_a_request_that_is_not_valid(broker: Any, fields: dict[str, Any], field: str) -> None:
    """Nothing is cancelled by mistake: a switch without a name stops nobody."""
    refused = await refusal(cancel_all(broker, **fields))
    assert refused.reason is Reason.INVALID_COMMAND
    assert [violation.field for violation in refused.error.violations] == [field]


@pytest.mark.parametrize(
    ("key", "reason"),
    [(None, Reason.UNAUTHENTICATED), ("the-key-of-alice", Reason.SCOPE_MISSING), (AUDITOR, Reason.SCOPE_MISSING)],
    ids=["no key", "a caller's", "an auditor's"],
)
async def test_only_admins_may(broker: Any, key: str | None, reason: Reason) -> None:
    assert (await refusal(cancel_all(broker, key, owner="alice"))).reason is reason


async def test_the_audit_trail_says_who_stopped_what(broker: Any) -> None:
    """Done or refused, with how many there were; and each command that ended is an entry of its own, as ever."""
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    await cancel_all(broker, owner="alice", reason="it ran away")
    await is_stopped(executor, name, why="it ran away")
    await refusal(asked)
    await refusal(cancel_all(broker, cluster_id="nowhere"))
    refused, done = await audited(broker, 2, "cancel_all")
    assert (done.owner, done.detail, done.reason) == ("root", "owner alice: 1 commands: it ran away", "")
    assert (refused.owner, refused.cluster_id, refused.reason) == ("root", "nowhere", "CLUSTER_UNKNOWN")
    [ended] = await audited(broker, 1, "execute")
    assert (ended.owner, ended.command_id, ended.outcome) == ("alice", name, command_pb2.OUTCOME_CANCELLED)
