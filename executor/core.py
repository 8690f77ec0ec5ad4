"""What the executor does about what it hears: from a broker (frames), from its processes, from the clock.

Pure: no grpc, no clock, no tasks. Every method changes what is known and returns the actions that follow, for others to
carry out in that order. `now` is in seconds on any clock that never goes back. The life of a command is in `life`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from executor import results
from executor.actions import Action, Ended, Kill, Note, NotStarted, Send, Spawn
from executor.life import HAS_PLACE, STOPPABLE, Command, Event, State, Stop
from executor.memory import Memory
from executor.output import allowance
from openline import ids, limits
from openline.errors import error
from openline.reasons import EXECUTED_TEXT, YES, Reason
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

# Commands that wait for a place, for each place there is: at kubectl's usual pace about half a second of waiting.
QUEUE_PER_PLACE = 4
BUSY_RETRY_S = 1.0
MAX_WHY_CHARACTERS = 200

Check = Callable[[Sequence[str]], command_pb2.Error | None]


@dataclass(frozen=True, slots=True)
class Held:
    """What Hello lists: commands that have not ended, and results that no broker has acknowledged."""

    in_flight_ids: tuple[str, ...]
    unacked_ids: tuple[str, ...]


class Core:
    """All commands of one executor. `check` is the policy: it says why an argv may not run, or None."""

    def __init__(self, *, max_concurrency: int, check: Check) -> None:
        self._max_concurrency = max_concurrency
        self._check = check
        # A command is in one of these two: not ended, in the order they came; or ended, in memory.
        self._live: dict[str, Command] = {}
        self._memory = Memory()
        self._connected = False  # Welcome has arrived on the connection there is
        self._frame_bytes = limits.MAX_FRAME_BYTES
        self._draining = ""

    def __repr__(self) -> str:
        return f"<Core running={self.running} queued={self.queued} {self._memory!r}>"

    @property
    def running(self) -> int:
        """Commands that occupy a place."""
        return sum(command.state in HAS_PLACE for command in self._live.values())

    @property
    def queued(self) -> int:
        return len(self._live) - self.running

    @property
    def idle(self) -> bool:
        """Nothing runs and no result waits to be acknowledged."""
        return not self._live and not self._memory

    def next_deadline(self) -> float | None:
        """When `expire` has something to do."""
        return min((command.deadline for command in self._live.values() if command.state in STOPPABLE), default=None)

    # The connection

    def held(self) -> Held:
        in_flight = (c.command_id for c in self._live.values() if c.state is not State.DROPPED)
        return Held(tuple(in_flight), tuple(c.command_id for c in self._memory.unacked))

    def welcomed(self, welcome: wire.Welcome, now: float) -> list[Action]:
        """A broker has answered Hello: obeys its verdicts and says again how it stands with every command left."""
        self._connected = True
        wanted = welcome.limits.max_frame_bytes or limits.MAX_FRAME_BYTES
        self._frame_bytes = min(max(wanted, 1024), limits.MAX_FRAME_BYTES)
        actions: list[Action] = []
        for verdict in welcome.verdicts:
            if verdict.action == wire.VERDICT_ACTION_STORED:
                self._memory.settle(verdict.command_id)
            elif verdict.action == wire.VERDICT_ACTION_DROP:
                actions += self._abandon(verdict.command_id)
        if self._draining:
            actions.append(Send(results.draining(self._draining)))
        for command in [*self._memory.unacked, *self._live.values()]:
            actions += self._say_again(command, now)
        return actions + self._place(now)

    def disconnected(self) -> None:
        """The connection is gone. Commands run on; what they would have said is said after the next Welcome."""
        self._connected = False

    def received(self, frame: wire.BrokerFrame, now: float) -> list[Action]:
        """A frame about a command; any other changes nothing."""
        match frame.WhichOneof("frame"):
            case "execute":
                return self._execute(frame.execute, now)
            case "cancel":
                why = frame.cancel.why[:MAX_WHY_CHARACTERS] or "cancelled"
                return self._stop(frame.cancel.command_id, Stop(Reason.CANCELLED, why), now)
            case "result_ack":
                self._memory.settle(frame.result_ack.command_id)
        return []

    # The processes

    def started(self, command_id: str) -> list[Action]:
        """The process of a command exists."""
        command = self._live.get(command_id)
        if command is None or not command.apply(Event.STARTED):
            return []
        command.executed = True
        return self._send(results.started(command_id)) if command.state is State.RUNNING else []

    def ended(self, command_id: str, end: Ended | NotStarted, now: float) -> list[Action]:
        """The process of a command has been reaped, or could not be started."""
        command = self._live.get(command_id)
        if command is None or not command.apply(Event.ENDED):
            return []
        command.end = end
        del self._live[command_id]
        if command.state is State.FINISHED:
            return self._finish(command, now) + self._place(now)
        self._memory.forget(command)
        return self._place(now)

    # The clock, and the end

    def expire(self, now: float) -> list[Action]:
        """Stops the commands whose deadline has passed."""
        late = [c.command_id for c in self._live.values() if c.state in STOPPABLE and c.deadline <= now]
        return [action for command_id in late for action in self._stop(command_id, _timed_out(), now)]

    def drain(self, reason: str) -> list[Action]:
        """Takes no more commands; those that were accepted run on."""
        self._draining = reason
        return self._send(results.draining(reason))

    def stop_all(self, why: str, now: float) -> list[Action]:
        """Stops every command that has not ended."""
        stop = Stop(Reason.CANCELLED, why)
        return [action for command_id in list(self._live) for action in self._stop(command_id, stop, now)]

    # Decisions

    def _execute(self, execute: wire.Execute, now: float) -> list[Action]:
        if (known := self._answer_again(execute.command_id, now)) is not None:
            return known
        if (refusal := self._refuse(execute)) is not None:
            # Not remembered: it has not run, so that the same id may be tried again later.
            return [
                results.rejected_note(execute, refusal),
                *self._send(results.rejected(execute.command_id, refusal)),
            ]
        # A timeout that is not a positive number has passed already.
        timeout_s = min(execute.timeout_s, limits.MAX_TIMEOUT_S) if execute.timeout_s > 0 else 0.0
        command = Command(execute=execute, received_at=now, deadline=now + timeout_s)
        self._live[command.command_id] = command
        return [*self._send(results.accepted(command.command_id)), *self._place(now)]

    def _answer_again(self, command_id: str, now: float) -> list[Action] | None:
        """The answer to an Execute of a command that is known: what was said before, never a second run."""
        command = self._live.get(command_id) or self._memory.finished(command_id)
        if command is not None and command.state is not State.DROPPED:
            return self._say_again(command, now)
        executed = YES if command_id in self._live else self._memory.executed(command_id)
        if executed is None:
            return None
        ran = f"this command was taken before (executed: {EXECUTED_TEXT[executed]}) and its result is not kept any more"
        return self._send(results.rejected(command_id, error(Reason.RESULT_EXPIRED, ran, executed=executed)))

    def _refuse(self, execute: wire.Execute) -> command_pb2.Error | None:
        """Why a new command is not taken, if it is not."""
        if not ids.is_token(execute.command_id):
            field = ("command_id", "expected 1 to 200 visible ASCII characters")
            return error(Reason.INVALID_COMMAND, "the command has no usable id", violations=[field])
        if (refusal := self._check(execute.argv)) is not None:
            return refusal
        if self._draining:
            return error(Reason.CLUSTER_BUSY, "this executor is stopping", retry_after_s=BUSY_RETRY_S)
        if self.running >= self._max_concurrency and self.queued >= QUEUE_PER_PLACE * self._max_concurrency:
            many = f"{self.running} commands run and {self.queued} wait on this executor"
            return error(Reason.CLUSTER_BUSY, many, retry_after_s=BUSY_RETRY_S)
        return None

    def _place(self, now: float) -> list[Action]:
        """Starts waiting commands, in the order they came, as far as there are places."""
        actions: list[Action] = []
        free = self._max_concurrency - self.running
        for command in [c for c in self._live.values() if c.state is State.QUEUED]:
            if command.deadline <= now:
                actions += self._stop(command.command_id, _timed_out(), now)
            elif free > 0:
                free -= 1
                command.apply(Event.PLACED)
                command.placed_at = now
                max_bytes = allowance(command.execute.output_limits.max_bytes)
                actions.append(Spawn(command.command_id, tuple(command.execute.argv), max_bytes))
        return actions

    def _stop(self, command_id: str, stop: Stop, now: float) -> list[Action]:
        command = self._live.get(command_id)
        if command is None or not command.apply(Event.STOPPED):
            return []
        command.stop = stop
        if command.state is State.ENDING:
            return [Kill(command_id)]
        del self._live[command_id]
        return self._finish(command, now)

    def _abandon(self, command_id: str) -> list[Action]:
        """Nobody waits for a command: it is killed if it runs, and forgotten."""
        command = self._live.get(command_id) or self._memory.finished(command_id)
        if command is None or not command.apply(Event.ABANDONED):
            return []
        if command.state is State.DROPPED:
            return [Kill(command_id)]
        self._live.pop(command_id, None)
        self._memory.forget(command)
        return []

    def _finish(self, command: Command, now: float) -> list[Action]:
        """Keeps the result until it is acknowledged, and sends it."""
        command.ended_at = now
        pushed_out = self._memory.keep(command)
        return [
            results.finished_note(command, now),
            *self._hand_over(command, now),
            *(Note("result.dropped", {"command_id": command_id}, warning=True) for command_id in pushed_out),
        ]

    def _say_again(self, command: Command, now: float) -> list[Action]:
        """Everything that was said of a command, whatever of it has arrived."""
        if command.state is State.DROPPED:
            return []
        frames = [results.accepted(command.command_id)]
        if command.executed:
            frames.append(results.started(command.command_id))
        outcome = self._hand_over(command, now) if command.state is State.FINISHED else []
        return [*self._send(*frames), *outcome]

    def _hand_over(self, command: Command, now: float) -> list[Action]:
        if not self._connected:
            return []
        frames = results.result_frames(command, now, frame_bytes=self._frame_bytes)
        return [Send(frame, output=True) for frame in frames]

    def _send(self, *frames: wire.ExecutorFrame) -> list[Action]:
        return [Send(frame) for frame in frames] if self._connected else []


def _timed_out() -> Stop:
    return Stop(Reason.COMMAND_TIMEOUT, "the deadline passed before the command had ended")
