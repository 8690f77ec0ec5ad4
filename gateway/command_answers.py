"""Contract to REST for /v1's commands, in the shapes of `command_models`."""

from gateway.answers import as_text, instant
from gateway.command_models import (
    CommandAnswer,
    End,
    FailureAnswer,
    LinksAnswer,
    OutputAnswer,
    State,
    TimingsAnswer,
)
from openline.reasons import EXECUTED_TEXT
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest

STATES: dict[command_pb2.CommandState.ValueType, State] = {
    command_pb2.COMMAND_STATE_QUEUED: "queued",
    command_pb2.COMMAND_STATE_FORWARDED: "forwarded",
    command_pb2.COMMAND_STATE_WRITTEN: "written",
    command_pb2.COMMAND_STATE_ACCEPTED: "accepted",
    command_pb2.COMMAND_STATE_RUNNING: "running",
    command_pb2.COMMAND_STATE_DONE: "done",
}
ENDS: dict[command_pb2.Outcome.ValueType, End] = {
    command_pb2.OUTCOME_EXITED: "exited",
    command_pb2.OUTCOME_TIMED_OUT: "timed_out",
    command_pb2.OUTCOME_CANCELLED: "cancelled",
    command_pb2.OUTCOME_LOST: "lost",
    command_pb2.OUTCOME_REJECTED: "rejected",
}


def state_name(state: command_pb2.CommandState.ValueType) -> State:
    """One that this version does not know is before the end."""
    return STATES.get(state, "queued")


def done(result: command_pb2.CommandResult, request: ExecuteRequest) -> command_pb2.Command:
    """The command that a request became, with its result."""
    return command_pb2.Command(
        command_id=result.command_id or request.command_id,
        cluster_id=request.cluster_id,
        session_id=request.session_id,
        correlation_id=request.correlation_id,
        state=command_pb2.COMMAND_STATE_DONE,
        argv=request.argv,
        created_at=result.created_at if result.HasField("created_at") else None,
        result=result,
    )


def command_answer(command: command_pb2.Command) -> CommandAnswer:
    place = f"/v1/commands/{command.command_id}"
    result = command.result if command.HasField("result") else None
    exited = result is not None and result.outcome == command_pb2.OUTCOME_EXITED
    stdout, stdout_replaced = as_text(result.stdout) if result else (None, False)
    stderr, stderr_replaced = as_text(result.stderr) if result else (None, False)
    return CommandAnswer(
        command_id=command.command_id,
        cluster_id=command.cluster_id,
        session_id=command.session_id or None,
        correlation_id=command.correlation_id or None,
        argv=list(command.argv) or None,
        state="done" if result else state_name(command.state),
        outcome=ENDS.get(result.outcome) if result else None,
        exit_code=result.exit_code if result and exited else None,
        success=exited and result.exit_code == 0 if result else None,
        error=_failure(result.error) if result and not exited else None,
        stdout=stdout,
        stderr=stderr,
        truncated=bool(result.stdout_summary.cut_bytes or result.stderr_summary.cut_bytes) if result else None,
        encoding_replaced=stdout_replaced or stderr_replaced if result else None,
        stdout_summary=_output(result.stdout_summary) if result else None,
        stderr_summary=_output(result.stderr_summary) if result else None,
        timings=_timings(result.timings) if result else None,
        created_at=instant(command.created_at) or (instant(result.created_at) if result else None),
        finished_at=instant(result.observed_at) if result else None,
        links=LinksAnswer(self=place, output=f"{place}/output", events=f"{place}/events"),
    )


def _failure(error: command_pb2.Error) -> FailureAnswer:
    executed = EXECUTED_TEXT.get(error.executed, "unknown")
    return FailureAnswer(reason=error.reason, message=error.message, executed=executed)


def _output(summary: command_pb2.OutputSummary) -> OutputAnswer:
    return OutputAnswer(
        total_bytes=summary.total_bytes,
        total_lines=summary.total_lines,
        cut_bytes=summary.cut_bytes,
        cut_lines=summary.cut_lines,
    )


def _timings(timings: command_pb2.Timings) -> TimingsAnswer:
    return TimingsAnswer(queue_ms=_ms(timings.queue_s), run_ms=_ms(timings.run_s), total_ms=_ms(timings.total_s))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
