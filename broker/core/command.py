"""One command in the broker: what was asked, where it is, what it wrote, and the result that is made of it."""

from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.connections import Instance
from broker.core.life import Event, OutOfOrder, State, after
from openline import errors
from openline.reasons import EXECUTED_TEXT, NO, UNKNOWN, YES, Reason
from openline.v1 import command_pb2, executor_service_pb2

# The reason of an end for which the executor gives none of the table. The keys are all the ends there are but EXITED.
_USUAL = {
    command_pb2.OUTCOME_TIMED_OUT: Reason.COMMAND_TIMEOUT,
    command_pb2.OUTCOME_CANCELLED: Reason.CANCELLED,
    command_pb2.OUTCOME_LOST: Reason.EXECUTOR_LOST,
    command_pb2.OUTCOME_REJECTED: Reason.EXECUTOR_FAILED,
}
# What an executor may say of an end: it travels on in a status, which has room for a few kilobytes.
MAX_MESSAGE_CHARACTERS = 500
MAX_METADATA_BYTES = 2048
MAX_RETRY_AFTER_S = 3600.0
# The last second that a calendar has, as protobuf's Timestamp defines it.
MAX_TIMESTAMP_S = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Ask:
    """What a caller asked for, checked and with its defaults filled in."""

    command_id: str
    cluster_id: str
    argv: tuple[str, ...]
    timeout_s: float
    max_output_bytes: int
    owner: str
    scopes: tuple[str, ...] = ()
    session_id: str = ""
    correlation_id: str = ""
    traceparent: str = ""


@dataclass(slots=True, eq=False)
class Command:
    """A command from `submit` to its ResultAck. Instants are the loop's clock; `asked_at` is for people."""

    ask: Ask
    created_at: float
    asked_at: Timestamp
    state: State = State.QUEUED
    # The executor instance that holds it; empty while QUEUED.
    instance_id: str = ""
    executor_id: str = ""
    written_at: float = 0.0
    # Why it is to be cancelled, said again on each connection until it ends; None when nobody asked for that.
    cancel_why: str | None = None
    next_seq: int = 0
    kept_bytes: int = 0
    stdout: list[bytes] = field(default_factory=list)
    stderr: list[bytes] = field(default_factory=list)
    result: command_pb2.CommandResult | None = None

    def __repr__(self) -> str:
        return f"<Command {self.ask.command_id} {self.state.name} on {self.executor_id or 'nobody'}>"

    @property
    def command_id(self) -> str:
        return self.ask.command_id

    @property
    def instance(self) -> Instance:
        return self.ask.cluster_id, self.executor_id, self.instance_id

    @property
    def deadline(self) -> float:
        return self.created_at + self.ask.timeout_s

    def apply(self, event: Event) -> bool:
        """Moves on by the table; whether this was the event that ended the command. Raises OutOfOrder."""
        before = self.state
        self.state = after(before, event)
        return before is not State.DONE and self.state is State.DONE

    def written(self, *, instance_id: str, executor_id: str, now: float) -> None:
        """It goes out on a stream of this instance."""
        self.apply(Event.WRITTEN)
        self.instance_id = instance_id
        self.executor_id = executor_id
        self.written_at = now

    def frame(self, now: float) -> executor_service_pb2.BrokerFrame:
        """The Execute frame, with the time that remains."""
        ask = self.ask
        return executor_service_pb2.BrokerFrame(
            execute=executor_service_pb2.Execute(
                command_id=ask.command_id,
                argv=ask.argv,
                timeout_s=max(0.001, self.deadline - now),
                output_limits=command_pb2.OutputLimits(max_bytes=ask.max_output_bytes),
                identity=executor_service_pb2.Identity(owner=ask.owner, scopes=ask.scopes),
                session_id=ask.session_id,
                correlation_id=ask.correlation_id,
                traceparent=ask.traceparent,
            )
        )

    def take(self, output: command_pb2.Output) -> None:
        """Keeps a piece of output. A piece that was had before changes nothing. Raises OutOfOrder for a gap.

        An executor cuts its output itself; one that does not is cut here, without a tail.
        """
        if self.state in (State.QUEUED, State.WRITTEN):
            raise OutOfOrder(f"output while {self.state.name.lower()}")
        if self.state is State.DONE or output.seq < self.next_seq:
            return
        if output.seq > self.next_seq:
            raise OutOfOrder(f"output {output.seq} where {self.next_seq} was due")
        self.next_seq += 1
        kept = output.data[: max(0, self.ask.max_output_bytes - self.kept_bytes)]
        if not kept:
            return  # a list of nothings grows as well
        self.kept_bytes += len(kept)
        (self.stderr if output.source == command_pb2.OUTPUT_SOURCE_STDERR else self.stdout).append(kept)

    def finish(self, finished: executor_service_pb2.Finished, now: float) -> None:
        """Makes the result of what the executor says at the end, with an outcome that `is_end`."""
        result = self._result(now)
        result.outcome = finished.outcome
        result.exit_code = finished.exit_code
        if 0 < finished.finished_at.seconds <= MAX_TIMESTAMP_S and 0 <= finished.finished_at.nanos < 10**9:
            result.observed_at.CopyFrom(finished.finished_at)
        _summarise(result.stdout_summary, finished.stdout_summary, kept=len(result.stdout))
        _summarise(result.stderr_summary, finished.stderr_summary, kept=len(result.stderr))
        if finished.outcome != command_pb2.OUTCOME_EXITED:
            result.error.CopyFrom(told(finished.error, finished.outcome))
            result.error.metadata["command_id"] = self.command_id
        said = finished.timings
        queue_s, run_s, return_s = _duration(said.queue_s), _duration(said.run_s), _duration(said.return_s)
        timings = result.timings
        timings.queue_s += queue_s
        timings.run_s = run_s
        timings.return_s = return_s
        timings.deliver_s = max(0.0, now - self.written_at - queue_s - run_s - return_s)
        self.result = result

    def end(self, outcome: command_pb2.Outcome.ValueType, error: command_pb2.Error, now: float) -> None:
        """Makes the result of a command whose executor did not say Finished, with the output so far."""
        result = self._result(now)
        result.outcome = outcome
        result.error.CopyFrom(error)
        result.error.metadata["command_id"] = self.command_id
        for summary, data in ((result.stdout_summary, result.stdout), (result.stderr_summary, result.stderr)):
            summary.total_bytes = len(data)
            summary.total_lines = data.count(b"\n")
        self.result = result

    def _result(self, now: float) -> command_pb2.CommandResult:
        ask = self.ask
        result = command_pb2.CommandResult(
            command_id=ask.command_id,
            cluster_id=ask.cluster_id,
            executor_id=self.executor_id,
            session_id=ask.session_id,
            correlation_id=ask.correlation_id,
            stdout=b"".join(self.stdout),
            stderr=b"".join(self.stderr),
            created_at=self.asked_at,
        )
        # The pieces are in the result now; a done command keeps one copy.
        self.stdout.clear()
        self.stderr.clear()
        result.timings.total_s = now - self.created_at
        result.timings.queue_s = (self.written_at or now) - self.created_at
        return result


def _summarise(to: command_pb2.OutputSummary, said: command_pb2.OutputSummary, *, kept: int) -> None:
    """What the executor says of a stream, held against what arrived: never less cut than is missing here."""
    to.CopyFrom(said)
    to.total_bytes = max(said.total_bytes, kept)
    to.cut_bytes = to.total_bytes - kept


def _duration(said_s: float) -> float:
    """A duration that an executor says, or zero for one that is none."""
    return said_s if 0.0 <= said_s < float("inf") else 0.0


def is_end(outcome: int) -> bool:
    """Whether an executor can say that a command ended so."""
    return outcome == command_pb2.OUTCOME_EXITED or outcome in _USUAL


def told(said: command_pb2.Error, outcome: command_pb2.Outcome.ValueType) -> command_pb2.Error:
    """What an executor says of an end without an exit code: bounded, and with a reason of the table."""
    try:
        reason = Reason(said.reason)
    except ValueError:
        reason = _USUAL[outcome]
    metadata: dict[str, str] = {}
    room = MAX_METADATA_BYTES
    for name, value in sorted(said.metadata.items()):
        if (room := room - len(name.encode()) - len(value.encode())) < 0:
            break
        metadata[name] = value
    return errors.error(
        reason,
        said.message[:MAX_MESSAGE_CHARACTERS] or "the executor gave no reason",
        executed=said.executed if said.executed in EXECUTED_TEXT else None,
        retry_after_s=min(_duration(said.retry_after_s), MAX_RETRY_AFTER_S),
        metadata=metadata,
        violations=[(v.field[:100], v.description[:200]) for v in said.violations[:10]],
    )


def timed_out(command: Command) -> command_pb2.Error:
    """The error of a command whose deadline passed without an answer of its executor."""
    # One that was accepted may have waited for its place: only Started says that it ran.
    executed = {State.QUEUED: NO, State.RUNNING: YES}.get(command.state, UNKNOWN)
    message = f"no result within {command.ask.timeout_s:g} s"
    return errors.error(Reason.COMMAND_TIMEOUT, message, executed=executed)
