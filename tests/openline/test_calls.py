"""Events that wait to be fetched, what a cursor shows of them, and which replica is asked: without a server."""

import asyncio

import pytest

from openline import events
from openline.asking import CLAIMED, attach_elsewhere, find_elsewhere, less, more_telling, run_elsewhere
from openline.calls import Answer
from openline.cursor import Cursor
from openline.errors import OpenlineError, error
from openline.events import Events, Space
from openline.reasons import NO, UNKNOWN, Reason
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb

QUEUED, RUNNING = command_pb2.COMMAND_STATE_QUEUED, command_pb2.COMMAND_STATE_RUNNING


def output(seq: int, data: bytes = b"x", *, command_id: str = "") -> command_pb2.CommandEvent:
    return command_pb2.CommandEvent(
        output=command_pb2.Output(command_id=command_id, seq=seq, source=command_pb2.OUTPUT_SOURCE_STDOUT, data=data)
    )


def gap(next_seq: int, missed_bytes: int = 0) -> command_pb2.CommandEvent:
    return command_pb2.CommandEvent(gap=command_pb2.OutputGap(next_seq=next_seq, missed_bytes=missed_bytes))


def state(value: command_pb2.CommandState.ValueType) -> command_pb2.CommandEvent:
    return command_pb2.CommandEvent(state=value)


def result(command_id: str = "c") -> command_pb2.CommandEvent:
    return command_pb2.CommandEvent(result=command_pb2.CommandResult(command_id=command_id))


def arrive(call: Events, *happened: command_pb2.CommandEvent) -> None:
    for event in happened:
        assert call.take("event", pb.ReplyFrame(event=event))


async def fetched(call: Events) -> list[command_pb2.CommandEvent]:
    """What can be had without waiting, to the end."""
    async with asyncio.timeout(5):
        got: list[command_pb2.CommandEvent] = []
        while (event := await call.fetch()) is not None:
            got.append(event)
        return got


# Events that wait


async def test_events_come_in_order_and_end_with_the_result() -> None:
    """What comes after the result means nothing, and the space is given back."""
    space = Space()
    call = Events(space)
    happened = [state(QUEUED), output(0), state(RUNNING), output(1), result()]
    arrive(call, *happened, output(2), result())
    assert call.is_done
    assert await fetched(call) == happened
    assert space.used_bytes == 0


async def test_a_failure_comes_after_what_came_before_it() -> None:
    """Events that were there when the stream broke are not lost with it."""
    call = Events(Space())
    arrive(call, output(0))
    call.fail(OpenlineError(error(Reason.BROKER_UNAVAILABLE, "gone")))
    assert await call.fetch() == output(0)
    with pytest.raises(OpenlineError, match="gone"):
        await call.fetch()


async def test_what_is_not_fetched_becomes_one_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound output is counted, not kept; the gap is told when the caller has caught up, and the state."""
    monkeypatch.setattr(events, "MAX_WAITING_BYTES", 5000)
    space = Space()
    call = Events(space)
    arrive(call, *(output(seq, b"x" * 1000) for seq in range(100)), state(RUNNING), gap(110, 7))
    assert space.used_bytes <= 5000
    kept = [await call.fetch() for _ in range(3)]
    assert kept == [output(seq, b"x" * 1000) for seq in range(3)]
    arrive(call, output(110))
    assert await call.fetch() == gap(110, 97_007)
    assert await call.fetch() == state(RUNNING)
    assert await call.fetch() == output(110)
    arrive(call, result())
    assert await fetched(call) == [result()]


async def test_whoever_is_behind_still_gets_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Result and failure are kept whatever waits, with the gap in front."""
    monkeypatch.setattr(events, "MAX_WAITING_BYTES", 1500)
    for is_failed in (False, True):
        call = Events(Space())
        arrive(call, output(0, b"x" * 1000), output(1, b"x" * 1000), output(2, b"x" * 10))
        if is_failed:
            call.fail(OpenlineError(error(Reason.EXECUTOR_LOST, "gone")))
        else:
            arrive(call, result())
        assert await call.fetch() == output(0, b"x" * 1000)
        assert await call.fetch() == gap(3, 1010)
        if is_failed:
            with pytest.raises(OpenlineError):
                await call.fetch()
        else:
            assert await call.fetch() == result()


async def test_slow_callers_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the calls of a pipe keep all they may together, one that has fetched everything still gets one at a time."""
    monkeypatch.setattr(events, "MAX_ALL_WAITING_BYTES", 3000)
    space = Space()
    slow, quick = Events(space), Events(space)
    arrive(slow, *(output(seq, b"x" * 1000) for seq in range(10)))
    for seq in range(20):
        arrive(quick, output(seq, b"y" * 1000))
        assert await quick.fetch() == output(seq, b"y" * 1000)
    slow.close()
    assert space.used_bytes == 0


async def test_a_call_that_is_closed_keeps_nothing() -> None:
    """Events that come before the broker has heard that nobody waits are dropped."""
    space = Space()
    call = Events(space)
    arrive(call, output(0))
    call.close()
    arrive(call, output(1))
    assert (space.used_bytes, call.is_done) == (0, True)


async def test_each_kind_of_call_takes_its_own_frames() -> None:
    """Anything else is not taken, and changes nothing."""
    answer, call = Answer("cancelled"), Events(Space())
    for kind in ("event", "response"):
        assert not answer.take(kind, pb.ReplyFrame())
        assert not call.take(kind, pb.ReplyFrame())
    assert {answer.is_done, call.is_done} == {False}
    assert answer.take("cancelled", pb.ReplyFrame())
    assert answer.take("cancelled", pb.ReplyFrame()), "late, and of no effect"


# What a cursor shows


@pytest.mark.parametrize(
    ("happened", "shown"),
    [
        pytest.param([output(0), output(1)], [output(0), output(1)], id="in order"),
        pytest.param([output(0), output(1), output(0), output(1), output(2)], [output(0), output(1), output(2)],
                     id="what was shown is not shown again"),
        pytest.param([output(0), output(3)], [output(0), gap(3), output(3)], id="what was left out unsaid is said"),
        pytest.param([output(0), gap(3, 9), output(3)], [output(0), gap(3, 9), output(3)], id="a gap is passed on"),
        pytest.param([output(0), gap(1, 9), output(1)], [output(0), gap(1, 9), output(1)],
                     id="bytes that never had a seq"),
        pytest.param([gap(3, 9), gap(3, 9), output(3)], [gap(3, 9), output(3)], id="a gap is told once"),
        pytest.param([output(0), output(1), gap(1, 9), output(1)], [output(0), output(1)], id="a gap in the past"),
        pytest.param([state(QUEUED), state(QUEUED), state(RUNNING)], [state(QUEUED), state(RUNNING)],
                     id="a state that is no news"),
    ],
)  # fmt: skip
def test_a_cursor_shows_each_thing_once(
    happened: list[command_pb2.CommandEvent], shown: list[command_pb2.CommandEvent]
) -> None:
    """Whatever a second stream repeats or leaves out, the caller sees each output once and hears of each gap."""
    cursor = Cursor("c")
    assert [event for each in happened for event in cursor.show(each)] == shown


def test_a_cursor_learns_the_commands_id() -> None:
    """An idempotency key may stand for an older command: that one is to be found again."""
    cursor = Cursor("mine")
    cursor.show(output(0, command_id="older"))
    assert (cursor.command_id, cursor.next_seq) == ("older", 1)


# Whom to ask


def failure(reason: Reason, executed: command_pb2.Executed.ValueType | None = None, **metadata: str) -> OpenlineError:
    return OpenlineError(error(reason, "no", executed=executed, metadata=metadata))


def test_another_replica_is_asked_to_run_only_what_has_not_run() -> None:
    """And to find a command whenever this one does not know it."""
    assert run_elsewhere(failure(Reason.CLUSTER_OFFLINE))
    assert run_elsewhere(failure(Reason.BROKER_UNAVAILABLE, NO))
    assert not run_elsewhere(failure(Reason.BROKER_UNAVAILABLE, UNKNOWN))
    assert not run_elsewhere(failure(Reason.CLUSTER_BUSY))
    assert not run_elsewhere(failure(Reason.EXECUTOR_LOST, **{CLAIMED: "c"}))
    assert attach_elsewhere(failure(Reason.EXECUTOR_LOST, **{CLAIMED: "c"}))
    assert not attach_elsewhere(failure(Reason.EXECUTOR_LOST))
    assert find_elsewhere(failure(Reason.COMMAND_UNKNOWN))
    assert find_elsewhere(failure(Reason.BROKER_UNAVAILABLE, UNKNOWN))
    assert not find_elsewhere(failure(Reason.SCOPE_MISSING))


def test_a_replica_that_was_not_reached_may_know_more() -> None:
    """That no other one knows the command is not told as if it were sure; that its result has expired is."""
    unknown, away = failure(Reason.COMMAND_UNKNOWN), failure(Reason.BROKER_UNAVAILABLE, UNKNOWN)
    expired = failure(Reason.RESULT_EXPIRED)
    assert more_telling(unknown, away) is away
    assert more_telling(away, unknown) is away
    assert more_telling(more_telling(None, expired), away) is expired


@pytest.mark.parametrize(
    ("elapsed_s", "bound_s", "timeout_s", "wait_s"),
    [(0.0, None, 10.0, 5.0), (0.0, 0.0, 10.0, 0.0), (2.0, None, 10.0, 3.0), (2.0, 1.0, 10.0, 1.0),
     (7.0, None, 8.0, 0.0), (60.0, None, 0.001, 0.0)],
)  # fmt: skip
def test_time_that_passed_is_taken_off(
    elapsed_s: float, bound_s: float | None, timeout_s: float, wait_s: float
) -> None:
    """First off the wait for the cluster, which is apart from the run's own time; never down to the default."""
    request = pb.ExecuteRequest(timeout_s=10, wait_for_cluster_s=5)
    asked = less(request, elapsed_s, wait_s=bound_s)
    assert (asked.timeout_s, asked.wait_for_cluster_s) == (timeout_s, wait_s)
