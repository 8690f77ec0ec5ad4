"""The account of every command of this replica: takes what happens, returns what should be done.

Pure and synchronous, so nothing can change between a decision and its record. What is known is in `account`, what
executors say of commands is read in `frames`.
"""

from collections.abc import Collection

from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.account import Account, acknowledge, offline, stop
from broker.core.actions import Action, Close, Send
from broker.core.command import Ask, Command, timed_out
from broker.core.connections import Connection, Connections, Full, Here, Nowhere
from broker.core.frames import Frame, Frames
from broker.core.life import Event, State
from broker.core.queue import FairQueue
from broker.core.recent import Recent
from openline import errors
from openline.reasons import NO, Reason
from openline.v1 import command_pb2, executor_service_pb2

BUSY_RETRY_S = 1.0


class ClusterAbsent(Exception):
    """No executor of the cluster is connected to this replica; nothing was recorded."""

    def __init__(self, cluster_id: str) -> None:
        super().__init__(cluster_id)
        self.cluster_id = cluster_id


class Outdated(Exception):
    """A later process of the same executor is connected; the connection was not registered."""


class Ledger:
    """Commands from their submission until their result is stored and acknowledged."""

    def __init__(self, *, reconnect_grace_s: float, max_commands: int = 50_000) -> None:
        self._grace_s = reconnect_grace_s
        self._max_commands = max_commands
        self._account = Account()
        self._frames = Frames(self._account)
        self._recent = Recent()

    def __repr__(self) -> str:
        return f"<Ledger {self._account!r}>"

    @property
    def commands(self) -> dict[str, Command]:
        return self._account.commands

    @property
    def connections(self) -> Connections:
        return self._account.connections

    # What callers ask

    def may_be_done(self, command_id: str, *, clock_s: float) -> bool:
        """Whether the store may have a result under this id, so that it is to be asked before `submit`."""
        return command_id not in self.commands and self._recent.may_be_done(command_id, clock_s=clock_s)

    def submit(self, ask: Ask, *, asked_at: Timestamp, now: float) -> tuple[Command, list[Action]]:
        """Records a command and places it, or finds the one that was asked for before under this id.

        Raises ClusterAbsent, or OpenlineError when the id is another command's or there is no room.
        """
        if (known := self.commands.get(ask.command_id)) is not None:
            if known.ask.is_same(ask):
                return known, []
            wrong = [("command_id", "another command has it")]
            raise errors.OpenlineError(errors.error(Reason.INVALID_COMMAND, "command_id is in use", violations=wrong))
        if len(self.commands) >= self._max_commands:
            raise errors.OpenlineError(_busy("this replica is full"))
        command = Command(ask=ask, created_at=now, asked_at=asked_at)
        match self.connections.place(ask.cluster_id):
            case Here(connection) if ask.cluster_id not in self._account.queues:
                self.commands[ask.command_id] = command
                return command, self._account.write(command, connection, now)
            case Nowhere(cluster_id) if not ask.wait_for_cluster_s:
                raise ClusterAbsent(cluster_id)
            case Nowhere():
                command.waits_until = now + ask.wait_for_cluster_s
                self._enqueue(command, due=command.waits_until)
            case Full() | Here():
                self._enqueue(command, due=command.deadline)
        return command, []

    def cancel(self, command: Command, *, why: str, now: float) -> list[Action]:
        """Ends a command that waits; passes the cancel on to the executor that holds it, now or when it is back.

        One that an executor holds ends when the executor says so.
        """
        if command.state is State.DONE:
            return []
        if command.state is State.QUEUED:
            error = errors.error(Reason.CANCELLED, why, executed=NO)
            return self._account.end(command, Event.CANCELLED, command_pb2.OUTCOME_CANCELLED, error, now)
        command.cancel_why = why
        connection = self.connections.of_instance(command.instance)
        return [] if connection is None else [stop(connection, command.command_id, why)]

    def settled(self, command: Command, *, stored: bool) -> list[Action]:
        """This replica forgets the command; its executor may as well, if the result is in Redis."""
        del self.commands[command.command_id]
        self._recent.add(command.command_id)
        connection = self.connections.of_instance(command.instance)
        return [acknowledge(connection, command.command_id)] if stored and connection is not None else []

    # What happens to connections

    def connect(
        self, connection: Connection, *, in_flight: Collection[str], unacked: Collection[str], now: float
    ) -> tuple[list[executor_service_pb2.Verdict], list[Action]]:
        """Registers a connection: what its instance still holds goes on, what an instance before it held is lost.

        A result that an instance left behind on disk is not lost: the next one lists it as unacked. Returns the
        verdicts for Welcome, which must be written before the actions are carried out.

        The Hello of a process that was killed may be read after that of the next one. Raises Outdated while that one
        is connected; while it is away, what it holds waits for it.
        """
        account = self._account
        current = self.connections.of_executor(connection.cluster_id, connection.executor_id)
        if current is not None and connection.is_outdated_by(current):
            raise Outdated("a later process of this executor is connected")
        actions: list[Action] = []
        replaced = self.connections.add(connection)
        # First: what ends below makes room, and what waits is written then.
        account.arrive(connection.cluster_id, now)
        before = [
            c for c in account.away.values() if _same_executor(c, connection) and not connection.is_outdated_by(c)
        ]
        if replaced is not None:
            actions.append(Close(replaced, "a newer connection of this executor is open"))
            before.append(replaced)
        for gone in before:
            account.away.pop(gone.instance, None)
            account.graces.discard(gone.instance)
            same = gone.instance == connection.instance
            held_there = {*in_flight, *unacked} if same else set(unacked)
            for command_id in sorted(gone.commands):
                command = self.commands[command_id]
                if same or command_id in held_there:
                    actions += self._resume(command, connection, held_there, now)
                else:
                    actions += account.lose(command, "its executor was restarted", now)
        verdicts = [self._verdict(command_id, connection, running=True) for command_id in in_flight]
        verdicts += [self._verdict(command_id, connection, running=False) for command_id in unacked]
        return verdicts, [*actions, *account.fill(connection.cluster_id, now)]

    def disconnect(self, connection: Connection, *, now: float) -> tuple[bool, list[Action]]:
        """The stream is gone; False if it was replaced before. What it held waits for its instance, for the grace."""
        if not self.connections.remove(connection):
            return False, []
        if connection.commands:
            self._account.away[connection.instance] = connection
            self._account.graces.add(connection.instance, now + self._grace_s)
        return True, self._account.strand(connection.cluster_id, now)

    def receive(self, connection: Connection, frame: Frame, *, now: float) -> list[Action]:
        """A frame about a command has come in on the connection."""
        return self._frames.receive(connection, frame, now=now)

    # What time brings

    def next_due(self) -> float | None:
        """When `tick` has something to do."""
        nexts = (self._account.deadlines.next(), self._account.graces.next())
        return min((due for due in nexts if due is not None), default=None)

    def tick(self, *, now: float) -> list[Action]:
        """Ends what has run out of time."""
        account = self._account
        actions: list[Action] = []
        due = [self.commands[command_id] for command_id in account.deadlines.pop(now)]
        # What waits first: the place of one that ran must not go to another whose time is up as well.
        for command in sorted(due, key=lambda command: command.state is not State.QUEUED):
            actions += self._expire(command, now)
        for instance in account.graces.pop(now):
            gone = account.away.pop(instance)
            for command_id in sorted(gone.commands):
                why = f"its executor has not come back within {self._grace_s:g} s"
                actions += account.lose(self.commands[command_id], why, now)
            actions += account.strand(gone.cluster_id, now)
        return actions

    # Decisions

    def _enqueue(self, command: Command, *, due: float) -> None:
        """The command waits for a place. Raises CLUSTER_BUSY when too many do."""
        queue = self._account.queues.get(command.ask.cluster_id) or FairQueue()
        if not queue.has_room(command.ask.share):
            raise errors.OpenlineError(_busy(f"{len(queue)} commands wait for cluster {command.ask.cluster_id!r}"))
        queue.put(command)
        self._account.queues[command.ask.cluster_id] = queue
        self.commands[command.command_id] = command
        self._account.deadlines.add(command.command_id, due)

    def _expire(self, command: Command, now: float) -> list[Action]:
        connection = self.connections.of_instance(command.instance)
        told = [] if connection is None else [stop(connection, command.command_id, "deadline")]
        if command.waits_until is None:
            outcome, error = command_pb2.OUTCOME_TIMED_OUT, timed_out(command)
        else:
            outcome, error = command_pb2.OUTCOME_REJECTED, offline(command.ask.cluster_id)
        return [*told, *self._account.end(command, Event.EXPIRED, outcome, error, now)]

    def _resume(
        self, command: Command, connection: Connection, held_there: Collection[str], now: float
    ) -> list[Action]:
        """The command's instance is back on another connection, or the next one has its result."""
        connection.commands.add(command.command_id)
        command.instance_id = connection.instance_id
        command.uncredited_bytes = 0
        command.apply(Event.RESUMED)
        cancel = [] if command.cancel_why is None else [stop(connection, command.command_id, command.cancel_why)]
        if command.command_id in held_there:
            if command.state is State.WRITTEN:
                command.apply(Event.ACCEPTED)  # the frame that said so was lost with the stream
            return [*cancel]
        if command.state is State.WRITTEN:
            return [Send(connection, command.frame(now)), *cancel]
        return self._account.lose(command, "its executor has no memory of it", now)

    def _verdict(self, command_id: str, connection: Connection, *, running: bool) -> executor_service_pb2.Verdict:
        command = self.commands.get(command_id)
        if command is not None and command.state is State.DONE:
            if not running and command.instance[:2] == connection.instance[:2]:
                # Its result is not stored yet: it is acknowledged to this instance, which may have it from disk.
                command.instance_id = connection.instance_id
            else:
                command = None  # its result is another one: nobody waits for what this one does
        if command is None or command.instance != connection.instance:
            return executor_service_pb2.Verdict(command_id=command_id, action=executor_service_pb2.VERDICT_ACTION_DROP)
        return executor_service_pb2.Verdict(
            command_id=command_id,
            action=executor_service_pb2.VERDICT_ACTION_KEEP,
            next_seq=command.transcript.next_seq,
        )


def _same_executor(one: Connection, other: Connection) -> bool:
    return (one.cluster_id, one.executor_id) == (other.cluster_id, other.executor_id)


def _busy(message: str) -> command_pb2.Error:
    return errors.error(Reason.CLUSTER_BUSY, message, retry_after_s=BUSY_RETRY_S)
