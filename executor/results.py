"""What is told about a command: frames for the broker and lines for the log, made from a `Command`. No decisions."""

from executor.actions import Ended, Note, NotStarted
from executor.life import Command, names
from openline.capture import Kept
from openline.errors import error
from openline.reasons import NO, OUTCOME_TEXT, YES, Reason
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

_OUTCOME = {
    Reason.COMMAND_TIMEOUT: command_pb2.OUTCOME_TIMED_OUT,
    Reason.CANCELLED: command_pb2.OUTCOME_CANCELLED,
}
# What a result costs beside its output and what was asked.
_RESULT_BYTES = 1024


def accepted(command_id: str) -> wire.ExecutorFrame:
    return wire.ExecutorFrame(accepted=wire.Accepted(command_id=command_id))


def started(command_id: str) -> wire.ExecutorFrame:
    return wire.ExecutorFrame(started=wire.Started(command_id=command_id))


def said(command: Command) -> list[wire.ExecutorFrame]:
    """What was said of a command when it was taken and started, to be said again: perhaps it has not arrived."""
    taken = [accepted(command.command_id)]
    return [*taken, started(command.command_id)] if command.executed else taken


def rejected(command_id: str, why: command_pb2.Error) -> wire.ExecutorFrame:
    return wire.ExecutorFrame(rejected=wire.Rejected(command_id=command_id, error=why))


def draining(reason: str) -> wire.ExecutorFrame:
    return wire.ExecutorFrame(draining=wire.Draining(reason=reason))


def result_bytes(command: Command) -> int:
    """What keeping the result of a finished command costs."""
    return _RESULT_BYTES + command.execute.ByteSize() + command.report.kept_bytes


def finished(command: Command, end: Ended | NotStarted | None, now: float) -> wire.Finished:
    """How a command ended: stopped, perhaps before it started, refused by the machine, or exited by itself."""
    frame = wire.Finished(command_id=command.command_id)
    frame.timings.queue_s = (now if command.placed_at is None else command.placed_at) - command.received_at
    if isinstance(end, Ended):
        frame.timings.run_s = end.run_s
        frame.finished_at.FromMicroseconds(round(end.finished_at * 1e6))
        frame.stdout_summary.CopyFrom(_summary(end.stdout))
        frame.stderr_summary.CopyFrom(_summary(end.stderr))
        frame.masked_values = end.masked_values
        if command.allowed is not None:
            frame.bounded.extend(command.allowed.bounded)
    if command.stop is not None:
        frame.outcome = _OUTCOME[command.stop.reason]
        executed = YES if command.executed else NO
        frame.error.CopyFrom(error(command.stop.reason, command.stop.message, executed=executed))
    elif isinstance(end, NotStarted):
        frame.outcome = command_pb2.OUTCOME_REJECTED
        frame.error.CopyFrom(error(Reason.EXECUTOR_FAILED, f"kubectl could not be started: {end.why}", executed=NO))
    elif isinstance(end, Ended):
        frame.outcome = command_pb2.OUTCOME_EXITED
        frame.exit_code = end.exit_code
    return frame


def _summary(kept: Kept) -> command_pb2.OutputSummary:
    return command_pb2.OutputSummary(
        total_bytes=kept.total_bytes,
        total_lines=kept.total_lines,
        cut_bytes=kept.cut_bytes,
        cut_lines=kept.cut_lines,
    )


def note(event: str, execute: wire.Execute, *, warning: bool = False, **fields: object) -> Note:
    """A line that concerns a command."""
    return Note(event, names(execute) | fields, warning)


def finished_note(command: Command, frame: wire.Finished) -> Note:
    return note(
        "command.finished",
        command.execute,
        outcome=OUTCOME_TEXT.get(frame.outcome, "unknown"),
        exit_code=frame.exit_code,
        queue_ms=round(frame.timings.queue_s * 1000),
        run_ms=round(frame.timings.run_s * 1000),
        bytes=frame.stdout_summary.total_bytes + frame.stderr_summary.total_bytes,
        masked_values=frame.masked_values,
    )
