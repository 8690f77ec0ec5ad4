"""Unary Execute: results, and every reason why there is none."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from broker.core.connections import Connection
from broker.core.credentials import Credentials
from broker.core.recent import Recent
from broker.replica import Replica
from broker.rpc.cancel_commands import CancelCommandsMethod
from broker.rpc.commands import CommandService
from broker.rpc.pipe import Pipes
from broker.settings import BrokerSettings
from broker.store import keys
from broker.store.embedded import embedded_valkey
from broker.store.store import Store, open_store
from openline import errors, ids
from openline.errors import OpenlineError
from openline.reasons import NO, UNKNOWN, YES, Reason
from openline.stream import FrameStream
from openline.v1 import command_pb2, command_service_pb2, session_service_pb2
from openline.v1 import executor_service_pb2 as wire
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.session_service_pb2_grpc import SessionServiceStub

PATIENCE_S = 20.0
ALICE = (("x-api-key", "the-key-of-alice"),)
BOB = (("authorization", "Bearer the-key-of-bob"),)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def session(broker: Any, *, metadata: Any = ALICE, cluster_id: str = "prod") -> str:
    request = session_service_pb2.CreateSessionRequest(cluster_id=cluster_id)
    made = await SessionServiceStub(broker.channel()).CreateSession(request, metadata=metadata)
    return str(made.session.session_id)


async def test_a_command_goes_down_the_open_stream_and_comes_back(broker: Any, redis: Any) -> None:
    """Without a session: the executor gets what was asked, the caller what it wrote, Redis the result."""
    executor = await broker.executor()
    asked = broker.execute(argv=["get", "pods", "-A"], timeout_s=30, correlation_id="corr-1", traceparent="")
    execute = await executor.run_one(b"pods\n", exit_code=0)
    assert list(execute.argv) == ["get", "pods", "-A"]
    assert 29 < execute.timeout_s <= 30
    assert (execute.identity.owner, execute.correlation_id) == ("alice", "corr-1")
    answer = await asked
    assert answer.result.stdout == b"pods\n"
    assert answer.result.outcome == command_pb2.OUTCOME_EXITED
    assert (answer.result.cluster_id, answer.result.executor_id) == ("prod", "exec-1")
    assert 0 < answer.result.timings.total_s < PATIENCE_S
    assert not answer.degraded
    await executor.expect("result_ack")
    stored = await broker.store.results.get(execute.command_id)
    assert stored.result == answer.result
    assert (stored.state, stored.owner, stored.argv) == (command_pb2.COMMAND_STATE_DONE, "alice", execute.argv)
    assert 1 <= await redis.ttl("cluster:active:prod") <= 60


async def test_a_command_that_ran_and_failed_is_a_result(broker: Any) -> None:
    """A non-zero exit code is OK."""
    executor = await broker.executor()
    asked = broker.execute()
    await executor.run_one(exit_code=1)
    assert (await asked).result.exit_code == 1


async def test_the_finished_command_is_one_log_line(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """With its correlation id, marked as an agent call; never what it was or wrote."""
    executor = await broker.executor()
    asked = broker.execute(argv=["get", "secret-argument"], correlation_id="corr-1")
    await executor.run_one(b"secret-output")
    await asked
    [line] = [line for line in log_lines if line["event"] == "audit"]
    assert (line["correlation_id"], line["agent_call"], line["owner"]) == ("corr-1", True, "alice")
    assert (line["outcome"], line["exit_code"], line["bytes"]) == ("exited", 0, 13)
    assert "secret-" not in str(log_lines)


# Reasons


@pytest.mark.parametrize("key", [None, "", "wrong", "the-token-of-prod"])
async def test_unauthenticated(broker: Any, key: str | None) -> None:
    refusal = await broker.refused(key=key)
    assert refusal.reason is Reason.UNAUTHENTICATED
    assert refusal.error.executed == NO


async def test_scope_missing(broker: Any) -> None:
    refusal = await broker.refused(key="the-key-of-carol")
    assert refusal.reason is Reason.SCOPE_MISSING
    assert refusal.error.metadata["scope"] == "execute"
    assert refusal.error.executed == NO


async def test_invalid_command(broker: Any) -> None:
    """Each field violation, in BadRequest."""
    refusal = await broker.refused(argv=[], timeout_s=-1)
    assert refusal.reason is Reason.INVALID_COMMAND
    assert [violation.field for violation in refusal.error.violations] == ["argv", "timeout_s"]


async def test_cluster_unknown(broker: Any) -> None:
    """With near names, and those there are."""
    refusal = await broker.refused(cluster_id="prd")
    assert refusal.reason is Reason.CLUSTER_UNKNOWN
    assert refusal.error.executed == NO
    assert refusal.error.metadata["near"] == "prod"
    assert refusal.error.metadata["available"] == "prod,staging"


async def test_cluster_offline_before_anyone_was_there(broker: Any) -> None:
    """At once, with when to ask again, and without last_seen."""
    refusal = await broker.refused()
    assert refusal.reason is Reason.CLUSTER_OFFLINE
    assert refusal.error.executed == NO
    assert refusal.error.retry_after_s > 0
    assert "last_seen" not in refusal.error.metadata


async def test_cluster_offline_says_when_an_executor_was_there(broker: Any) -> None:
    executor = await broker.executor()
    await executor.call.done_writing()
    with pytest.raises(EOFError):
        await executor.next()
    await broker.inside.presence_told()
    refusal = await broker.refused()
    assert refusal.reason is Reason.CLUSTER_OFFLINE
    assert refusal.error.metadata["last_seen"].startswith("20")
    assert refusal.error.metadata["last_seen"] in refusal.error.message


async def test_cluster_offline_when_redis_holds_somebody_elses_bytes(broker: Any, redis: Any) -> None:
    """Nobody is left without an answer."""
    await redis.set(keys.seen("prod"), b"\xff\xff garbage")
    assert (await broker.refused()).reason is Reason.CLUSTER_OFFLINE


async def test_the_status_is_rich(broker: Any) -> None:
    """ErrorInfo with its domain and `executed`, and RetryInfo, for clients that are not ours."""
    call = CommandServiceStub(broker.channel()).Execute(
        command_service_pb2.ExecuteRequest(cluster_id="prod", argv=["get"]), metadata=ALICE
    )
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers = dict(failure.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain, info.metadata["executed"]) == ("CLUSTER_OFFLINE", "openline", "no")
    assert retry.retry_delay.ToMilliseconds() > 0


async def test_rejected_by_the_executor(broker: Any, frames: Any) -> None:
    """Its reason, message and metadata reach the caller."""
    executor = await broker.executor()
    asked = broker.execute()
    execute = await executor.expect("execute")
    denied = errors.error(Reason.POLICY_DENIED, "no `delete` here", metadata={"rule": "verbs"})
    await executor.send(frames.rejected(execute.command_id, denied))
    with pytest.raises(OpenlineError) as refusal:
        await asked
    assert refusal.value.reason is Reason.POLICY_DENIED
    assert refusal.value.error.message == "no `delete` here"
    assert refusal.value.error.metadata["rule"] == "verbs"
    assert refusal.value.error.metadata["command_id"] == execute.command_id
    assert refusal.value.error.executed == NO


async def test_an_executors_endless_message_does_not_lose_the_reason(broker: Any, frames: Any) -> None:
    """A status travels in trailers, which have room for a few kilobytes."""
    executor = await broker.executor()
    asked = broker.execute()
    execute = await executor.expect("execute")
    novel = errors.error(Reason.POLICY_DENIED, "ä\n" * 50_000, metadata={"rule": "ö" * 50_000})
    await executor.send(frames.rejected(execute.command_id, novel))
    with pytest.raises(OpenlineError) as refusal:
        await asked
    assert refusal.value.reason is Reason.POLICY_DENIED


async def test_command_timeout_with_the_output_so_far(broker: Any, frames: Any, later: Any) -> None:
    """The executor does not answer in time: the broker ends the command and tells it to stop."""
    executor = await broker.executor()
    asked = broker.execute(timeout_s=20)
    name = await executor.begin_one()
    await executor.send(frames.output(name, 0, b"so far"))
    await executor.sync()
    later(broker, 21.0)
    with pytest.raises(OpenlineError) as failure:
        await asked
    assert failure.value.reason is Reason.COMMAND_TIMEOUT
    assert failure.value.error.executed == YES
    assert failure.value.result is not None
    assert failure.value.result.stdout == b"so far"
    assert (await executor.expect("cancel")).command_id == name


async def test_cancelled_by_the_executor(broker: Any, frames: Any) -> None:
    executor = await broker.executor()
    asked = broker.execute()
    execute = await executor.expect("execute")
    stopped = errors.error(Reason.CANCELLED, "stopping", executed=YES)
    end = frames.finished(execute.command_id, outcome=command_pb2.OUTCOME_CANCELLED, error=stopped)
    await executor.send(frames.accepted(execute.command_id), end)
    with pytest.raises(OpenlineError) as failure:
        await asked
    assert failure.value.reason is Reason.CANCELLED
    assert failure.value.error.executed == YES


async def test_executor_lost_is_not_unavailable(broker: Any) -> None:
    """Generic retriers send UNAVAILABLE again, and the command may have run."""
    executor = await broker.executor()
    call = CommandServiceStub(broker.channel()).Execute(
        command_service_pb2.ExecuteRequest(cluster_id="prod", argv=["get"]), metadata=ALICE
    )
    await executor.expect("execute")
    await broker.executor(instance_id="instance-2")
    assert await call.code() is grpc.StatusCode.UNKNOWN
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    assert errors.from_rpc_error(failure.value).error.executed == UNKNOWN


@pytest.mark.parametrize("another", [{"argv": ["get", "nodes"]}, {"key": "the-key-of-bob"}, {"cluster_id": "staging"}])
async def test_a_command_id_of_another_command(broker: Any, command_id: str, another: dict[str, Any]) -> None:
    """Another request, or another caller: refused, and the first one is not touched."""
    executor = await broker.executor()
    asked = broker.execute(command_id=command_id)
    execute = await executor.expect("execute")
    assert execute.command_id == command_id
    refusal = await broker.refused(command_id=command_id, **another)
    assert refusal.reason is Reason.INVALID_COMMAND
    assert refusal.error.violations[0].field == "command_id"
    asked.cancel()


async def test_the_same_request_with_the_same_command_id_is_one_command(
    broker: Any, frames: Any, command_id: str
) -> None:
    """It attaches to the command that runs: one Execute, two equal answers."""
    executor = await broker.executor()
    asked = [broker.execute(command_id=command_id, timeout_s=20)]
    execute = await executor.expect("execute")
    asked.append(broker.execute(command_id=command_id, timeout_s=30))
    await broker.inside.until_called(2)
    await executor.send(*frames.ran(execute.command_id, b"once"))
    first, second = await asyncio.gather(*asked)
    assert first == second
    assert first.result.stdout == b"once"
    assert (await executor.expect("result_ack")).command_id == command_id


@pytest.mark.parametrize("made", ["now", "long ago"])
async def test_a_command_id_that_is_done_is_not_run_again(broker: Any, made: str) -> None:
    """The stored result is the answer, live as well; an id that is not new is looked up even if nobody knows it."""
    command_id = ids.new_id() if made == "now" else "01890a5d-ac96-774b-bcce-b302099a8057"
    executor = await broker.executor()
    asked = broker.execute(command_id=command_id)
    await executor.run_one(b"once")
    first = await asked
    await executor.expect("result_ack")
    again = await broker.execute(command_id=command_id, timeout_s=3)
    assert (again.result, again.replayed) == (first.result, False)
    assert (await broker.stream(command_id=command_id, argv=["get", "pods"]).rest())[-1].result == first.result
    for another in ({"argv": ["get", "nodes"]}, {"key": "the-key-of-bob"}):
        refusal = await broker.refused(command_id=command_id, **another)
        assert (refusal.reason, refusal.error.executed) == (Reason.INVALID_COMMAND, NO)
    if made == "long ago":
        broker.inside.ledger._recent = Recent()
        assert (await broker.execute(command_id=command_id)).result == first.result
    await executor.sync()


# Waiting


async def test_a_cluster_that_comes_in_time(broker: Any, later: Any) -> None:
    """The command leaves when it is there, and its timeout begins then: it waited longer than that."""
    asked = broker.execute(wait_for_cluster_s=40, timeout_s=20)
    await broker.inside.until_called(1)
    later(broker, 21.0)
    [command] = broker.inside.ledger.commands.values()
    assert command.result is None
    executor = await broker.executor()
    execute = await executor.run_one(b"x")
    assert 19.9 < execute.timeout_s <= 20
    answer = await asked
    assert answer.result.stdout == b"x"
    assert answer.result.timings.queue_s > 20
    await executor.expect("result_ack")
    await broker.inside.nothing_left()


async def test_a_cluster_that_does_not_come_in_time(broker: Any) -> None:
    """The same answer as without waiting, with when it was last seen."""
    executor = await broker.executor()
    await executor.call.done_writing()
    with pytest.raises(EOFError):
        await executor.next()
    await broker.inside.presence_told()
    refusal = await broker.refused(wait_for_cluster_s=0.2, timeout_s=20)
    assert (refusal.reason, refusal.error.executed) == (Reason.CLUSTER_OFFLINE, NO)
    assert refusal.error.retry_after_s > 0
    assert refusal.error.metadata["last_seen"].startswith("20")
    await broker.inside.nothing_left()


@pytest.mark.parametrize("full", [False, True])
async def test_cluster_offline_however_many_wait_for_redis(
    broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]], full: bool
) -> None:
    """Since when is then left out; it is said by the dispatcher's timer, which must not be hurt by it."""
    monkeypatch.setattr("broker.waiting.MAX_WAITING", 0 if full else 1)
    told = await asyncio.gather(*(broker.refused(wait_for_cluster_s=0.2) for _ in range(10)), broker.refused())
    assert {(one.reason, one.error.executed) for one in told} == {(Reason.CLUSTER_OFFLINE, NO)}
    await broker.inside.nothing_left()
    assert [line for line in log_lines if line["log_level"] == "error"] == []
    executor = await broker.executor()
    asked = broker.execute()
    await executor.run_one(b"x")
    assert (await asked).result.stdout == b"x"


async def test_a_busy_cluster(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """RESOURCE_EXHAUSTED with when to ask again; another caller still has room."""
    monkeypatch.setattr("broker.core.queue.MAX_WAITING_OF_SHARE", 1)
    executor = await broker.executor(max_concurrency=1)
    asked = [broker.execute() for _ in range(2)]
    for _ in asked:
        await executor.expect("execute")
    waiting = broker.execute()
    await until(lambda: broker.inside.left().get("queues") == 1)
    refusal = await broker.refused()
    assert (refusal.reason, refusal.error.executed) == (Reason.CLUSTER_BUSY, NO)
    assert refusal.error.retry_after_s > 0
    other = broker.execute(key="the-key-of-bob")
    await until(lambda: broker.inside.left()["commands"] == 4)
    for one in (*asked, waiting, other):
        one.cancel()


async def test_a_caller_who_leaves_the_queue(broker: Any) -> None:
    """With `cancel_on_disconnect` its command is never sent; without, it is sent in its turn."""
    asked = [broker.execute(wait_for_cluster_s=30, cancel_on_disconnect=n == 0, argv=["get", str(n)]) for n in range(2)]
    await until(lambda: broker.inside.left().get("commands") == 2)
    for one in asked:
        one.cancel()
    await until(lambda: broker.inside.left().get("commands") == 1)
    executor = await broker.executor()
    assert (await executor.run_one()).argv == ["get", "1"]
    await executor.expect("result_ack")
    await executor.sync()
    await broker.inside.nothing_left()


async def test_a_stranded_queue_is_told(start_broker: Any) -> None:
    """Its executor went and stays away: what had been sent is lost, what waited for a place is surely not run."""
    async with start_broker(reconnect_grace=0.2) as broker:
        executor = await broker.executor(max_concurrency=1)
        sent = [broker.execute() for _ in range(2)]
        for _ in sent:
            await executor.expect("execute")
        waited = broker.execute()
        await until(lambda: broker.inside.left().get("queues") == 1)
        executor.call.cancel()
        for asked, reason, executed in ((waited, Reason.CLUSTER_OFFLINE, NO), (sent[0], Reason.EXECUTOR_LOST, UNKNOWN)):
            with pytest.raises(OpenlineError) as ended:
                await asked
            assert (ended.value.reason, ended.value.error.executed) == (reason, executed)
        with pytest.raises(OpenlineError):
            await sent[1]
        await broker.inside.nothing_left()


# Sessions


async def test_a_session_is_used(broker: Any, redis: Any) -> None:
    """The executor hears of it, and its expiry moves on; the second command asks Redis nothing."""
    executor = await broker.executor()
    session_id = await session(broker)
    await redis.expire(keys.session(session_id), 5)
    for count in (1, 2):
        asked = broker.execute(session_id=session_id)
        execute = await executor.run_one()
        assert execute.session_id == session_id
        assert (await asked).result.session_id == session_id
        await executor.expect("result_ack")
        assert (await broker.store.sessions.get(session_id)).command_count == count
    assert await redis.ttl(keys.session(session_id)) > 290


@pytest.mark.parametrize("again", [False, True])
async def test_a_session_of_another_cluster(broker: Any, again: bool) -> None:
    """Also while it is believed."""
    executor = await broker.executor()
    session_id = await session(broker)
    if again:
        asked = broker.execute(session_id=session_id)
        await executor.run_one()
        await asked
    refusal = await broker.refused(session_id=session_id, cluster_id="staging")
    assert refusal.reason is Reason.SESSION_MISMATCH
    assert refusal.error.executed == NO


@pytest.mark.parametrize("again", [False, True])
async def test_a_session_of_another_owner_does_not_exist(broker: Any, again: bool) -> None:
    """Also while it is believed. Bob's key may not even learn that there is one."""
    executor = await broker.executor()
    session_id = await session(broker)
    if again:
        asked = broker.execute(session_id=session_id)
        await executor.run_one()
        await asked
    assert (await broker.refused(session_id=session_id, key="the-key-of-bob")).reason is Reason.SESSION_UNKNOWN
    stub = SessionServiceStub(broker.channel())
    for call in (
        stub.GetSession(session_service_pb2.GetSessionRequest(session_id=session_id), metadata=BOB),
        stub.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=session_id), metadata=BOB),
    ):
        assert await call.code() is grpc.StatusCode.NOT_FOUND
    assert await broker.store.sessions.get(session_id) is not None


async def test_a_session_that_is_unknown_or_deleted(broker: Any) -> None:
    executor = await broker.executor()
    assert (await broker.refused(session_id=ids.new_id())).reason is Reason.SESSION_UNKNOWN
    session_id = await session(broker)
    asked = broker.execute(session_id=session_id)
    await executor.run_one()
    await asked
    request = session_service_pb2.DeleteSessionRequest(session_id=session_id)
    await SessionServiceStub(broker.channel()).DeleteSession(request, metadata=ALICE)
    assert (await broker.refused(session_id=session_id)).reason is Reason.SESSION_UNKNOWN


# Callers who leave


async def test_a_caller_who_leaves_leaves_nothing_waiting(
    broker: Any, frames: Any, log_lines: list[dict[str, Any]]
) -> None:
    """The command runs on, its result is stored, and the executor is not told to stop."""
    executor = await broker.executor()
    asked = broker.execute()
    execute = await executor.expect("execute")
    await executor.send(frames.accepted(execute.command_id))
    asked.cancel()
    await broker.inside.until_called(0)
    await executor.send(frames.started(execute.command_id), frames.finished(execute.command_id, exit_code=3))
    assert (await executor.expect("result_ack")).command_id == execute.command_id
    assert (await broker.store.results.get(execute.command_id)).result.exit_code == 3
    assert [line for line in log_lines if line.get("log_level") in ("error", "warning")] == []


async def test_a_caller_who_wants_it_cancelled(broker: Any, frames: Any) -> None:
    """`cancel_on_disconnect`: the executor is told to stop."""
    executor = await broker.executor()
    asked = broker.execute(cancel_on_disconnect=True)
    execute = await executor.expect("execute")
    asked.cancel()
    assert (await executor.expect("cancel")).command_id == execute.command_id


async def test_a_caller_who_leaves_cancels_nothing_that_another_one_asked_for(broker: Any, command_id: str) -> None:
    """The last of those who asked for it cancels it, if that one wants it so."""
    executor = await broker.executor()
    asked = [broker.execute(command_id=command_id, cancel_on_disconnect=True) for _ in range(2)]
    execute = await executor.expect("execute")
    await broker.inside.until_called(2)
    asked[0].cancel()
    await broker.inside.until_called(1)
    await executor.sync()
    asked[1].cancel()
    assert (await executor.expect("cancel")).command_id == execute.command_id


async def test_a_caller_who_leaves_a_cluster_that_is_away_has_its_command_cancelled(broker: Any, frames: Any) -> None:
    """The executor is told when it is back."""
    executor = await broker.executor()
    asked = broker.execute(cancel_on_disconnect=True)
    execute = await executor.expect("execute")
    await executor.send(frames.accepted(execute.command_id))
    executor.call.cancel()
    await until(lambda: broker.inside.left().get("away") == 1)
    asked.cancel()
    await broker.inside.until_called(0)
    again = await broker.executor(in_flight_ids=[execute.command_id])
    assert (await again.expect("cancel")).command_id == execute.command_id


async def test_redis_away_commands_go_on(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers say that their results are not stored yet, and no executor is told to forget one."""
    monkeypatch.setattr("broker.store.store.DRAIN_S", 0.1)
    async with contextlib.AsyncExitStack() as stack:
        valkey = contextlib.AsyncExitStack()
        url = await valkey.enter_async_context(embedded_valkey(None))
        store = await stack.enter_async_context(open_store(url, result_ttl_s=60))
        broker = await stack.enter_async_context(start_broker(store))
        executor = await broker.executor()
        assert await store.behind.drain(PATIENCE_S)
        await valkey.aclose()
        asked = broker.execute()
        await executor.run_one(b"x")
        await asked
        await until(lambda: store.degraded)
        asked = broker.execute()
        await executor.run_one(b"y")
        answer = await asked
        assert answer.result.stdout == b"y"
        assert answer.degraded
        await executor.send(wire.ExecutorFrame(heartbeat=wire.Heartbeat(seq=1)))
        await executor.expect("heartbeat_ack")  # and no result_ack before it
        # What cannot be known without Redis is said to be so.
        assert (await broker.refused(cluster_id="staging")).reason is Reason.CLUSTER_OFFLINE
        assert (await broker.refused(session_id=ids.new_id())).reason is Reason.STORE_UNAVAILABLE


class Metadata:
    """What a servicer sees of a caller, for calls that the test makes and cancels by itself."""

    def invocation_metadata(self) -> Any:
        return ALICE


async def test_a_result_in_the_very_turn_in_which_the_caller_leaves(
    store: Store, frames: Any, log_lines: list[dict[str, Any]]
) -> None:
    """The call is cancelled and its task does not know yet: the executor's stream, which brings it, is not hurt."""
    credentials = Credentials(api_keys=["alice:the-key-of-alice:execute"], executor_tokens=["prod:token"])
    replica = Replica(BrokerSettings(replica_id="replica-1"), store, credentials)
    dispatcher, lookups, lasting, proof = replica.dispatcher, replica.lookups, replica.lasting, replica.proof
    opening, refusals = replica.opening, replica.refusals
    pipes = Pipes(replica.executions, lookups, credentials, lasting, proof, opening, refusals, replica_id="replica-1")
    cancels = CancelCommandsMethod(replica.killing, credentials, replica.audit)
    service = CommandService(replica.executions, lookups, replica.listings, credentials, lasting, proof, pipes, cancels)
    connection = Connection("prod", "e", "i", 1, 4, wire.Capabilities(), wire.Versions(), Timestamp())
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.Event().wait()

    async def write(message: Any) -> None:
        sent.append(message)

    stream: Any = FrameStream(read=never, write=write, pack=list, unpack=list)
    dispatcher.connected(
        connection,
        stream,
        in_flight=(),
        unacked=(),
        held={},
        welcome=lambda verdicts: wire.BrokerFrame(welcome=wire.Welcome()),
    )
    request = command_service_pb2.ExecuteRequest(cluster_id="prod", argv=["get"], command_id=ids.new_id())
    asked = asyncio.create_task(service.Execute(request, Metadata()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    asked.cancel()
    for frame in frames.ran(request.command_id, b"x"):
        dispatcher.received(connection, frame)
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await store.behind.drain(PATIENCE_S)
    assert (await store.results.get(request.command_id)) is not None
    dispatcher.disconnected(connection)


# The same again and again


async def test_who_repeats_a_call_is_told(broker: Any) -> None:
    """In the answer and in what is stored, with a stream's last event as well; a key that brings an answer again
    repeats nothing."""
    executor = await broker.executor()

    async def run(**fields: Any) -> Any:
        asked = broker.execute(**fields)
        await executor.run_one(b"x")
        await executor.expect("result_ack")
        return await asked

    assert (await run(idempotency_key="k")).result.hint == ""
    for _ in range(3):
        again = await broker.execute(idempotency_key="k")
        assert (again.replayed, again.result.hint) == (True, "")
    assert (await run()).result.hint == ""
    answer = await run()
    assert answer.result.hint.startswith("This was asked for 3 times with this key in the last")
    stored = await broker.get(answer.result.command_id)
    assert stored.result.hint == answer.result.hint
    stream = broker.stream(argv=["get", "pods"])
    await executor.run_one(b"x")
    assert (await stream.rest())[-1].result.hint.startswith("This was asked for 4 times")


async def test_who_names_no_conversation_is_known_by_the_key(start_broker: Any) -> None:
    """What an owner's other keys ask for is nobody's repetition, whether it runs or is refused."""
    mine, others = "the-key-of-alice", "another-key-of-alice"
    async with start_broker(extra_keys=[f"alice:{others}:execute+session+read"]) as broker:
        executor = await broker.executor()

        async def ran(key: str, **fields: Any) -> str:
            asked = broker.execute(key=key, **fields)
            await executor.run_one(b"x")
            await executor.expect("result_ack")
            return str((await asked).result.hint)

        async def refused(key: str, **fields: Any) -> str:
            return str((await broker.refused(key=key, cluster_id="nowhere", **fields)).hint)

        for ask in (ran, refused):
            assert [await ask(key) for key in (mine, others, others, mine)] == [""] * 4
            assert "3 times with this key in the last" in await ask(mine)
            # In a conversation it does not matter which key it is: it is one reader's.
            said = [await ask(key, correlation_id="c-1") for key in (mine, others, mine)]
            assert said[:2] == ["", ""]
            assert "3 times in the last" in said[2]


async def test_who_repeats_what_is_denied_is_told(broker: Any) -> None:
    """By the executor or here: in the error's metadata, where a status has room for it."""
    executor = await broker.executor()
    for count in (1, 2, 3):
        asked = broker.execute(argv=["delete", "pod", "x"])
        frame = await executor.expect("execute")
        error = command_pb2.Error(reason="POLICY_DENIED", message="no")
        await executor.send(executor._say.rejected(frame.command_id, error))
        with pytest.raises(OpenlineError) as denied:
            await asked
        await executor.expect("result_ack")
        assert ("will not change by asking again" in denied.value.hint) == (count == 3)
    hints = [(await broker.refused(cluster_id="nowhere")).hint for _ in range(3)]
    assert [bool(hint) for hint in hints] == [False, False, True]
