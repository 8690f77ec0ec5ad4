"""The account of every command of this replica: takes what happens, returns what should be done.

Pure and synchronous, so nothing can change between a decision and its record. What a connection says is believed only
for commands that were written to that executor instance.
"""

from collections.abc import Callable, Collection

from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.actions import Action, Close, Conclude, Send
from broker.core.agenda import Agenda
from broker.core.command import Ask, Command, is_end, timed_out, told
from broker.core.connections import Connection, Connections, Here, Instance, Nowhere
from broker.core.life import Event, OutOfOrder, State
from openline import errors
from openline.limits import DEADLINE_ALLOWANCE_S
from openline.reasons import Reason
from openline.v1 import command_pb2, executor_service_pb2

Frame = executor_service_pb2.ExecutorFrame
BrokerFrame = executor_service_pb2.BrokerFrame


class ClusterAbsent(Exception):
    """No executor of the cluster is connected to this replica; nothing was recorded."""

    def __init__(self, cluster_id: str) -> None:
        super().__init__(cluster_id)
        self.cluster_id = cluster_id


class Ledger:
    """Commands from their submission until their result is stored and acknowledged."""

    def __init__(self, *, reconnect_grace_s: float, max_commands: int = 50_000) -> None:
        self._grace_s = reconnect_grace_s
        self._max_commands = max_commands
        self.commands: dict[str, Command] = {}
        self.connections = Connections()
        # Connections that broke with commands on them, until their instance is back or the grace is over.
        self._away: dict[Instance, Connection] = {}
        self._deadlines = Agenda[str]()
        self._graces = Agenda[Instance]()
        self._receive: dict[str, Callable[[Command, Frame, float], list[Action]]] = {
            "accepted": lambda command, _frame, _now: self._moved(command, Event.ACCEPTED),
            "started": lambda command, _frame, _now: self._moved(command, Event.STARTED),
            "rejected": self._rejected,
            "output": self._output,
            "finished": self._finished,
        }

    def __repr__(self) -> str:
        return f"<Ledger commands={len(self.commands)} connections={len(self.connections)} away={len(self._away)}>"

    # What callers ask

    def submit(self, ask: Ask, *, asked_at: Timestamp, now: float) -> tuple[Command, list[Action]]:
        """Records a command and places it. Raises ClusterAbsent, or OpenlineError when there is no room for it."""
        if ask.command_id in self.commands:
            in_use = errors.error(
                Reason.INVALID_COMMAND, "command_id is in use", violations=[("command_id", "a command with it runs")]
            )
            raise errors.OpenlineError(in_use)
        if len(self.commands) >= self._max_commands:
            raise errors.OpenlineError(errors.error(Reason.CLUSTER_BUSY, "this replica is full", retry_after_s=1.0))
        match self.connections.place(ask.cluster_id):
            case Nowhere(cluster_id):
                raise ClusterAbsent(cluster_id)
            case Here(connection):
                command = Command(ask=ask, created_at=now, asked_at=asked_at)
                self.commands[ask.command_id] = command
                command.written(instance_id=connection.instance_id, executor_id=connection.executor_id, now=now)
                connection.commands.add(ask.command_id)
                self._deadlines.add(ask.command_id, command.deadline + DEADLINE_ALLOWANCE_S)
                return command, [Send(connection, command.frame(now))]

    def cancel(self, command: Command, *, why: str) -> list[Action]:
        """Passes a cancel on to the executor that holds the command, now or when it is back.

        The command ends when the executor says so.
        """
        if command.state is State.DONE:
            return []
        command.cancel_why = why
        connection = self.connections.of_instance(command.instance)
        return [] if connection is None else [_stop(connection, command, why)]

    # What happens to connections

    def connect(
        self, connection: Connection, *, in_flight: Collection[str], unacked: Collection[str], now: float
    ) -> tuple[list[executor_service_pb2.Verdict], list[Action]]:
        """Registers a connection: what its instance still holds goes on, what an instance before it held is lost.

        Returns the verdicts for Welcome, which must be written before the actions are carried out.
        """
        actions: list[Action] = []
        replaced = self.connections.add(connection)
        before = [c for c in self._away.values() if _same_executor(c, connection)]
        if replaced is not None:
            actions.append(Close(replaced, "a newer connection of this executor is open"))
            before.append(replaced)
        for gone in before:
            self._away.pop(gone.instance, None)
            self._graces.discard(gone.instance)
            for command_id in sorted(gone.commands):
                if gone.instance == connection.instance:
                    actions += self._resume(self.commands[command_id], connection, {*in_flight, *unacked}, now)
                else:
                    actions += self._lose(self.commands[command_id], "its executor was restarted", now)
        return [self._verdict(command_id, connection) for command_id in (*in_flight, *unacked)], actions

    def disconnect(self, connection: Connection, *, now: float) -> bool:
        """The stream is gone; False if it was replaced before. What it held waits for its instance, for the grace."""
        if not self.connections.remove(connection):
            return False
        if connection.commands:
            self._away[connection.instance] = connection
            self._graces.add(connection.instance, now + self._grace_s)
        return True

    def receive(self, connection: Connection, frame: Frame, *, now: float) -> list[Action]:
        """A frame about a command. One that is out of order ends its command, and only that."""
        kind = frame.WhichOneof("frame")
        if kind not in self._receive:
            return []
        command_id = getattr(frame, kind).command_id
        command = self.commands.get(command_id)
        if command is None:
            # Its result was stored and forgotten here; the ResultAck was lost on the way.
            return [_acknowledge(connection, command_id)] if kind == "finished" else []
        if command.instance != connection.instance:
            return []
        try:
            return self._receive[kind](command, frame, now)
        except OutOfOrder as disorder:
            command.apply(Event.VIOLATED)
            error = errors.error(Reason.EXECUTOR_LOST, f"the executor broke the protocol: {disorder}")
            command.end(command_pb2.OUTCOME_LOST, error, now)
            return [_stop(connection, command, "out of order"), *self._concluded(command)]

    def settled(self, command: Command, *, stored: bool) -> list[Action]:
        """This replica forgets the command; its executor may as well, if the result is in Redis."""
        del self.commands[command.command_id]
        if not stored:
            return []
        connection = self.connections.of_instance(command.instance)
        return [] if connection is None else [_acknowledge(connection, command.command_id)]

    # What time brings

    def next_due(self) -> float | None:
        """When `tick` has something to do."""
        return min((due for due in (self._deadlines.next(), self._graces.next()) if due is not None), default=None)

    def tick(self, *, now: float) -> list[Action]:
        """Ends what has run out of time."""
        actions: list[Action] = []
        for command_id in self._deadlines.pop(now):
            command = self.commands[command_id]
            error = timed_out(command)
            command.apply(Event.EXPIRED)
            command.end(command_pb2.OUTCOME_TIMED_OUT, error, now)
            if (connection := self.connections.of_instance(command.instance)) is not None:
                actions.append(_stop(connection, command, "deadline"))
            actions += self._concluded(command)
        for instance in self._graces.pop(now):
            for command_id in sorted(self._away.pop(instance).commands):
                why = f"its executor has not come back within {self._grace_s:g} s"
                actions += self._lose(self.commands[command_id], why, now)
        return actions

    # Frames, one method a kind

    def _moved(self, command: Command, event: Event) -> list[Action]:
        command.apply(event)
        return []

    def _output(self, command: Command, frame: Frame, _now: float) -> list[Action]:
        command.take(frame.output)
        return []

    def _rejected(self, command: Command, frame: Frame, now: float) -> list[Action]:
        if not command.apply(Event.REJECTED):
            return []
        command.end(command_pb2.OUTCOME_REJECTED, told(frame.rejected.error, command_pb2.OUTCOME_REJECTED), now)
        return self._concluded(command)

    def _finished(self, command: Command, frame: Frame, now: float) -> list[Action]:
        if command.state is not State.DONE and not is_end(frame.finished.outcome):
            raise OutOfOrder(f"finished with outcome {frame.finished.outcome}")
        if not command.apply(Event.FINISHED):
            return []  # `settled` will acknowledge it
        command.finish(frame.finished, now)
        return self._concluded(command)

    # Beginnings and ends

    def _resume(
        self, command: Command, connection: Connection, held_there: Collection[str], now: float
    ) -> list[Action]:
        """The command's instance is back on another connection."""
        connection.commands.add(command.command_id)
        command.apply(Event.RESUMED)
        cancel = [] if command.cancel_why is None else [_stop(connection, command, command.cancel_why)]
        if command.command_id in held_there:
            if command.state is State.WRITTEN:
                command.apply(Event.ACCEPTED)  # the frame that said so was lost with the stream
            return [*cancel]
        if command.state is State.WRITTEN:
            return [Send(connection, command.frame(now)), *cancel]
        return self._lose(command, "its executor has no memory of it", now)

    def _lose(self, command: Command, why: str, now: float) -> list[Action]:
        command.apply(Event.INSTANCE_GONE)
        command.end(command_pb2.OUTCOME_LOST, errors.error(Reason.EXECUTOR_LOST, why), now)
        return self._concluded(command)

    def _concluded(self, command: Command) -> list[Action]:
        self._deadlines.discard(command.command_id)
        if (connection := self._holder(command)) is not None:
            connection.commands.discard(command.command_id)
        return [Conclude(command)]

    def _holder(self, command: Command) -> Connection | None:
        """The connection, open or broken, that the command is counted on."""
        return self.connections.of_instance(command.instance) or self._away.get(command.instance)

    def _verdict(self, command_id: str, connection: Connection) -> executor_service_pb2.Verdict:
        command = self.commands.get(command_id)
        keep = command is not None and command.instance == connection.instance
        action = executor_service_pb2.VERDICT_ACTION_KEEP if keep else executor_service_pb2.VERDICT_ACTION_DROP
        return executor_service_pb2.Verdict(command_id=command_id, action=action)


def _same_executor(one: Connection, other: Connection) -> bool:
    return (one.cluster_id, one.executor_id) == (other.cluster_id, other.executor_id)


def _acknowledge(connection: Connection, command_id: str) -> Send:
    ack = executor_service_pb2.ResultAck(command_id=command_id)
    return Send(connection, BrokerFrame(result_ack=ack))


def _stop(connection: Connection, command: Command, why: str) -> Send:
    cancel = executor_service_pb2.Cancel(command_id=command.command_id, why=why)
    return Send(connection, BrokerFrame(cancel=cancel))
