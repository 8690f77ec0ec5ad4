"""The executor's half of the life of a command, as a table. `core` decides which event happens; this says what follows.

Execute ──▶ QUEUED ──▶ STARTING ──▶ RUNNING ──▶ FINISHED ──▶ FORGOTTEN
              │            └────────────┴──▶ ENDING ──▲           ▲
              └─ stopped before it started ───────────┘           │
           (nobody waits for it any more: DROPPED ────────────────┘)
"""

from dataclasses import dataclass
from enum import Enum, auto

from executor.actions import Spawn
from executor.report import Report
from openline.capture import allowance
from openline.policy import Allowed
from openline.reasons import Reason
from openline.tracing.traceparent import log_fields
from openline.v1 import executor_service_pb2 as wire


class State(Enum):
    """Where a command is, seen from the executor."""

    QUEUED = auto()  # the core owns it: Accepted was sent, it waits for a free place; it may end without ever starting
    STARTING = auto()  # the runner owns it: told to start the process; has a place
    RUNNING = auto()  # the runner owns it: the process runs, connection or not
    ENDING = auto()  # the runner owns it: told to kill the group; the end is a matter of a second
    DROPPED = auto()  # the runner owns the process, nobody wants the result: forgotten when it has been reaped
    FINISHED = auto()  # the core owns the result until the broker has stored it; sent anew on each connection
    FORGOTTEN = auto()  # nobody owns it: only its id is remembered, so that it is not run again


class Event(Enum):
    """What can happen to a command."""

    PLACED = auto()  # a place is free
    STARTED = auto()  # the process exists
    STOPPED = auto()  # deadline, Cancel, or the executor is stopping
    ENDED = auto()  # the process was reaped, or could not be started
    ABANDONED = auto()  # verdict DROP
    SETTLED = auto()  # ResultAck, verdict STORED, or pushed out by newer results


# An absent key is an event that comes too late, twice or not at all: nothing changes.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.PLACED): State.STARTING,
    (State.QUEUED, Event.STOPPED): State.FINISHED,
    (State.QUEUED, Event.ABANDONED): State.FORGOTTEN,
    (State.STARTING, Event.STARTED): State.RUNNING,
    (State.STARTING, Event.STOPPED): State.ENDING,
    (State.STARTING, Event.ENDED): State.FINISHED,  # could not be started
    (State.STARTING, Event.ABANDONED): State.DROPPED,
    (State.RUNNING, Event.STOPPED): State.ENDING,
    (State.RUNNING, Event.ENDED): State.FINISHED,
    (State.RUNNING, Event.ABANDONED): State.DROPPED,
    (State.ENDING, Event.STARTED): State.ENDING,  # stopped while it was being started
    (State.ENDING, Event.ENDED): State.FINISHED,
    (State.ENDING, Event.ABANDONED): State.DROPPED,
    (State.DROPPED, Event.STARTED): State.DROPPED,
    (State.DROPPED, Event.ENDED): State.FORGOTTEN,
    (State.FINISHED, Event.ABANDONED): State.FORGOTTEN,
    (State.FINISHED, Event.SETTLED): State.FORGOTTEN,
}

# Occupies one of the places of --max-concurrency.
HAS_PLACE = frozenset({State.STARTING, State.RUNNING, State.ENDING, State.DROPPED})
# Can still be stopped.
STOPPABLE = frozenset({State.QUEUED, State.STARTING, State.RUNNING})


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a command was stopped; the first reason holds."""

    reason: Reason  # COMMAND_TIMEOUT or CANCELLED
    message: str


@dataclass(slots=True)
class Command:
    """One thing to run. Instants are on the clock that `now` is read from."""

    execute: wire.Execute
    report: Report
    received_at: float
    deadline: float
    # What the policy made of it, and what runs; None for one that has ended in an earlier process.
    allowed: Allowed | None = None
    state: State = State.QUEUED
    placed_at: float | None = None
    ended_at: float | None = None
    executed: bool = False  # its process was started
    stop: Stop | None = None

    @property
    def command_id(self) -> str:
        return self.execute.command_id

    def spawn(self) -> Spawn:
        """How it is started: what was allowed runs, which is not word for word what was asked."""
        assert self.allowed is not None  # noqa: S101  (it was admitted by this process)
        policy = self.allowed.policy
        return Spawn(
            self.command_id,
            self.allowed.argv,
            max_bytes=min(allowance(self.execute.output_limits.max_bytes), policy.output.max_bytes),
            masking=policy.masking,
            live=self.execute.live,
            names=names(self.execute),
            traceparent=self.execute.traceparent,
        )

    def apply(self, event: Event) -> bool:
        """Changes the state as the table says; False when the table has nothing for it. The only place that does."""
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            return False
        self.state = following
        return True


def names(execute: wire.Execute) -> dict[str, object]:
    """What a line of the log says that concerns a command: which and whose, never its argv."""
    said: dict[str, object] = {"command_id": execute.command_id[:200], "owner": execute.identity.owner}
    if execute.correlation_id:
        said["correlation_id"] = execute.correlation_id
    if execute.session_id:
        said["session_id"] = execute.session_id
    said.update(log_fields(execute.traceparent))
    return said
