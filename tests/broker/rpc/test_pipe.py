"""Pipe: many calls over one stream, over real gRPC."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from openline import ids, limits, versions
from openline.errors import OpenlineError
from openline.reasons import NO, UNKNOWN, Reason, reason_of
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as wire

PATIENCE_S = 20.0


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


@pytest.mark.parametrize(("lowest", "highest", "chosen"), [(1, 9, 2), (1, 0, 1)])
async def test_the_highest_version_that_both_speak(
    broker: Any, monkeypatch: pytest.MonkeyPatch, lowest: int, highest: int, chosen: int
) -> None:
    """A caller of 0.1.0 says no highest: it speaks one alone."""
    monkeypatch.setattr(versions, "SPOKEN", versions.Spoken(1, 2))
    pipe = broker.open_pipe()
    await pipe.send(pb.CallerFrame(hello=pb.PipeHello(protocol_version=lowest, max_protocol_version=highest)))
    assert (await pipe.next()).welcome.protocol_version == chosen


async def test_no_version_that_both_speak(broker: Any) -> None:
    """The caller is told what both speak, and which of them is to be upgraded."""
    pipe = broker.open_pipe()
    await pipe.send(pb.CallerFrame(hello=pb.PipeHello(protocol_version=2, max_protocol_version=3)))
    refusal = await pipe.status()
    assert refusal.reason is Reason.VERSION_UNSUPPORTED
    assert "the caller speaks protocol version 2 to 3, this broker 1: upgrade the broker" in refusal.error.message


@pytest.mark.parametrize("client", ["x" * 201, "a\x1b[2J", "a\0", "\u202e"])
async def test_a_client_that_cannot_be_logged(broker: Any, client: str) -> None:
    """Its name is for the logs: what a terminal would act on is refused."""
    pipe = broker.open_pipe()
    await pipe.send(pb.CallerFrame(hello=pb.PipeHello(protocol_version=limits.PROTOCOL_VERSION, client=client)))
    refusal = await pipe.status()
    assert refusal.reason is Reason.PROTOCOL_VIOLATION
    assert "printable" in refusal.error.message


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
    monkeypatch.setattr("broker.rpc.calls.MAX_OPEN_CALLS", 2)
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


async def test_unknown_frames_are_ignored_and_counted(broker: Any, log_lines: list[dict[str, Any]]) -> None:
    """Those of a newer version of the contract; credit is known, and not needed."""
    pipe = await broker.pipe()
    unknown = pb.CallerFrame.FromString(b"\x08\x05\xfa\x3f\x02hi")  # call_id 5, field 1023
    credit = pb.CallerFrame(credit=wire.Credit(bytes=1))
    await pipe.send(unknown, credit, pb.CallerFrame(heartbeat=wire.Heartbeat(seq=1)))
    assert (await pipe.next()).heartbeat_ack.seq == 1
    await pipe.call.done_writing()
    await until(lambda: any(line["event"] == "pipe.closed" for line in log_lines))
    assert [line["unknown_frames"] for line in log_lines if line["event"] == "pipe.closed"] == [1]


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


# Streaming


def stream(call_id: int, **fields: Any) -> pb.CallerFrame:
    frame = execute(call_id, **fields)
    return pb.CallerFrame(call_id=call_id, api_key=frame.api_key, execute_stream=frame.execute)


def watch(call_id: int, command_id: str, *, from_seq: int = 0, key: str = "") -> pb.CallerFrame:
    request = pb.WatchCommandRequest(command_id=command_id, from_seq=from_seq)
    return pb.CallerFrame(call_id=call_id, api_key=key, watch=request)


def cancel(call_id: int, command_id: str, *, key: str = "") -> pb.CallerFrame:
    request = pb.CancelCommandRequest(command_id=command_id)
    return pb.CallerFrame(call_id=call_id, api_key=key, cancel=request)


async def events(pipe: Any, call_id: int) -> list[Any]:
    """A call's events up to its result; frames of other calls are not expected."""
    found = []
    while not found or not found[-1].HasField("result"):
        frame = await pipe.next()
        assert (frame.call_id, frame.WhichOneof("frame")) == (call_id, "event"), frame
        found.append(frame.event)
    return found


async def test_output_comes_as_it_is_written(broker: Any, frames: Any) -> None:
    """Each piece before the next is written, stdout and stderr apart; the result is last and ends the call."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(stream(1))
    name = await executor.begin_one()
    while (event := (await pipe.next()).event).state != command_pb2.COMMAND_STATE_RUNNING:
        assert event.HasField("state")
    for seq, stderr in enumerate([False, True, False]):
        await executor.send(frames.output(name, seq, b"%d" % seq, stderr=stderr))
        output = (await pipe.next()).event.output
        assert (output.seq, output.data) == (seq, b"%d" % seq)
        assert (output.source == command_pb2.OUTPUT_SOURCE_STDERR) is stderr
    await executor.send(frames.finished(name, exit_code=2))
    [last] = await events(pipe, 1)
    assert (last.result.exit_code, last.result.stdout, last.result.stderr) == (2, b"02", b"1")
    await executor.expect("result_ack")
    await broker.inside.nothing_left()
    # The id is free again.
    await pipe.send(execute(1))
    await executor.run_one(b"again")
    assert (await pipe.next()).response.result.stdout == b"again"


async def test_watching_from_a_seq(broker: Any, frames: Any) -> None:
    """What another call started, while it runs and when it is done; and by its owner only."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    asked = broker.stream()
    name = await executor.begin_one()
    await executor.send(*(frames.output(name, seq, b"%d" % seq) for seq in range(3)))
    await asked.output(3)
    await pipe.send(watch(1, name, from_seq=1), watch(2, name, key="the-key-of-bob"), watch(3, name, key="wrong"))
    refused, seen = {}, []
    while len(seen) < 3 or len(refused) < 2:
        frame = await pipe.next()
        if frame.HasField("error"):
            refused[frame.call_id] = reason_of(frame.error)
        else:
            assert frame.call_id == 1
            seen.append(frame.event)
    assert refused == {2: Reason.COMMAND_UNKNOWN, 3: Reason.UNAUTHENTICATED}
    assert [event.output.data for event in seen[1:]] == [b"1", b"2"]
    await executor.send(frames.finished(name))
    assert len(await events(pipe, 1)) == 1
    await executor.expect("result_ack")
    await broker.inside.nothing_left()
    await pipe.send(watch(1, name))
    again = await events(pipe, 1)
    assert [event.output.data for event in again[:-1]] == [b"0", b"1", b"2"]


async def test_cancel_reaches_the_executor(broker: Any, frames: Any) -> None:
    """It answers with the state the command was in; twice is as good as once, and a done one stays as it is."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(execute(1))
    name = await executor.begin_one()
    for call_id in (2, 3):
        await pipe.send(cancel(call_id, name))
        answer = await pipe.next()
        assert (answer.call_id, answer.cancelled.state) == (call_id, command_pb2.COMMAND_STATE_RUNNING)
        assert (await executor.expect("cancel")).command_id == name
    await pipe.send(cancel(4, name, key="the-key-of-bob"))
    assert reason_of((await pipe.next()).error) is Reason.COMMAND_UNKNOWN
    await executor.send(frames.finished(name, outcome=command_pb2.OUTCOME_CANCELLED))
    assert (await pipe.next()).response.result.outcome == command_pb2.OUTCOME_CANCELLED
    await executor.expect("result_ack")
    await pipe.send(cancel(5, name))
    assert (await pipe.next()).cancelled.state == command_pb2.COMMAND_STATE_DONE
    await executor.sync()
    await broker.inside.nothing_left()


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("broken", [False, True])
async def test_who_abandons_a_stream(broker: Any, frames: Any, wanted: bool, broken: bool) -> None:
    """Or whose pipe breaks: the command runs on, unless it asked that it be cancelled; no event follows."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(stream(1, cancel_on_disconnect=wanted))
    name = await executor.begin_one()
    await executor.send(frames.output(name, 0, b"x"))
    while not (await pipe.next()).event.HasField("output"):
        pass
    if broken:
        pipe.call.cancel()
    else:
        await pipe.send(pb.CallerFrame(call_id=1, abandon=pb.Abandon()))
        await pipe.send(pb.CallerFrame(heartbeat=wire.Heartbeat(seq=1)))
        assert (await pipe.next()).HasField("heartbeat_ack")
    if wanted:
        assert (await executor.expect("cancel")).command_id == name
    await executor.send(frames.output(name, 1, b"y"), frames.finished(name))
    assert (await executor.expect("result_ack")).command_id == name
    assert (await broker.get(name)).result.stdout == b"xy"
    await broker.inside.nothing_left()
    if not broken:
        await pipe.send(pb.CallerFrame(heartbeat=wire.Heartbeat(seq=2)))
        assert (await pipe.next()).heartbeat_ack.seq == 2


async def test_an_id_that_is_abandoned_and_used_again_at_once(broker: Any, frames: Any) -> None:
    """The end of the first call does not forget the second one: it ends with its pipe."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    asked = broker.execute()
    name = await executor.begin_one()
    await pipe.send(watch(1, name))
    assert (await pipe.next()).event.state == command_pb2.COMMAND_STATE_RUNNING
    for _ in range(3):
        await pipe.send(pb.CallerFrame(call_id=1, abandon=pb.Abandon()), watch(1, name))
        assert (await pipe.next()).event.state == command_pb2.COMMAND_STATE_RUNNING
    assert broker.inside.left()["tasks of calls"] == 1
    pipe.call.cancel()
    await until(lambda: "watches" not in broker.inside.left())
    await executor.send(frames.finished(name))
    await asked
    await executor.expect("result_ack")
    await broker.inside.nothing_left()


async def test_streaming_calls_are_bounded(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a task. Ordinary calls are not held up by them, and a cancel least of all."""
    monkeypatch.setattr("broker.rpc.calls.MAX_STREAMING_CALLS", 2)
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(stream(1))
    name = await executor.begin_one()
    await pipe.send(watch(2, name))
    await until(lambda: broker.inside.left()["watches"] == 1 and len(broker.inside.parts["Calls"][0]._tasks) == 2)
    await pipe.send(stream(3), watch(4, name), cancel(5, name), execute(6))
    refused, cancelled = {}, None
    while len(refused) < 2 or cancelled is None:
        frame = await pipe.next()
        if frame.HasField("error"):
            refused[frame.call_id] = reason_of(frame.error)
        elif frame.HasField("cancelled"):
            cancelled = frame.call_id
    assert refused == {3: Reason.QUOTA_EXCEEDED, 4: Reason.QUOTA_EXCEEDED}
    assert cancelled == 5
    kinds = {(await executor.next()).WhichOneof("frame") for _ in range(2)}
    assert kinds == {"execute", "cancel"}


async def test_a_pipe_that_is_not_read_is_shown_gaps_and_holds_up_nobody(
    broker: Any, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood costs it no memory, and not its pipe: it is told, to the byte, what it missed."""
    monkeypatch.setattr("broker.rpc.calls.MAX_WAITING_BYTES", 256 << 10)
    executor = await broker.executor()
    pipe = await broker.pipe()
    await pipe.send(stream(1))
    name = await executor.begin_one()
    [calls] = broker.inside.parts["Calls"]
    size, count, most = limits.MAX_FRAME_BYTES, 320, 0
    for first in range(0, count, 4):
        await executor.send(*(frames.output(name, seq, b"x" * size) for seq in range(first, first + 4)))
        await executor.sync()
        most = max(most, calls._stream.waiting_bytes)
    assert most <= (256 << 10) + 2 * size
    other = await broker.pipe()
    await other.send(execute(1))
    await executor.run_one(b"unhurt")
    assert (await other.next()).response.result.stdout == b"unhurt"
    await executor.send(frames.finished(name))
    due = missed = 0
    for event in await events(pipe, 1):
        if event.HasField("output"):
            assert event.output.seq == due
            due += 1
        elif event.HasField("gap"):
            assert event.gap.missed_bytes == (event.gap.next_seq - due) * size
            missed += event.gap.missed_bytes
            due = event.gap.next_seq
    assert due == count
    assert missed > 0


async def test_those_who_abandon_are_not_kept_until_the_end(broker: Any, frames: Any) -> None:
    """A command may run for an hour, and be asked for and given up a thousand times meanwhile."""
    executor = await broker.executor()
    pipe = await broker.pipe()
    name = ids.new_id()
    await pipe.send(execute(1, command_id=name))
    await executor.begin_one()
    for _ in range(20):
        again = [execute(2, command_id=name), pb.CallerFrame(call_id=2, abandon=pb.Abandon())]
        await pipe.send(*again * 50)
    await pipe.send(pb.CallerFrame(heartbeat=wire.Heartbeat(seq=1)))
    assert (await pipe.next()).HasField("heartbeat_ack")
    [dispatcher] = broker.inside.parts["Dispatcher"]
    assert len(dispatcher.audience._waiting[name]) == 1
    await executor.send(frames.finished(name))
    assert (await pipe.next()).call_id == 1


async def test_nothing_is_left_of_anything(broker: Any, frames: Any) -> None:
    """Calls of every kind, answered, refused, abandoned and cut off: every table is empty in the end."""
    executor = await broker.executor(max_concurrency=64)
    pipes = [await broker.pipe() for _ in range(4)]

    async def run_all() -> None:
        for n in itertools.count():
            frame = await executor.next()
            if not frame.HasField("execute"):
                continue
            name = frame.execute.command_id
            match n % 4:
                case 0:
                    await executor.send(frames.rejected(name))
                case 1:
                    await executor.send(frames.accepted(name), frames.finished(name, outcome=99))
                case _:
                    await executor.send(*frames.ran(name, b"x" * 1000))

    running = asyncio.create_task(run_all())
    for n, pipe in enumerate(pipes):
        sent = [ids.new_id() for _ in range(30)]
        said: list[pb.CallerFrame] = []
        for call_id, name in enumerate(sent, start=1):
            fields = {"command_id": name, "cancel_on_disconnect": call_id % 2 == 0}
            match call_id % 5:
                case 0:
                    said.append(stream(call_id, **fields))
                case 1:
                    said.append(execute(call_id, idempotency_key=f"k-{n}-{call_id % 3}", **fields))
                case 2:
                    said.append(execute(call_id, cluster_id="staging", wait_for_cluster_s=0.2, **fields))
                case 3:
                    said.append(stream(call_id, cluster_id="staging", wait_for_cluster_s=60, **fields))
                case 4:
                    said += [execute(call_id, **fields), watch(call_id + 100, name), cancel(call_id + 200, name)]
            if call_id % 3 == 0:
                said.append(pb.CallerFrame(call_id=call_id, abandon=pb.Abandon()))
        said += [cancel(1000 + call_id, name) for call_id, name in enumerate(sent) if call_id % 5 == 2]
        await pipe.send(*said)
    await asyncio.sleep(0.3)
    for pipe in pipes[:2]:
        pipe.call.cancel()
    await asyncio.sleep(0.1)
    # What waits for a cluster that does not come is stopped by an admin.
    [ledger] = broker.inside.parts["Ledger"]
    for name in list(ledger.commands):
        await broker.cancel(name, key="the-key-of-root")
    await broker.inside.nothing_left()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
