"""Contract to REST for /v1's commands, in the shapes of `command_models`."""

from dataclasses import dataclass

from gateway.answers import age_s, as_text, correlation_id_of, instant, served_from, timings_answer
from gateway.command_models import CommandAnswer, CommandListed, End, FailureAnswer, LinksAnswer, OutputAnswer, State
from gateway.cursors import Cursor, write_cursor
from gateway.digests import digest_of, is_cut
from gateway.shaping import WHOLE, Shaping, shape
from gateway.shaping_models import ShapingAnswer
from openline.errors import next_step
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
# Not with an executor yet: it may still be refused.
NO_NEWS = frozenset(
    {
        command_pb2.COMMAND_STATE_UNSPECIFIED,
        command_pb2.COMMAND_STATE_QUEUED,
        command_pb2.COMMAND_STATE_WRITTEN,
        command_pb2.COMMAND_STATE_FORWARDED,
    }
)
ENDS: dict[command_pb2.Outcome.ValueType, End] = {
    command_pb2.OUTCOME_EXITED: "exited",
    command_pb2.OUTCOME_TIMED_OUT: "timed_out",
    command_pb2.OUTCOME_CANCELLED: "cancelled",
    command_pb2.OUTCOME_LOST: "lost",
    command_pb2.OUTCOME_REJECTED: "rejected",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants of a command's output."""

    shaping: Shaping = WHOLE
    # Where the page begins.
    offset: int = 0
    # The digest of what the caller has.
    unchanged_since: str | None = None


ALL = Wish()


def state_name(state: command_pb2.CommandState.ValueType) -> State:
    """One that this version does not know is before the end."""
    return STATES.get(state, "queued")


def done(result: command_pb2.CommandResult, request: ExecuteRequest) -> command_pb2.Command:
    """The command that a request became, with its result."""
    return command_pb2.Command(
        command_id=result.command_id or request.command_id,
        cluster_id=request.cluster_id or result.cluster_id,
        session_id=request.session_id,
        correlation_id=correlation_id_of(result, request),
        state=command_pb2.COMMAND_STATE_DONE,
        argv=request.argv,
        created_at=result.created_at if result.HasField("created_at") else None,
        result=result,
    )


def command_answer(command: command_pb2.Command, wish: Wish = ALL) -> CommandAnswer:
    """The command as it is shown to a caller with this wish. What takes time is the shaping: see `showing`."""
    place = f"/v1/commands/{command.command_id}"
    result = command.result if command.HasField("result") else None
    exited = result is not None and result.outcome == command_pb2.OUTCOME_EXITED
    digest = digest_of(result) if result else None
    # What was stopped is shown: its output so far may be the same by chance. What was cut may differ where nobody sees.
    known = bool(result and exited and wish.unchanged_since == digest and not is_cut(result))
    output = _output(result, command.command_id, wish) if result and not known else None
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
        executor_id=(result.executor_id or None) if result else None,
        digest=digest,
        not_modified=known,
        stdout=output.stdout if output else None,
        stderr=output.stderr if output else None,
        shaping=output.shaping if output else None,
        truncated=is_cut(result) if result else None,
        encoding_replaced=output.is_replaced if output else None,
        masked_values=result.masked_values if result else None,
        bounded=list(result.bounded) if result else None,
        hint=(result.hint or None) if result else None,
        stdout_summary=_summary(result.stdout_summary) if result else None,
        stderr_summary=_summary(result.stderr_summary) if result else None,
        timings=timings_answer(result.timings) if result else None,
        created_at=instant(command.created_at) or (instant(result.created_at) if result else None),
        observed_at=instant(result.observed_at) if result else None,
        served_from=served_from(result) if result else None,
        run_by_command_id=(result.run_by_command_id or None) if result else None,
        age_s=age_s(result) if result else None,
        links=LinksAnswer(self=place, output=f"{place}/output", events=f"{place}/events"),
    )


def command_listed(command: command_pb2.Command) -> CommandListed:
    """The same of a command whose output is not known."""
    answer = command_answer(command)
    return CommandListed(**{name: getattr(answer, name) for name in CommandListed.model_fields})


@dataclass(frozen=True, slots=True)
class _Output:
    """What is shown of it."""

    stdout: str
    stderr: str
    is_replaced: bool
    shaping: ShapingAnswer | None


def _output(result: command_pb2.CommandResult, command_id: str, wish: Wish) -> _Output:
    stdout, stdout_replaced = as_text(result.stdout)
    stderr, stderr_replaced = as_text(result.stderr)
    shaped = shape(stdout, stderr, wish.shaping, offset=wish.offset)
    onward = None
    if shaped.next_offset is not None:
        onward = write_cursor(Cursor(command_id, shaped.next_offset, wish.shaping))
    shaping = ShapingAnswer.of(shaped, wish.shaping, next_cursor=onward)
    return _Output(shaped.stdout.text, shaped.stderr.text, stdout_replaced or stderr_replaced, shaping)


def _failure(error: command_pb2.Error) -> FailureAnswer:
    executed = EXECUTED_TEXT.get(error.executed, "unknown")
    return FailureAnswer(reason=error.reason, message=error.message, executed=executed, next_step=next_step(error))


def _summary(summary: command_pb2.OutputSummary) -> OutputAnswer:
    return OutputAnswer(
        total_bytes=summary.total_bytes,
        total_lines=summary.total_lines,
        cut_bytes=summary.cut_bytes,
        cut_lines=summary.cut_lines,
    )
