"""What is known of a command and of its end, as a caller of the client sees it; read from the contract's messages."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from google.protobuf.timestamp_pb2 import Timestamp

from openline.client.errors import typed
from openline.client.kinds import OUTCOMES, SERVED_FROM, STATES, CommandState, Outcome, ServedFrom
from openline.errors import OpenlineError, error
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest, ExecuteResponse


@dataclass(frozen=True, slots=True)
class OutputSummary:
    """What became of one output stream. `total` is what the process wrote, `cut` what is missing in the middle."""

    total_bytes: int
    total_lines: int
    cut_bytes: int
    cut_lines: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went, in seconds."""

    queue_s: float  # waiting for the cluster or for a free place
    route_s: float  # deciding where, and the hop to another replica
    deliver_s: float  # to the executor and back
    run_s: float  # from spawning the process to reaping it
    return_s: float  # from its end until its output was on its way
    total_s: float  # from the request's arrival at the broker to its answer


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it wrote. The same for everyone who asks, until it expires."""

    command_id: str
    cluster_id: str
    executor_id: str
    outcome: Outcome
    # None for every outcome but EXITED. A process killed by signal n has 128 + n, as a shell says it.
    exit_code: int | None
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    stdout_summary: OutputSummary
    stderr_summary: OutputSummary
    timings: Timings
    # When the broker took the request, and when the executor saw the process end: by their clocks, for people.
    created_at: datetime | None
    observed_at: datetime | None
    session_id: str = ""
    correlation_id: str = ""
    masked_values: int = 0  # how many the executor has masked: data of Secrets, and what looks like a credential
    bounded: tuple[str, ...] = ()  # flags by which its policy made the command smaller, as they ran: "--tail=20000"
    hint: str = ""  # what else to do, where the same was run again and again and came out the same
    # Of one that is another command's run: that one, and how many seconds before this was asked for it was sent to its
    # executor. What it saw is older by as much at most. Of the timings only `total_s` is this command's then.
    served_from: ServedFrom = ServedFrom.RUN
    run_by_command_id: str = ""
    age_s: float = 0.0
    # The answer is an earlier one, given again for the same idempotency key.
    replayed: bool = False
    degraded: bool = False  # Redis was out of reach: the broker keeps the result in memory until it is back
    error: OpenlineError | None = field(default=None, compare=False)  # why there is no exit code

    def __str__(self) -> str:
        how = self.outcome.value if self.exit_code is None else f"exit code {self.exit_code}"
        return f"{how}, {self.stdout_summary.total_bytes} bytes of stdout, {self.stderr_summary.total_bytes} of stderr"

    @property
    def text(self) -> str:
        """Of stdout; bytes that are no UTF-8 are replaced."""
        return self.stdout.decode(errors="replace")

    @property
    def ok(self) -> bool:
        """Whether it ran and succeeded."""
        return self.exit_code == 0

    @property
    def truncated(self) -> bool:
        """Whether output is missing; the summaries say how much."""
        return self.stdout_summary.cut_bytes > 0 or self.stderr_summary.cut_bytes > 0

    def check(self) -> Self:
        """Itself, if the command succeeded. Raises CommandFailed for a non-zero exit code, `error` for none."""
        if self.error is not None:
            raise typed(self.error)
        if self.exit_code != 0:
            raise CommandFailed(self)
        return self


class CommandFailed(Exception):
    """A command ran and ended with a non-zero exit code, which is in `result` with everything else."""

    def __init__(self, result: Result) -> None:
        said = result.stderr.decode(errors="replace").strip().partition("\n")[0]
        super().__init__(f"exit code {result.exit_code}: {said}" if said else f"exit code {result.exit_code}")
        self.result = result


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it was found, running or done."""

    command_id: str
    cluster_id: str
    state: CommandState
    argv: tuple[str, ...]
    owner: str
    created_at: datetime | None
    session_id: str
    correlation_id: str
    # None while it runs.
    result: Result | None

    @property
    def done(self) -> bool:
        return self.state is CommandState.DONE


def read_answer(response: ExecuteResponse, request: ExecuteRequest) -> Result:
    """The result of a command that exited. Raises OpenlineError for any other end."""
    return exited(read_result(response.result, request, replayed=response.replayed, degraded=response.degraded))


def exited(result: Result) -> Result:
    """The same result. Raises its error, if it has no exit code."""
    if result.error is not None:
        raise typed(result.error, command_id=result.command_id)
    return result


def read_result(
    result: command_pb2.CommandResult, request: ExecuteRequest, *, replayed: bool = False, degraded: bool = False
) -> Result:
    """The end of a command; `request` is what was asked, for what the result leaves out."""
    has_exited = result.outcome == command_pb2.OUTCOME_EXITED
    failure: OpenlineError | None = None
    if not has_exited:
        why = result.error if result.error.reason else error(Reason.INTERNAL, "the broker's answer has no outcome")
        failure = typed(OpenlineError(why, result=result), command_id=request.command_id)
    return Result(
        command_id=result.command_id or request.command_id,
        cluster_id=result.cluster_id or request.cluster_id,
        executor_id=result.executor_id,
        # One that this version does not know is one of which nothing is known.
        outcome=OUTCOMES.get(result.outcome, Outcome.LOST),
        exit_code=result.exit_code if has_exited else None,
        stdout=result.stdout,
        stderr=result.stderr,
        stdout_summary=_summary(result.stdout_summary),
        stderr_summary=_summary(result.stderr_summary),
        timings=_timings(result.timings),
        created_at=instant(result.created_at),
        observed_at=instant(result.observed_at),
        session_id=result.session_id,
        correlation_id=result.correlation_id,
        masked_values=result.masked_values,
        bounded=tuple(result.bounded),
        hint=result.hint,
        # Of one that this version does not know it is only known that it is another's.
        served_from=SERVED_FROM.get(result.served_from, ServedFrom.SHARED),
        run_by_command_id=result.run_by_command_id,
        age_s=result.age_s,
        replayed=replayed,
        degraded=degraded,
        error=failure,
    )


def read_command(command: command_pb2.Command) -> Command:
    asked = ExecuteRequest(command_id=command.command_id, cluster_id=command.cluster_id)
    result = read_result(command.result, asked) if command.HasField("result") else None
    return Command(
        command_id=command.command_id,
        cluster_id=command.cluster_id,
        state=CommandState.DONE if result is not None else read_state(command.state),
        argv=tuple(command.argv),
        owner=command.owner,
        created_at=instant(command.created_at),
        session_id=command.session_id,
        correlation_id=command.correlation_id,
        result=result,
    )


def read_state(state: command_pb2.CommandState.ValueType) -> CommandState:
    """One that this version does not know is before the end."""
    return STATES.get(state, CommandState.QUEUED)


def instant(stamp: Timestamp) -> datetime | None:
    """None for one that is not set."""
    return stamp.ToDatetime(UTC) if stamp.ByteSize() else None


def _summary(summary: command_pb2.OutputSummary) -> OutputSummary:
    return OutputSummary(
        total_bytes=summary.total_bytes,
        total_lines=summary.total_lines,
        cut_bytes=summary.cut_bytes,
        cut_lines=summary.cut_lines,
    )


def _timings(timings: command_pb2.Timings) -> Timings:
    return Timings(
        queue_s=timings.queue_s,
        route_s=timings.route_s,
        deliver_s=timings.deliver_s,
        run_s=timings.run_s,
        return_s=timings.return_s,
        total_s=timings.total_s,
    )
