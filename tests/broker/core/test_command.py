"""One command: its frame, its output, and the result that is made of it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.account import timed_out
from broker.core.command import Command
from broker.core.life import Event, OutOfOrder, State
from openline import errors
from openline.reasons import NO, UNKNOWN, YES, Reason
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

STDOUT, STDERR = command_pb2.OUTPUT_SOURCE_STDOUT, command_pb2.OUTPUT_SOURCE_STDERR


@pytest.fixture
def running(new_ask: Callable[..., Any]) -> Callable[..., Command]:
    """A command that was asked at 100, written at 101 and runs."""

    def make(**fields: Any) -> Command:
        command = Command(ask=new_ask(**fields), created_at=100.0, asked_at=Timestamp(seconds=1))
        command.written(instance_id="i-1", executor_id="exec-1", now=101.0)
        command.apply(Event.ACCEPTED)
        command.apply(Event.STARTED)
        return command

    return make


def piece(seq: int, data: bytes = b"x", source: "command_pb2.OutputSource.ValueType" = STDOUT) -> command_pb2.Output:
    return command_pb2.Output(seq=seq, data=data, source=source)


def finish(command: Command, *, now: float = 103.0, **fields: Any) -> command_pb2.CommandResult:
    command.finish(wire.Finished(**({"outcome": command_pb2.OUTCOME_EXITED} | fields)), now)
    assert command.result is not None
    return command.result


def test_the_frame_carries_the_time_that_remains(new_ask: Callable[..., Any]) -> None:
    """A deadline travels as time remaining, and is never zero, which would mean something else."""
    command = Command(ask=new_ask(timeout_s=10.0), created_at=100.0, asked_at=Timestamp())
    assert command.frame(104.0).execute.timeout_s == pytest.approx(6.0)
    assert 0 < command.frame(200.0).execute.timeout_s <= 0.001
    # At an instant at which adding the timeout and taking it off again is a little more than it.
    rounded = Command(ask=new_ask(timeout_s=30.0), created_at=2.2, asked_at=Timestamp())
    assert rounded.deadline - 2.2 > 30.0
    assert rounded.frame(2.2).execute.timeout_s == 30.0


def test_the_frame_carries_identity_trace_and_limits(new_ask: Callable[..., Any]) -> None:
    """Everything that the executor may know travels in the frame."""
    asked = new_ask(
        owner="alice", scopes=("execute",), session_id="s", correlation_id="c", traceparent="t", max_output_bytes=99
    )
    execute = Command(ask=asked, created_at=0.0, asked_at=Timestamp()).frame(0.0).execute
    assert (execute.identity.owner, execute.identity.scopes) == ("alice", ["execute"])
    assert (execute.session_id, execute.correlation_id, execute.traceparent) == ("s", "c", "t")
    assert execute.output_limits.max_bytes == 99


def test_output_is_kept_in_order_and_apart(running: Callable[..., Command]) -> None:
    """One count runs over both streams."""
    command = running()
    for output in (piece(0, b"one "), piece(1, b"err", STDERR), piece(2, b"two")):
        command.take(output)
    result = finish(command)
    assert (result.stdout, result.stderr) == (b"one two", b"err")


def test_what_was_bounded_is_handed_on_and_is_short(running: Callable[..., Command]) -> None:
    """An executor may say anything."""
    assert finish(running(), bounded=["--tail=7"]).bounded == ["--tail=7"]
    many = finish(running(), bounded=["x" * 9000] * 900).bounded
    assert (len(many), {*map(len, many)}) == (8, {64})


def test_output_that_was_had_before_changes_nothing(running: Callable[..., Command]) -> None:
    """After a reconnect the executor sends everything again."""
    command = running()
    for seq in (0, 1, 0, 1, 2):
        command.take(piece(seq, str(seq).encode()))
    assert finish(command).stdout == b"012"


def test_a_gap_in_the_output_is_out_of_order(running: Callable[..., Command]) -> None:
    """A missing piece must not go unnoticed."""
    command = running()
    command.take(piece(0))
    with pytest.raises(OutOfOrder, match="output 2 where 1 was due"):
        command.take(piece(2))


def test_output_before_accepted_is_out_of_order(new_ask: Callable[..., Any]) -> None:
    command = Command(ask=new_ask(), created_at=0.0, asked_at=Timestamp())
    command.written(instance_id="i-1", executor_id="exec-1", now=0.0)
    with pytest.raises(OutOfOrder, match="output while written"):
        command.take(piece(0))


def test_output_after_the_end_changes_nothing(running: Callable[..., Command]) -> None:
    command = running()
    command.apply(Event.FINISHED)
    result = finish(command)
    command.take(piece(0, b"late"))
    command.take(piece(7, b"later"))
    assert result.stdout == b""
    assert command.transcript.next_seq == 0


def test_output_beyond_the_cap_is_cut_and_counted(running: Callable[..., Command]) -> None:
    """An executor that does not cut is cut here, over both streams together."""
    command = running(max_output_bytes=5)
    for output in (piece(0, b"abc"), piece(1, b"def", STDERR), piece(2, b"ghi")):
        command.take(output)
    result = finish(
        command,
        stdout_summary=command_pb2.OutputSummary(total_bytes=6),
        stderr_summary=command_pb2.OutputSummary(total_bytes=3),
    )
    assert (result.stdout, result.stderr) == (b"abc", b"de")
    assert (result.stdout_summary.cut_bytes, result.stderr_summary.cut_bytes) == (3, 1)


def test_a_flood_beyond_the_cap_costs_no_memory(running: Callable[..., Command]) -> None:
    """Neither empty pieces nor those that are cut away are kept."""
    command = running(max_output_bytes=3)
    for seq in range(1000):
        command.take(piece(seq, b"" if seq % 2 else b"x"))
    assert finish(command).stdout == b"xxx"
    assert len(command.transcript.since(0)) == 3


def test_a_summary_never_says_less_than_what_arrived(running: Callable[..., Command]) -> None:
    """What the executor says is held against what is here: the sum always adds up."""
    command = running()
    command.take(piece(0, b"12345"))
    lies = command_pb2.OutputSummary(total_bytes=2, cut_bytes=99, total_lines=7, cut_lines=4)
    summary = finish(command, stdout_summary=lies).stdout_summary
    assert (summary.total_bytes, summary.cut_bytes) == (5, 0)


def test_timings_add_up(running: Callable[..., Command]) -> None:
    """What the executor does not account for is the way there and back."""
    timings = finish(running(), timings=command_pb2.Timings(queue_s=0.25, run_s=1.0, return_s=0.25)).timings
    assert timings.total_s == pytest.approx(3.0)
    assert timings.queue_s == pytest.approx(1.25)  # one second here, a quarter there
    assert timings.run_s == pytest.approx(1.0)
    assert timings.deliver_s == pytest.approx(0.5)


def test_timings_where_another_replica_has_sent_it(new_ask: Callable[..., Any]) -> None:
    """Its executor has come here since: it had the command all the time that was waited for it here."""
    command = Command(ask=new_ask(), created_at=100.0, asked_at=Timestamp(seconds=1))
    command.forward("r2", known=True, may_return=False)
    command.resume(instance_id="i-1", executor_id="exec-1")
    timings = finish(command, timings=command_pb2.Timings(run_s=2.5)).timings
    assert (timings.total_s, timings.queue_s, timings.run_s) == (3.0, 0.0, 2.5)
    assert timings.deliver_s == pytest.approx(0.5)


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, -1.0])
def test_times_that_are_none_count_as_zero(running: Callable[..., Command], nonsense: float) -> None:
    """An executor's clock or code may be broken; what is stored can be shown by anyone."""
    said = command_pb2.Timings(queue_s=nonsense, run_s=nonsense, return_s=nonsense)
    timings = finish(running(), timings=said).timings
    assert timings.run_s == timings.return_s == 0.0
    assert timings.queue_s == pytest.approx(1.0)
    assert timings.deliver_s == pytest.approx(2.0)


def test_an_instant_out_of_range_is_left_out(running: Callable[..., Command]) -> None:
    """A Timestamp that no calendar has cannot be shown to anybody."""
    assert not finish(running(), finished_at=Timestamp(seconds=1 << 60)).HasField("observed_at")
    assert not finish(running(), finished_at=Timestamp(seconds=1, nanos=-5)).HasField("observed_at")
    assert finish(running(), finished_at=Timestamp(seconds=1_800_000_000)).observed_at.seconds == 1_800_000_000


def test_a_command_that_ran_and_failed_has_no_error(running: Callable[..., Command]) -> None:
    """A non-zero exit code is a result like any other; an error that came along is not passed on."""
    result = finish(running(), exit_code=1, error=errors.error(Reason.INTERNAL, "x"))
    assert result.exit_code == 1
    assert not result.HasField("error")


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (command_pb2.OUTCOME_TIMED_OUT, Reason.COMMAND_TIMEOUT),
        (command_pb2.OUTCOME_CANCELLED, Reason.CANCELLED),
        (command_pb2.OUTCOME_REJECTED, Reason.EXECUTOR_FAILED),
        (command_pb2.OUTCOME_LOST, Reason.EXECUTOR_LOST),
    ],
)
def test_an_end_without_a_reason_gets_the_usual_one(
    running: Callable[..., Command], outcome: "command_pb2.Outcome.ValueType", reason: Reason
) -> None:
    """Whoever reads the result finds a reason of the table, whatever the executor left out."""
    command = running()
    error = finish(command, outcome=outcome).error
    assert error.reason == reason
    assert error.message
    assert error.executed != command_pb2.EXECUTED_UNSPECIFIED
    assert error.metadata["command_id"] == command.command_id


def test_an_executors_error_is_bounded(running: Callable[..., Command]) -> None:
    """It travels on in a status, which has no room for a novel."""
    said = errors.error(
        Reason.CANCELLED, "x" * 100_000, executed=YES, metadata={str(n): "y" * 1000 for n in range(100)}
    )
    error = finish(running(), outcome=command_pb2.OUTCOME_CANCELLED, error=said).error
    assert error.ByteSize() < 8192
    assert (error.reason, error.executed) == (Reason.CANCELLED, YES)


def test_a_command_without_finished_has_its_output_so_far(running: Callable[..., Command]) -> None:
    command = running()
    command.take(piece(0, b"one\ntwo\n"))
    command.end(command_pb2.OUTCOME_TIMED_OUT, timed_out(command), 161.0)
    assert command.result is not None
    assert command.result.stdout == b"one\ntwo\n"
    assert (command.result.stdout_summary.total_bytes, command.result.stdout_summary.total_lines) == (8, 2)
    assert command.result.error.metadata["command_id"] == command.command_id


@pytest.mark.parametrize(
    ("events", "executed"),
    [
        ((), NO),
        ((Event.WRITTEN,), UNKNOWN),
        ((Event.WRITTEN, Event.ACCEPTED), UNKNOWN),
        ((Event.WRITTEN, Event.ACCEPTED, Event.STARTED), YES),
    ],
)
def test_what_is_said_of_a_deadline_is_what_is_known(
    new_ask: Callable[..., Any], events: tuple[Event, ...], executed: "command_pb2.Executed.ValueType"
) -> None:
    """`executed` is yes only when the executor said Started: an accepted command may have waited for its place."""
    command = Command(ask=new_ask(), created_at=0.0, asked_at=Timestamp())
    for event in events:
        command.apply(event)
    assert timed_out(command).executed == executed


def test_it_ends_once(running: Callable[..., Command]) -> None:
    """`apply` says which event ended the command; one after that does not."""
    command = running()
    assert command.apply(Event.FINISHED)
    assert not command.apply(Event.FINISHED)
    assert command.state is State.DONE


def test_its_repr_says_where_it_is_and_not_what(running: Callable[..., Command]) -> None:
    """Arguments may be secret."""
    command = running(argv=("get", "secret-thing"))
    assert repr(command) == f"<Command {command.command_id} RUNNING on exec-1>"
