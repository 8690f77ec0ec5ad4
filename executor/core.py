"""What the executor does about what it hears: from a broker (frames), from its processes, from the clock.

Pure: no grpc, no clock, no tasks. Every method changes what is known and returns the actions that follow, for others to
carry out in that order. `now` is in seconds on any clock that never goes back. The life of a command is in `life`.
"""

from copy import deepcopy

from executor import results
from executor.actions import Action, Ended, Kill, NotStarted, Result, Send
from executor.admission import Admission, Judge
from executor.handover import Handover
from executor.held import Held
from executor.life import HAS_PLACE, STOPPABLE, Command, Event, State, Stop
from executor.report import Source
from openline import limits
from openline.errors import error
from openline.policy import Allowed
from openline.reasons import EXECUTED_TEXT, YES, Reason
from openline.v1 import executor_service_pb2 as wire

MAX_WHY_CHARACTERS = 200
TIMED_OUT = Stop(Reason.COMMAND_TIMEOUT, "the deadline passed before the command had ended")
SEVERED = Stop(
    Reason.CANCELLED,
    "its output cannot be continued: what the broker asks for after a reconnect is not kept any more",
)


class Core:
    """All commands of one executor. `judge` is the policy: it says what runs for an argv, or why nothing does."""

    def __init__(self, *, max_concurrency: int, judge: Judge) -> None:
        self._admission = Admission(max_concurrency=max_concurrency, judge=judge)
        # A command is in one of these two: not ended, in the order they came; or ended, in memory.
        self._live: dict[str, Command] = {}
        self._handover = Handover()
        self._connected = False  # Welcome has arrived on the connection there is
        self._last_epoch = 0  # the highest of all connections
        self._draining = ""

    def __repr__(self) -> str:
        return f"<Core running={self.running} queued={self.queued} {self._handover!r}>"

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
        return not self._live and not self._handover

    def next_deadline(self) -> float | None:
        """When `expire` has something to do."""
        return min((command.deadline for command in self._live.values() if command.state in STOPPABLE), default=None)

    # The connection

    def restore(self, result: Result, *, now: float) -> list[Action]:
        """A result that an earlier process of this executor left; before the first connection."""
        return self._handover.restore(result, now=now)

    def held(self) -> Held:
        in_flight = (c for c in self._live.values() if c.state is not State.DROPPED)
        return Held(tuple(in_flight), tuple(self._handover.unacked))

    def hello(self, now: float) -> wire.Hello:
        """What Hello says of the commands and of the connections before."""
        return self.held().hello(now, last_epoch=self._last_epoch)

    def welcomed(self, welcome: wire.Welcome, now: float) -> list[Action]:
        """A broker has answered Hello: obeys its verdicts and says again how it stands with every command left."""
        self._connected = True
        self._last_epoch = max(self._last_epoch, welcome.epoch)
        self._handover.open(welcome.limits)
        actions: list[Action] = []
        next_seq: dict[str, int] = {}
        for verdict in welcome.verdicts:
            if verdict.action == wire.VERDICT_ACTION_STORED:
                actions += self._handover.settle(verdict.command_id)
            elif verdict.action == wire.VERDICT_ACTION_DROP:
                actions += self._abandon(verdict.command_id)
            else:
                next_seq[verdict.command_id] = verdict.next_seq
        if self._draining:
            actions.append(Send(results.draining(self._draining)))
        kept = [*self._handover.unacked, *(c for c in self._live.values() if c.state is not State.DROPPED)]
        for command in kept:
            actions += self._send(*results.said(command))
        for command in kept:
            going_on = self._handover.resume(command, next_seq.get(command.command_id, 0), now)
            actions += self._sever(command, now) if going_on is None else going_on
        return actions + self._place(now)

    def disconnected(self) -> None:
        """The connection is gone. Commands run on; what they would have said is said after the next Welcome."""
        self._connected = False
        self._handover.close()

    def received(self, frame: wire.BrokerFrame, now: float) -> list[Action]:
        """A frame about a command or its output; any other changes nothing."""
        match frame.WhichOneof("frame"):
            case "execute":
                return self._execute(frame.execute, now)
            case "cancel":
                why = frame.cancel.why[:MAX_WHY_CHARACTERS] or "cancelled"
                return self._stop(frame.cancel.command_id, Stop(Reason.CANCELLED, why), now)
            case "result_ack":
                return self._handover.settle(frame.result_ack.command_id)
            case "credit":
                return self._grant(frame.credit, now)
        return []

    # The processes

    def started(self, command_id: str) -> list[Action]:
        """The process of a command exists."""
        command = self._live.get(command_id)
        if command is None or not command.apply(Event.STARTED):
            return []
        command.executed = True
        return self._send(results.started(command_id)) if command.state is State.RUNNING else []

    def wrote(self, command_id: str, source: Source, data: bytes, now: float) -> list[Action]:
        """The process of a live command wrote something."""
        command = self._live.get(command_id)
        if command is None or command.state is State.DROPPED:
            return []
        return self._handover.write(command, source, data, now)

    def ended(self, command_id: str, end: Ended | NotStarted, now: float) -> list[Action]:
        """The process of a command has been reaped, or could not be started."""
        command = self._live.get(command_id)
        if command is None or not command.apply(Event.ENDED):
            return []
        del self._live[command_id]
        if command.state is State.FINISHED:
            return self._handover.finish(command, end, now) + self._place(now)
        return self._handover.forget(command) + self._place(now)

    # The clock, and the end

    def expire(self, now: float) -> list[Action]:
        """Stops the commands whose deadline has passed."""
        late = [c.command_id for c in self._live.values() if c.state in STOPPABLE and c.deadline <= now]
        return [action for command_id in late for action in self._stop(command_id, TIMED_OUT, now)]

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
        # A timeout that is not a positive number has passed already.
        timeout_s = min(execute.timeout_s, limits.MAX_TIMEOUT_S) if execute.timeout_s > 0 else 0.0
        load = {"running": self.running, "queued": self.queued}
        admitted = self._admission.admit(execute, timeout_s=timeout_s, **load, draining=self._draining != "")
        if not isinstance(admitted, Allowed):
            # Not remembered: it has not run, so that the same id may be tried again later.
            rejected = self._send(results.rejected(execute.command_id, admitted))
            return [results.note("command.rejected", execute, reason=admitted.reason), *rejected]
        report = self._handover.report(execute)
        # A copy, since a part of a message keeps the whole of it in memory: a batch of a thousand.
        copy = deepcopy(execute)
        command = Command(copy, report, received_at=now, deadline=now + timeout_s, allowed=admitted)
        self._live[command.command_id] = command
        return [*self._send(results.accepted(command.command_id)), *self._place(now)]

    def _answer_again(self, command_id: str, now: float) -> list[Action] | None:
        """The answer to an Execute of a command that is known: what was said before, never a second run."""
        if (command := self._find(command_id)) is not None:
            told = self._handover.tell_again(command, now) if command.state is State.FINISHED else []
            return self._send(*results.said(command)) + told
        executed = YES if command_id in self._live else self._handover.executed(command_id)
        if executed is None:
            return None
        ran = f"this command was taken before (executed: {EXECUTED_TEXT[executed]}) and its result is not kept any more"
        return self._send(results.rejected(command_id, error(Reason.RESULT_EXPIRED, ran, executed=executed)))

    def _place(self, now: float) -> list[Action]:
        """Starts waiting commands, in the order they came, as far as there are places."""
        actions: list[Action] = []
        free = self._admission.max_concurrency - self.running
        for command in [c for c in self._live.values() if c.state is State.QUEUED]:
            if command.deadline <= now:
                actions += self._stop(command.command_id, TIMED_OUT, now)
            elif free > 0:
                free -= 1
                command.apply(Event.PLACED)
                command.placed_at = now
                actions.append(command.spawn())
        return actions

    def _stop(self, command_id: str, stop: Stop, now: float) -> list[Action]:
        command = self._live.get(command_id)
        if command is None or not command.apply(Event.STOPPED):
            return []
        command.stop = stop
        if command.state is State.ENDING:
            return [Kill(command_id)]
        del self._live[command_id]
        return self._handover.finish(command, None, now)

    def _abandon(self, command_id: str) -> list[Action]:
        """Nobody waits for a command: it is killed if it runs, and forgotten."""
        command = self._live.get(command_id) or self._handover.finished(command_id)
        if command is None or not command.apply(Event.ABANDONED):
            return []
        if command.state is State.DROPPED:
            return [Kill(command_id)]
        self._live.pop(command_id, None)
        return self._handover.forget(command)

    def _grant(self, credit: wire.Credit, now: float) -> list[Action]:
        if not credit.command_id:
            return self._handover.grant_stream(credit.bytes, now)
        command = self._find(credit.command_id)
        return [] if command is None else self._handover.grant(command, credit.bytes, now)

    def _sever(self, command: Command, now: float) -> list[Action]:
        """A broker asks for output that is not here any more: the live command ends, rather than leave a gap."""
        return [*self._handover.sever(command, now), *self._stop(command.command_id, SEVERED, now)]

    def _find(self, command_id: str) -> Command | None:
        """The command under this id, if somebody still waits for it."""
        command = self._live.get(command_id) or self._handover.finished(command_id)
        return None if command is None or command.state is State.DROPPED else command

    def _send(self, *frames: wire.ExecutorFrame) -> list[Action]:
        return [Send(frame) for frame in frames] if self._connected else []
