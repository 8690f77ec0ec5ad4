"""Pipe: many calls over one stream, over real gRPC."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from openline import ids, limits
from openline.errors import OpenlineError
from openline.reasons import NO, UNKNOWN, Reason, reason_of
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as wire

PATIENCE_S = 10.0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


def execute(call_id: int, **fields: Any) -> pb.CallerFrame:
    key = fields.pop("api_key", "")
    usual = {"cluster_id": "prod", "argv": ["get", "pods"], "timeout_s": 20}
    return pb.CallerFrame(call_id=call_id, api_key=key, execute=pb.ExecuteRequest(**(usual | fields)))


# Handshake


async def test_welcome(broker: Any) -> None:
    pipe = broker.open_pipe()
    hello = pb.PipeHello(protocol_version=limits.PROTOCOL_VERSION, client="test/1 (of ours)")
    await pipe.send(pb.CallerFrame(hello=hello))
    welcome = (await pipe.next()).welcome
    assert (welcome.protocol_version, welcome.replica_id) == (limits.PROTOCOL_VERSION, "replica-1")
    assert welcome.heartbeat_timeout_s > welcome.heartbeat_interval_s > 0


async def test_no_hello_in_time(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HELLO_TIMEOUT_S", 0.1)
    refusal = await broker.open_pipe().status()
    assert refusal.reason is Reason.PROTOCOL_VIOLATION
    assert "no PipeHello within 0.1 s" in refusal.error.message


@pytest.mark.parametrize("frame", [execute(1), pb.CallerFrame(heartbeat=wire.Heartbeat()), pb.CallerFrame()])
async def test_something_else_before_hello(broker: Any, frame: pb.CallerFrame) -> None:
    pipe = broker.open_pipe()
    await pipe.send(frame)
    assert (await pipe.status()).reason is Reason.PROTOCOL_VIOLATION


async def test_an_unknown_version(broker: Any) -> None:
    pipe = broker.open_pipe()
    with pytest.raises(OpenlineError, match="protocol version 9"):
        await pipe.hello(version=9)
    assert await pipe.call.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_an_endless_client_name(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """It goes into the logs."""
    pipe = broker.open_pipe()
    with pytest.raises(OpenlineError, match="client"):
        await pipe.hello(client="x" * 100_000)
    assert "xxx" not in str(log_lines)


async def test_a_second_hello_is_refused_and_the_pipe_goes_on(broker: Any) -> None:
    pipe = await broker.pipe()
    await pipe.send(pb.CallerFrame(hello=pb.PipeHello()), pb.CallerFrame(heartbeat=wire.Heartbeat(seq=3)))
    assert reason_of((await pipe.next()).error) is Reason.PROTOCOL_VIOLATION
    assert (await pipe.next()).heartbeat_ack.seq == 3


async def test_bytes_that_are_no_message(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    call = broker.channel().stream_stream(
        "/openline.v1.CommandService/Pipe", request_serializer=bytes, response_deserializer=bytes
    )()
    hello = pb.PipeHello(protocol_version=1)
    await call.write(pb.PipeRequest(frames=[pb.CallerFrame(hello=hello)]).SerializeToString())
    await call.read()
    await call.write(b"\xff\xff\xff")
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    await until(lambda: any(line["event"] == "pipe.closed" for line in log_lines))
    assert [line for line in log_lines if line["log_level"] == "error"] == []


# Calls


async def test_many_calls_interleave_over_two_executors(broker: Any, frames: Any) -> None:
    """Each answer finds its call, whichever executor ran it and in whatever order they come."""
    executors = [
        await broker.executor(executor_id="a", instance_id="a", max_concurrency=200),
        await broker.executor(executor_id="b", instance_id="b", max_concurrency=200),
    ]
    pipe = await broker.pipe(key=None)
    count = 300
    asked = [
        execute(n, argv=["get", str(n)], api_key="the-key-of-alice", correlation_id=f"c-{n}")
        for n in range(1, count + 1)
    ]
    await pipe.send(*asked[:200])
    await pipe.send(*asked[200:])

    async def serve(executor: Any, share: int) -> None:
        held = [await executor.expect("execute") for _ in range(share)]
        for command in reversed(held):
            await executor.send(*frames.ran(command.command_id, command.argv[1].encode()))

    await asyncio.gather(*(serve(executor, count // 2) for executor in executors))
    answers = [await pipe.next() for _ in range(count)]
    assert sorted(answer.call_id for answer in answers) == list(range(1, count + 1))
    for answer in answers:
        assert answer.response.result.stdout == str(answer.call_id).encode()
        assert answer.response.result.correlation_id == f"c-{answer.call_id}"


async def test_each_frame_shows_its_own_callers_key(broker: Any) -> None:
    """The pipe's own key is for frames that bring none."""
    executor = await broker.executor()
    pipe = await broker.pipe(key="the-key-of-bob")
    await pipe.send(
        execute(1, api_key="the-key-of-alice"),
        execute(2),
        execute(3, api_key="wrong"),
        execute(4, api_key="the-key-of-carol"),
    )
    refused = {frame.call_id: reason_of(frame.error) for frame in [await pipe.next(), await pipe.next()]}
    assert refused == {3: Reason.UNAUTHENTICATED, 4: Reason.SCOPE_MISSING}
    assert [(await executor.expect("execute")).identity.owner for _ in range(2)] == ["alice", "bob"]


async def test_a_pipe_without_any_key(broker: Any) -> None:
    pipe = await broker.pipe(key=None)
    await pipe.send(execute(1))
    assert reason_of((await pipe.next()).error) is Reason.UNAUTHENTICATED


async def test_a_command_that_was_not_run_is_an_error_frame(broker: Any) -> None:
    """And a command that ended without an exit code is a response with an error in its result."""
    pipe = await broker.pipe()
    await pipe.send(execute(1), execute(2, argv=[]), execute(3, cluster_id="prd"))
    refused = {frame.call_id: frame.error for frame in [await pipe.next() for _ in range(3)]}
    assert {call_id: reason_of(error) for call_id, error in refused.items()} == {
        1: Reason.CLUSTER_OFFLINE,
        2: Reason.INVALID_COMMAND,
        3: Reason.CLUSTER_UNKNOWN,
    }
    assert refused[1].retry_after_s > 0
    assert {error.executed for error in refused.values()} == {NO}


async def test_a_call_id_in_use(broker: Any, frames: Any) -> None:
    """The second call is refused, and nobody is told that the first one has not run; the first one is answered."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(execute(1))
    command = await executor.expect("execute")
    await pipe.send(execute(1))
    refused = await pipe.next()
    assert (refused.call_id, reason_of(refused.error)) == (1, Reason.PROTOCOL_VIOLATION)
    assert refused.error.executed == UNKNOWN
    await executor.send(*frames.ran(command.command_id))
    assert (await pipe.next()).HasField("response")
    # Answered: the id is free again.
    await executor.expect("result_ack")
    await pipe.send(execute(1))
    await executor.run_one(b"again")
    assert (await pipe.next()).response.result.stdout == b"again"


async def test_call_id_zero_is_the_pipes_own(broker: Any) -> None:
    pipe = await broker.pipe()
    await pipe.send(execute(0))
    refused = await pipe.next()
    assert reason_of(refused.error) is Reason.PROTOCOL_VIOLATION
    assert refused.error.executed == NO


async def test_open_calls_are_bounded(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.rpc.pipe.MAX_OPEN_CALLS", 2)
    await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(execute(1), execute(2), execute(3))
    refused = await pipe.next()
    assert (refused.call_id, reason_of(refused.error)) == (3, Reason.QUOTA_EXCEEDED)


async def test_an_abandoned_call_is_not_answered_and_runs_on(broker: Any, frames: Any) -> None:
    """Its id is free, its result is stored, and the executor is not told to stop."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(execute(1))
    command = await executor.expect("execute")
    await pipe.send(pb.CallerFrame(call_id=1, abandon=pb.Abandon()), pb.CallerFrame(call_id=77, abandon=pb.Abandon()))
    await pipe.send(pb.CallerFrame(heartbeat=wire.Heartbeat(seq=1)))
    assert (await pipe.next()).HasField("heartbeat_ack")
    await executor.send(*frames.ran(command.command_id, b"x"))
    assert (await executor.expect("result_ack")).command_id == command.command_id
    assert (await broker.store.results.get(command.command_id)).result.stdout == b"x"
    await pipe.send(pb.CallerFrame(heartbeat=wire.Heartbeat(seq=2)))
    assert (await pipe.next()).heartbeat_ack.seq == 2


async def test_an_abandoned_call_that_asked_for_it_is_cancelled(broker: Any) -> None:
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(execute(1, cancel_on_disconnect=True))
    command = await executor.expect("execute")
    await pipe.send(pb.CallerFrame(call_id=1, abandon=pb.Abandon()))
    assert (await executor.expect("cancel")).command_id == command.command_id


async def test_a_broken_pipe_lets_its_commands_run_on(
    broker: Any, frames: Any, log_lines: list[dict[str, Any]]
) -> None:
    """Those that asked for it are cancelled; of the others, the results are stored."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(execute(1), execute(2, cancel_on_disconnect=True))
    runs_on, cancelled = await executor.expect("execute"), await executor.expect("execute")
    pipe.call.cancel()
    assert (await executor.expect("cancel")).command_id == cancelled.command_id
    await executor.send(*frames.ran(runs_on.command_id, b"x"))
    await executor.expect("result_ack")
    assert (await broker.store.results.get(runs_on.command_id)).result.stdout == b"x"
    await until(lambda: any(line["event"] == "pipe.closed" for line in log_lines))
    assert [line for line in log_lines if line["log_level"] == "error"] == []


async def test_unknown_frames_are_ignored(broker: Any) -> None:
    """Those of a newer version of the contract."""
    pipe = await broker.pipe()
    unknown = pb.CallerFrame.FromString(b"\x08\x05\xfa\x3f\x02hi")  # call_id 5, field 1023
    await pipe.send(unknown, pb.CallerFrame(heartbeat=wire.Heartbeat(seq=1)))
    assert (await pipe.next()).heartbeat_ack.seq == 1


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ({"execute_stream": pb.ExecuteRequest()}, Reason.CLUSTER_UNKNOWN),
        ({"execute_stream": pb.ExecuteRequest(cluster_id="prod")}, Reason.INVALID_COMMAND),
        ({"watch": pb.WatchCommandRequest()}, Reason.INVALID_COMMAND),
        ({"watch": pb.WatchCommandRequest(command_id=ids.new_id())}, Reason.COMMAND_UNKNOWN),
        ({"cancel": pb.CancelCommandRequest()}, Reason.INVALID_COMMAND),
        ({"cancel": pb.CancelCommandRequest(command_id=ids.new_id())}, Reason.COMMAND_UNKNOWN),
    ],
)
async def test_frames_that_ask_for_what_cannot_be_are_answered(
    broker: Any, frame: dict[str, Any], reason: Reason
) -> None:
    """Nobody waits for an answer that will not come."""
    pipe = await broker.pipe()
    await pipe.send(pb.CallerFrame(call_id=9, **frame))
    answer = await pipe.next()
    assert (answer.call_id, reason_of(answer.error)) == (9, reason)


async def test_credit_does_not_end_its_call(broker: Any) -> None:
    """It belongs to a call that is open; an error with its id would be taken for the end of that."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(execute(1), pb.CallerFrame(call_id=1, credit=wire.Credit(bytes=1)))
    await executor.run_one(b"x")
    assert (await pipe.next()).response.result.stdout == b"x"


async def test_a_frozen_caller_is_noticed(
    broker: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(limits, "HEARTBEAT_TIMEOUT_S", 0.3)
    pipe = await broker.pipe()
    with pytest.raises(OpenlineError, match=r"no frame for 0\.3 s"):
        await pipe.next()
    assert await pipe.call.code() is grpc.StatusCode.ABORTED
    await until(lambda: any("no frame" in str(line.get("why")) for line in log_lines))


async def test_a_caller_that_does_not_read_costs_its_own_pipe_only(
    broker: Any, frames: Any, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    """Beyond the bound its pipe is given up at once, though it still talks."""
    monkeypatch.setattr("openline.outbox.MAX_WAITING_BYTES", 4 << 20)
    executor = await broker.executor()
    pipe = await broker.pipe()

    async def run_all() -> None:
        while True:
            execute_ = await executor.next()
            if execute_.HasField("execute"):
                name = execute_.execute.command_id
                pieces = [frames.output(name, n, b"x" * (64 << 10)) for n in range(16)]
                await executor.send(frames.accepted(name), *pieces, frames.finished(name))

    running = asyncio.create_task(run_all())
    for call_id in range(1, 21):
        await pipe.send(execute(call_id))
    await until(lambda: any("peer that does not read" in str(line.get("why")) for line in log_lines))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await broker.pipe()) is not None
