"""One command in the broker: what was asked, where it is, what it wrote, and the result that is made of it."""

from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.connections import Instance
from broker.core.life import Event, OutOfOrder, State, after
from broker.core.patterns import EVERY, Patterns
from broker.core.quotas import Quota
from broker.core.told import MAX_BOUNDED, MAX_BOUNDED_CHARACTERS, MAX_TIMESTAMP_S, duration, summarise, told
from broker.core.transcript import Transcript
from broker.core.twin import Twin
from openline.capture import Kept
from openline.errors import CANCELLED_WITH, TAKEN_BACK
from openline.v1 import command_pb2, executor_service_pb2


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
    # How long it may wait for an absent cluster, apart from timeout_s.
    wait_for_cluster_s: float = 0.0
    # Its output is wanted as it comes.
    live: bool = False
    # It was asked for before, and what became of it is not known: it is looked for first.
    attach: bool = False
    # It is another request's, which has claimed the idempotency key: it is not run for this one, only found.
    is_anothers: bool = False
    # How long ago an identical command may have been sent to the executor for this one to share its result: while it
    # runs, and when it has succeeded. Without the first it is by itself, and so it is for others.
    share_s: float = 0.0
    cache_s: float = 0.0
    # The replica that forwarded it here; then it is never forwarded again.
    origin: str = ""
    # Its caller's own, None for that of everybody; and whose commands it is one of.
    quota: Quota | None = None
    counted_as: str = ""
    # Of the caller's key: its digest, empty for what was forwarded; and what it sees.
    key: bytes = field(default=b"", repr=False)
    clusters: Patterns = EVERY

    @property
    def names(self) -> dict[str, str]:
        """What a line of the log says that concerns it."""
        ids = {"command_id": self.command_id, "correlation_id": self.correlation_id}
        return ids if self.correlation_id else {"command_id": self.command_id}

    @property
    def share(self) -> tuple[str, str]:
        """Whose turn it takes in a queue: the caller's, apart for each session or conversation."""
        return self.owner, self.session_id or self.correlation_id

    def is_same(self, other: "Ask | command_pb2.Command") -> bool:
        """Whether it asks for the same thing with the same scopes, of which a record of before 0.2 says nothing."""
        if other.scopes and set(other.scopes) != set(self.scopes):
            return False
        return (self.owner, self.cluster_id, self.argv) == (other.owner, other.cluster_id, tuple(other.argv))


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
    # Until when it waits for its cluster to be connected; its timeout begins then. None when it does not.
    waits_until: float | None = None
    clock_from: float = 0.0
    # Why it is to be cancelled, said again on each connection until it ends; None when nobody asked for that.
    cancel_why: str | None = None
    # Of what more it is one, all of which is to be cancelled; empty where it is meant alone.
    cancelled_with: str = ""
    # While FORWARDED: the replica that is to run it, or to know it; empty while it is looked for.
    replica_id: str = ""
    # That replica has it already, as far as is known: it is followed there, not asked for.
    is_known_there: bool = False
    # If nobody knows it there, it was surely not run: it had not been accepted before it was forwarded.
    may_return: bool = False
    # Its result is in the store already, or that is another replica's duty.
    is_stored_elsewhere: bool = False
    # Another request's command has this id, and a record under it.
    has_anothers_id: bool = False
    # That replica has not been able to store it yet.
    is_degraded: bool = False
    transcript: Transcript = field(init=False)
    # Output that has arrived and for which the executor has no new credit yet.
    uncredited_bytes: int = 0
    result: command_pb2.CommandResult | None = None
    # Those who asked for it and are still there: an idempotency key or an id may be asked for many times.
    callers: int = 0
    # What it has to do with identical commands; None when it is by itself.
    twin: Twin | None = None

    def __post_init__(self) -> None:
        self.clock_from = self.created_at
        self.transcript = Transcript(max_bytes=self.ask.max_output_bytes, live=self.ask.live)

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
        return self.clock_from + self.ask.timeout_s

    @property
    def is_sought(self) -> bool:
        return self.state is State.FORWARDED and not self.replica_id

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

    def forward(self, replica_id: str, *, known: bool, may_return: bool) -> None:
        """It is that replica's now; without a replica it is looked for."""
        self.apply(Event.FORWARDED)
        self.replica_id = replica_id
        self.is_known_there = known
        self.may_return = may_return

    def forget_place(self) -> None:
        """Nobody has it: it is as if it had just been asked for."""
        self.apply(Event.RETURNED)
        self.instance_id = self.executor_id = self.replica_id = ""
        self.written_at = 0.0

    def resume(self, *, instance_id: str, executor_id: str) -> None:
        """This instance has it, or is to have it again."""
        self.instance_id, self.executor_id = instance_id, executor_id
        self.replica_id = ""
        self.uncredited_bytes = 0
        self.apply(Event.RESUMED)

    def frame(self, now: float) -> executor_service_pb2.BrokerFrame:
        """The Execute frame, with the time that remains."""
        ask = self.ask
        frame = executor_service_pb2.BrokerFrame()
        execute = frame.execute
        execute.command_id = ask.command_id
        execute.argv.extend(ask.argv)
        # Rounding must not make it longer than it was asked for.
        execute.timeout_s = min(max(0.001, self.deadline - now), ask.timeout_s)
        execute.output_limits.max_bytes = ask.max_output_bytes
        execute.identity.owner = ask.owner
        execute.identity.scopes.extend(ask.scopes)
        execute.session_id = ask.session_id
        execute.correlation_id = ask.correlation_id
        execute.traceparent = ask.traceparent
        execute.live = ask.live
        return frame

    def take(self, output: command_pb2.Output) -> bool:
        """Keeps a piece of output; False when it changes nothing. Raises OutOfOrder for a gap."""
        if self.state in (State.QUEUED, State.WRITTEN):
            raise OutOfOrder(f"output while {self.state.name.lower()}")
        return self.state is not State.DONE and self.transcript.take(output)

    def finish(self, finished: executor_service_pb2.Finished, now: float) -> None:
        """Makes the result of what the executor says at the end, with an outcome that `is_end`."""
        result, stdout, stderr = self._result(now)
        result.outcome = finished.outcome
        result.exit_code = finished.exit_code
        result.masked_values = finished.masked_values
        result.bounded.extend(flag[:MAX_BOUNDED_CHARACTERS] for flag in finished.bounded[:MAX_BOUNDED])
        if 0 < finished.finished_at.seconds <= MAX_TIMESTAMP_S and 0 <= finished.finished_at.nanos < 10**9:
            result.observed_at.CopyFrom(finished.finished_at)
        summarise(result.stdout_summary, finished.stdout_summary, stdout)
        summarise(result.stderr_summary, finished.stderr_summary, stderr)
        if finished.outcome != command_pb2.OUTCOME_EXITED:
            result.error.CopyFrom(told(finished.error, finished.outcome))
            result.error.metadata["command_id"] = self.command_id
        said, timings = finished.timings, result.timings
        queue_s, run_s, return_s = duration(said.queue_s), duration(said.run_s), duration(said.return_s)
        timings.deliver_s = max(0.0, timings.total_s - timings.queue_s - queue_s - run_s - return_s)
        timings.queue_s += queue_s
        timings.run_s, timings.return_s = run_s, return_s
        self.conclude(result)

    def end(self, outcome: command_pb2.Outcome.ValueType, error: command_pb2.Error, now: float) -> None:
        """Makes the result of a command whose executor did not say Finished, with the output so far."""
        result, stdout, stderr = self._result(now)
        result.outcome = outcome
        result.error.CopyFrom(error)
        result.error.metadata["command_id"] = self.command_id
        summarise(result.stdout_summary, command_pb2.OutputSummary(), stdout)
        summarise(result.stderr_summary, command_pb2.OutputSummary(), stderr)
        self.conclude(result)

    def conclude(self, result: command_pb2.CommandResult) -> None:
        """Fixes its result. One that has it before what it runs has ended ran on for others."""
        more = self.cancelled_with or ("call" if self.cancel_why == TAKEN_BACK else "")
        if more and result.outcome == command_pb2.OUTCOME_CANCELLED:
            result.error.metadata[CANCELLED_WITH] = more
        if self.result is None:
            self.result = result
        elif self.twin is not None:
            self.twin.ran = result

    def _result(self, now: float) -> tuple[command_pb2.CommandResult, Kept, Kept]:
        ask = self.ask
        stdout, stderr = self.transcript.kept()
        result = command_pb2.CommandResult(
            command_id=ask.command_id,
            cluster_id=ask.cluster_id,
            executor_id=self.executor_id,
            session_id=ask.session_id,
            correlation_id=ask.correlation_id,
            stdout=stdout.data,
            stderr=stderr.data,
            created_at=self.asked_at,
        )
        result.timings.total_s = now - self.created_at
        # One that another replica has sent was with its executor before it was asked for here.
        left_at = self.written_at or (self.created_at if self.instance_id else now)
        result.timings.queue_s = left_at - self.created_at
        return result, stdout, stderr
