"""ExecuteStream and WatchCommand: a command's events as they come, to watchers who read as slowly as they like."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from broker.core.transcript import MAX_RECENT_BYTES
from broker.rpc import commands
from openline import ids
from openline.errors import OpenlineError
from openline.limits import COMMAND_CREDIT_BYTES, MAX_FRAME_BYTES
from openline.reasons import NO, UNKNOWN, Reason
from openline.v1 import command_pb2, command_service_pb2
from openline.v1 import executor_service_pb2 as wire

PATIENCE_S = 20.0
STDOUT, STDERR = command_pb2.OUTPUT_SOURCE_STDOUT, command_pb2.OUTPUT_SOURCE_STDERR
RUNNING = command_pb2.COMMAND_STATE_RUNNING


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


def kinds(events: list[command_pb2.CommandEvent]) -> list[str]:
    return [str(event.WhichOneof("event")) for event in events]


def outputs(events: list[command_pb2.CommandEvent]) -> list[tuple[int, bytes]]:
    return [(event.output.seq, event.output.data) for event in events if event.HasField("output")]


def piece(seq: int) -> bytes:
    """A piece of a flood that tells which one it is; no two neighbours have the same size."""
    return (b"%08d" % seq) * ((MAX_FRAME_BYTES >> 3) - seq % 7)


async def test_output_comes_as_it_is_written(broker: Any, frames: Any) -> None:
    """In order, stdout and stderr apart, each piece before the next is written; then the result, then the end."""
    executor = await broker.executor()
    watcher = broker.stream()
    execute = await executor.expect("execute")
    assert execute.live
    name = execute.command_id
    assert (await watcher.next()).state == command_pb2.COMMAND_STATE_WRITTEN
    await executor.send(frames.accepted(name))
    assert (await watcher.next()).state == command_pb2.COMMAND_STATE_ACCEPTED
    await executor.send(frames.started(name))
    assert (await watcher.next()).state == RUNNING
    for seq, (data, stderr) in enumerate([(b"one\n", False), (b"oops\n", True), (b"\xff\x00", False)]):
        await executor.send(frames.output(name, seq, data, stderr=stderr))
        output = (await watcher.next()).output
        assert (output.command_id, output.seq, output.data) == (name, seq, data)
        assert output.source == (STDERR if stderr else STDOUT)
    await executor.send(frames.finished(name, exit_code=3))
    [last] = await watcher.rest()
    assert (last.result.exit_code, last.result.stdout, last.result.stderr) == (3, b"one\n\xff\x00", b"oops\n")
    assert await watcher.call.code() is grpc.StatusCode.OK
    await executor.expect("result_ack")
    await broker.inside.nothing_left()


async def test_a_command_that_was_not_run_is_an_error(broker: Any) -> None:
    """As with Execute: a status, and no event."""
    for fields, reason in (
        ({}, Reason.CLUSTER_OFFLINE),
        ({"argv": []}, Reason.INVALID_COMMAND),
        ({"cluster_id": "prd"}, Reason.CLUSTER_UNKNOWN),
        ({"key": "wrong"}, Reason.UNAUTHENTICATED),
        ({"key": "the-key-of-carol"}, Reason.SCOPE_MISSING),
        ({"session_id": ids.new_id()}, Reason.SESSION_UNKNOWN),
    ):
        with pytest.raises(OpenlineError) as refusal:
            await broker.stream(**fields).next()
        assert (refusal.value.reason, refusal.value.error.executed) == (reason, NO)
    await broker.inside.nothing_left()


async def test_a_command_that_is_rejected_ends_with_its_result(broker: Any, frames: Any) -> None:
    executor = await broker.executor()
    watcher = broker.stream()
    execute = await executor.expect("execute")
    await executor.send(frames.rejected(execute.command_id))
    events = await watcher.rest()
    assert events[-1].result.outcome == command_pb2.OUTCOME_REJECTED
    assert outputs(events) == []


async def test_only_streaming_calls_are_live(broker: Any) -> None:
    """`logs -f` that nobody reads would hold its place until the deadline."""
    executor = await broker.executor()
    asked = broker.execute()
    assert not (await executor.run_one(b"x")).live
    await asked


async def test_a_live_commands_result_has_head_and_tail(broker: Any, frames: Any) -> None:
    """And says exactly how many bytes and lines are missing between, whatever the executor's summary says."""
    executor = await broker.executor()
    watcher = broker.stream(output_limits={"max_bytes": 1000})
    name = await executor.begin_one()
    lines = [b"line %04d\n" % n for n in range(1000)]
    for seq, line in enumerate(lines):
        await executor.send(frames.output(name, seq, line))
    await executor.send(frames.output(name, 1000, b"oops\n", stderr=True), frames.finished(name))
    events = await watcher.rest()
    whole = b"".join(lines)
    result = events[-1].result
    assert b"".join(data for _, data in outputs(events)) == whole + b"oops\n"
    assert result.stdout == whole[:498] + whole[-497:]
    assert result.stderr == b"oops\n"
    summary = result.stdout_summary
    assert (summary.total_bytes, summary.total_lines) == (10_000, 1000)
    assert (summary.cut_bytes, summary.cut_lines) == (9005, 1000 - result.stdout.count(b"\n"))
    assert (await broker.get(name, wait_s=5)).result == result


async def test_a_stream_may_leave_out_the_output(broker: Any, frames: Any) -> None:
    """States, each with whose it is, and the result with what is kept; also on a pipe."""
    executor = await broker.executor()
    pipe = await broker.pipe()

    async def finish() -> None:
        name = (await executor.expect("execute")).command_id
        await executor.send(
            frames.accepted(name), frames.started(name), frames.output(name, 0, b"out"), frames.finished(name)
        )
        await executor.expect("result_ack")

    stream = broker.stream(without_output=True)
    await finish()
    asked = command_service_pb2.ExecuteRequest(cluster_id="prod", argv=["get", "x"], timeout_s=20, without_output=True)
    await pipe.send(command_service_pb2.CallerFrame(call_id=1, execute_stream=asked))
    await finish()
    of_pipe = [(await pipe.next()).event]
    while not of_pipe[-1].HasField("result"):
        of_pipe.append((await pipe.next()).event)
    for events in (await stream.rest(), of_pipe):
        result = events[-1].result
        assert {event.WhichOneof("event") for event in events[:-1]} == {"state"}
        assert {event.command_id for event in events[:-1]} == {result.command_id}
        assert result.stdout == b"out"


async def test_attaching_in_the_middle(broker: Any, frames: Any) -> None:
    """From the beginning, from the next piece that is due, from one that is still to come."""
    executor = await broker.executor()
    first = broker.stream()
    name = await executor.begin_one()
    await executor.send(*(frames.output(name, seq, b"%d" % seq) for seq in range(4)))
    await first.output(4)
    watchers = [broker.watch(name, from_seq=seq) for seq in (0, 2, 4, 6)]
    for watcher in watchers:
        assert (await watcher.next()).state == RUNNING
    await executor.send(*(frames.output(name, seq, b"%d" % seq) for seq in range(4, 8)), frames.finished(name))
    for watcher, seq in zip(watchers, (0, 2, 4, 6), strict=True):
        events = await watcher.rest()
        assert outputs(events) == [(n, b"%d" % n) for n in range(seq, 8)]
        assert kinds(events)[-1] == "result"
        assert "gap" not in kinds(events)
    await first.rest()
    await broker.inside.nothing_left()


async def test_an_ordinary_command_can_be_watched(broker: Any, frames: Any) -> None:
    """Its output comes at its end, when its executor sends it."""
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    watcher = broker.watch(name)
    assert (await watcher.next()).state == RUNNING
    await executor.send(frames.output(name, 0, b"x"), frames.finished(name))
    assert kinds(await watcher.rest()) == ["output", "result"]
    await asked


async def test_a_command_that_is_done_is_watched_from_the_store(broker: Any, frames: Any) -> None:
    """Its kept output in frames of 64 KiB, stdout before stderr, from any seq on; then the same result."""
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    stdout, stderr = b"o" * (2 * MAX_FRAME_BYTES + 5), b"e" * 10
    chunks = [stdout[start : start + MAX_FRAME_BYTES] for start in range(0, len(stdout), MAX_FRAME_BYTES)]
    said = [frames.output(name, seq, chunk) for seq, chunk in enumerate(chunks)]
    await executor.send(*said, frames.output(name, 3, stderr, stderr=True), frames.finished(name))
    answer = await asked
    await executor.expect("result_ack")
    await broker.inside.nothing_left()
    for from_seq in range(5):
        events = await broker.watch(name, from_seq=from_seq).rest()
        assert outputs(events) == [*enumerate(chunks), (3, stderr)][from_seq:]
        assert events[-1].result == answer.result


async def test_a_live_command_that_is_done_is_shown_as_it_came(broker: Any, frames: Any) -> None:
    """From any seq, in its own frames and order: who was away for the end of it has missed nothing."""
    executor = await broker.executor()
    watcher = broker.stream()
    name = await executor.begin_one()
    stderr = frames.output(name, 1, b"oh")
    stderr.output.source = command_pb2.OUTPUT_SOURCE_STDERR
    await executor.send(frames.output(name, 0, b"a"), stderr, frames.output(name, 2, b"b"), frames.finished(name))
    seen = outputs(await watcher.rest())
    await executor.expect("result_ack")
    for from_seq in range(4):
        events = await broker.watch(name, from_seq=from_seq).rest()
        assert outputs(events) == [*enumerate((b"a", b"oh", b"b"))][from_seq:] == seen[from_seq:]
        assert kinds(events)[-1] == "result"
        assert "gap" not in kinds(events)


async def test_a_live_command_of_which_the_middle_was_cut(broker: Any, frames: Any) -> None:
    """The seqs of what is left are not known any more: somebody who had some of it sees a gap instead."""
    executor = await broker.executor()
    watcher = broker.stream(output_limits=command_pb2.OutputLimits(max_bytes=3))
    name = await executor.begin_one()
    await executor.send(frames.output(name, 0, b"aa"), frames.output(name, 1, b"bb"), frames.finished(name))
    await watcher.rest()
    await executor.expect("result_ack")
    assert kinds(await broker.watch(name).rest()) == ["output", "result"]
    assert kinds(await broker.watch(name, from_seq=1).rest()) == ["gap", "result"]
    had_all = (await broker.get(name)).next_seq
    assert had_all > 1
    assert kinds(await broker.watch(name, from_seq=had_all).rest()) == ["result"]


# Slow watchers


async def test_a_frozen_watcher_holds_up_nobody_and_is_shown_a_gap(broker: Any, frames: Any) -> None:
    """24 MiB pass one that does not read: another one sees every byte, another command is answered at once; and when
    it reads again it is told, to the byte, what it missed."""
    executor = await broker.executor()
    reader = broker.stream()
    name = await executor.begin_one()
    frozen = broker.watch(name)
    assert (await frozen.next()).state == RUNNING
    count, batch = 384, COMMAND_CREDIT_BYTES // MAX_FRAME_BYTES  # as an executor that keeps to its credit
    for first in range(0, count, batch):
        seqs = range(first, first + batch)
        await executor.send(*(frames.output(name, seq, piece(seq)) for seq in seqs))
        expected = b"".join(map(piece, seqs))
        assert await reader.output(len(expected)) == expected
    asked = broker.execute(key="the-key-of-bob")
    await executor.run_one(b"unhurt")
    assert (await asked).result.stdout == b"unhurt"
    await executor.send(frames.finished(name))
    [last] = await reader.rest()
    events = await frozen.rest()
    due, missed = 0, 0
    for event in events[:-1]:
        match event.WhichOneof("event"):
            case "output":
                assert event.output.seq == due
                assert event.output.data == piece(due)
                due += 1
            case "gap":
                assert event.gap.next_seq > due
                assert event.gap.missed_bytes == sum(len(piece(seq)) for seq in range(due, event.gap.next_seq))
                missed += event.gap.missed_bytes
                due = event.gap.next_seq
    assert due == count
    assert missed > 0
    assert events[-1].result == last.result
    assert last.result.stdout_summary.total_bytes == sum(len(piece(seq)) for seq in range(count))


async def test_who_comes_late_is_shown_what_is_gone(broker: Any, frames: Any) -> None:
    """From the beginning, exactly how much; from a seq that is gone, that there is a gap; else there is none."""
    executor = await broker.executor()
    reader = broker.stream()
    name = await executor.begin_one()
    count = 3 * MAX_RECENT_BYTES // MAX_FRAME_BYTES
    for seq in range(count):
        await executor.send(frames.output(name, seq, piece(seq)))
        await reader.output(1)
    late = broker.watch(name)
    assert (await late.next()).state == RUNNING
    gap = (await late.next()).gap
    assert gap.missed_bytes == sum(len(piece(seq)) for seq in range(gap.next_seq))
    assert (await late.next()).output.seq == gap.next_seq
    again = broker.watch(name, from_seq=3)
    await again.next()
    assert (await again.next()).gap.next_seq == gap.next_seq
    here = broker.watch(name, from_seq=count - 2)
    await here.next()
    assert (await here.next()).output.seq == count - 2


async def test_who_attached_in_the_middle_is_told_as_exactly_what_it_missed(broker: Any, frames: Any) -> None:
    executor = await broker.executor()
    reader = broker.stream()
    name = await executor.begin_one()
    await executor.send(*(frames.output(name, seq, piece(seq)) for seq in range(4)))
    await reader.output(sum(len(piece(seq)) for seq in range(4)))
    frozen = broker.watch(name, from_seq=3)
    assert (await frozen.next()).state == RUNNING
    for first in range(4, 388, 4):
        seqs = range(first, first + 4)
        await executor.send(*(frames.output(name, seq, piece(seq)) for seq in seqs))
        await reader.output(sum(len(piece(seq)) for seq in seqs))
    await executor.send(frames.finished(name))
    events = await frozen.rest()
    had = sum(len(data) for _, data in outputs(events))
    missed = sum(event.gap.missed_bytes for event in events if event.HasField("gap"))
    assert had + missed == sum(len(piece(seq)) for seq in range(3, 388))
    assert missed > 0


async def test_live_output_is_granted_credit_as_it_arrives(broker: Any, frames: Any) -> None:
    """Whether or not anybody reads it: a slow watcher does not hold the process up."""
    executor = await broker.executor()
    broker.stream()
    name = await executor.begin_one()
    for seq in range(2 * COMMAND_CREDIT_BYTES // MAX_FRAME_BYTES):
        await executor.send(frames.output(name, seq, b"x" * MAX_FRAME_BYTES))
    await executor.sync()
    assert [(credit.command_id, credit.bytes) for credit in executor.credits if credit.command_id] == [
        (name, COMMAND_CREDIT_BYTES // 2)
    ] * 4


async def test_output_survives_a_reconnect_in_order(broker: Any, frames: Any) -> None:
    """The watcher never notices: what was had before is not shown twice."""
    executor = await broker.executor()
    watcher = broker.stream()
    name = await executor.begin_one()
    await executor.send(frames.output(name, 0, b"a"), frames.output(name, 1, b"b"))
    await watcher.output(2)
    executor.call.cancel()
    again = broker.dial()
    [verdict] = (await again.hello(in_flight_ids=[name])).verdicts
    assert (verdict.action, verdict.next_seq) == (wire.VERDICT_ACTION_KEEP, 2)
    await again.send(frames.output(name, 1, b"b"), frames.output(name, 2, b"c"), frames.finished(name))
    events = await watcher.rest()
    assert outputs(events) == [(2, b"c")]
    assert events[-1].result.stdout == b"abc"


async def test_a_watcher_of_a_command_whose_executor_is_lost_is_told(broker: Any) -> None:
    executor = await broker.executor()
    watcher = broker.stream()
    await executor.begin_one()
    await broker.executor(instance_id="instance-2")
    result = (await watcher.rest())[-1].result
    assert (result.outcome, result.error.executed) == (command_pb2.OUTCOME_LOST, UNKNOWN)


# Callers who leave


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_streaming_caller_who_leaves(broker: Any, frames: Any, cancel: bool) -> None:
    """The command runs on, and can be watched again; with `cancel_on_disconnect` it is stopped."""
    executor = await broker.executor()
    watcher = broker.stream(cancel_on_disconnect=cancel)
    name = await executor.begin_one()
    await executor.send(frames.output(name, 0, b"a"))
    await watcher.output(1)
    watcher.call.cancel()
    if cancel:
        assert (await executor.expect("cancel")).command_id == name
        await executor.send(frames.finished(name, outcome=command_pb2.OUTCOME_CANCELLED))
    else:
        again = broker.watch(name, from_seq=1)
        assert (await again.next()).state == RUNNING
        await executor.send(frames.output(name, 1, b"b"), frames.finished(name))
        assert outputs(await again.rest()) == [(1, b"b")]
    assert (await executor.expect("result_ack")).command_id == name
    await broker.inside.nothing_left()


async def test_a_watcher_who_leaves_does_not_stop_the_command(broker: Any, frames: Any) -> None:
    """Only who asked for it may say that it is to be stopped when they leave."""
    executor = await broker.executor()
    asked = broker.execute(cancel_on_disconnect=True)
    name = await executor.begin_one()
    watcher = broker.watch(name)
    await watcher.next()
    watcher.call.cancel()
    await until(lambda: "watches" not in broker.inside.left())
    await executor.sync()
    await executor.send(*frames.ran(name, b"x"))
    assert (await asked).result.stdout == b"x"


async def test_calls_that_wait_are_bounded(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is refused; it can be had when another one has ended."""
    monkeypatch.setattr(commands, "MAX_WAITING_CALLS", 1)
    async with start_broker() as broker:
        executor = await broker.executor()
        stream = broker.stream()
        name = await executor.begin_one()
        for another in (broker.watch(name), broker.stream()):
            with pytest.raises(OpenlineError) as refusal:
                await another.next()
            assert (refusal.value.reason, refusal.value.error.executed) == (Reason.QUOTA_EXCEEDED, NO)
        stream.call.cancel()
        await broker.inside.until_called(0)
        assert (await broker.watch(name).next()).WhichOneof("event") == "state"


# Who may watch


@pytest.mark.parametrize(
    ("key", "reason"),
    [("the-key-of-bob", Reason.COMMAND_UNKNOWN), ("wrong", Reason.UNAUTHENTICATED), ("the-key-of-root", None)],
)
@pytest.mark.parametrize("done", [False, True])
async def test_only_its_owner_and_admins_see_a_command(
    broker: Any, frames: Any, key: str, reason: Reason | None, done: bool
) -> None:
    """While it runs and afterwards; to anybody else it does not exist."""
    executor = await broker.executor()
    asked = broker.execute()
    name = await executor.begin_one()
    if done:
        await executor.send(frames.finished(name))
        await asked
        await executor.expect("result_ack")
    watcher = broker.watch(name, key=key)
    if reason is None:
        assert (await watcher.next()).WhichOneof("event") == ("result" if done else "state")
    else:
        with pytest.raises(OpenlineError) as refusal:
            await watcher.next()
        assert refusal.value.reason is reason
