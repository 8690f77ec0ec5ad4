"""The account of every command of this replica: takes what happens, returns what should be done.

Pure and synchronous, so nothing can change between a decision and its record. What is known is in `account`. What
executors say of commands is read in `frames`, what they bring with them in `arrivals`, what other replicas tell in
`relayed`; where commands go is in `routes`.
"""

from collections.abc import Collection, Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.account import Account, acknowledge, offline, stop, timed_out
from broker.core.actions import Action
from broker.core.arrivals import Arrivals, Held, Outdated
from broker.core.command import Ask, Command
from broker.core.connections import Connection, Connections
from broker.core.directory import Directory
from broker.core.frames import Frame, Frames
from broker.core.life import Event, State
from broker.core.recent import Recent
from broker.core.relayed import Relayed
from broker.core.routes import ClusterAbsent, Routes, busy
from broker.core.twins import Twins
from broker.core.whose import Whose
from openline import errors
from openline.reasons import Reason
from openline.v1 import command_pb2, executor_service_pb2

__all__ = ["ClusterAbsent", "Held", "Ledger", "Outdated"]


class Ledger:
    """Commands from their submission until their result is stored and acknowledged."""

    def __init__(
        self, *, reconnect_grace_s: float, directory: Directory | None = None, max_commands: int = 50_000
    ) -> None:
        self._grace_s = reconnect_grace_s
        self._max_commands = max_commands
        self._account = Account()
        self._recent = Recent()
        directory = directory or Directory("")
        self._routes = Routes(self._account, directory)
        self._frames = Frames(self._account, self._routes.returned)
        self._twins = Twins(self._account, self._routes)
        self._arrivals = Arrivals(self._account, directory, max_commands=max_commands)
        # What other replicas tell of commands that they have.
        self.relayed = Relayed(self._account, self._routes)

    def __repr__(self) -> str:
        return f"<Ledger {self._account!r}>"

    @property
    def commands(self) -> dict[str, Command]:
        return self._account.commands

    @property
    def connections(self) -> Connections:
        return self._account.connections

    @property
    def away(self) -> int:
        """How many executors have commands and no connection, and may come back."""
        return len(self._account.away)

    # What callers ask

    def may_be_done(self, command_id: str, *, clock_s: float) -> bool:
        """Whether the store may have a result under this id, so that it is to be asked before `submit`."""
        return command_id not in self.commands and self._recent.may_be_done(command_id, clock_s=clock_s)

    def submit(self, ask: Ask, *, asked_at: Timestamp, now: float, known_to: str = "") -> tuple[Command, list[Action]]:
        """Records a command and places it, or finds the one that was asked for before under this id.

        One that may be shared may wait for an identical one instead, or have the result of one at once.
        `known_to` is the replica that has it already. Raises ClusterAbsent, or OpenlineError when the id is another
        command's or there is no room.
        """
        if (known := self.commands.get(ask.command_id)) is not None:
            if known.ask.is_same(ask):
                return known, []
            wrong = [("command_id", "another command has it")]
            raise errors.OpenlineError(errors.error(Reason.INVALID_COMMAND, "command_id is in use", violations=wrong))
        if len(self.commands) >= self._max_commands:
            raise errors.OpenlineError(busy("this replica is full", queued=len(self.commands)))
        command = Command(ask=ask, created_at=now, asked_at=asked_at)
        if known_to:
            return command, self._routes.follow(command, known_to, now)
        if ask.attach:
            return command, self._routes.seek(command, now, may_return=not ask.is_anothers)
        return command, self._twins.place(command, now)

    def cancel(self, command: Command, *, why: str, now: float) -> list[Action]:
        """Ends a command that waits; passes the cancel on to whoever holds it, now or when it is found.

        One that an executor holds ends when the executor says so; but at once, if others wait for what it runs.
        """
        if command.result is not None:
            return []
        if self._twins.are_waiting_for(command):
            return self._twins.part(command, why, now)
        return self._account.stop(command, why, now)

    def of(self, whose: Whose) -> list[Command]:
        """The commands that have not ended; first those that wait, none of which is to take the place of another."""
        meant = [each for each in self.commands.values() if each.result is None and whose.has(each.ask)]
        return sorted(meant, key=lambda command: command.state is not State.QUEUED)

    def settled(self, command: Command, *, stored: bool) -> list[Action]:
        """This replica forgets the command; its executor may as well, if the result is in Redis."""
        del self.commands[command.command_id]
        self._recent.add(command.command_id)
        connection = self.connections.of_instance(command.instance)
        return [acknowledge(connection, command.command_id)] if stored and connection is not None else []

    # What happens to connections

    def connect(
        self,
        connection: Connection,
        *,
        in_flight: Collection[str],
        unacked: Collection[str],
        held: Mapping[str, Held] | None = None,
        now: float,
    ) -> tuple[list[executor_service_pb2.Verdict], list[Action]]:
        """Registers a connection: what its instance still holds goes on, what an instance before it held is lost.

        A result that an instance left behind on disk is not lost: the next one lists it as unacked. `held` is what
        other replicas have sent, by command id: it is taken over. Returns the verdicts for Welcome, which must be
        written before the actions are carried out.

        A Hello may be read after that of the next stream. Raises Outdated if that is the same process's, or is
        connected; while a later process is away, what it holds waits for it.
        """
        return self._arrivals.connect(connection, in_flight=in_flight, unacked=unacked, held=held or {}, now=now)

    def disconnect(self, connection: Connection, *, now: float) -> tuple[bool, list[Action]]:
        """The stream is gone; False if it was replaced before. What it held waits for its instance, for the grace."""
        if not self.connections.remove(connection):
            return False, []
        if connection.commands:
            self._account.away[connection.instance] = connection
            self._account.graces.add(connection.instance, now + self._grace_s)
        return True, self._routes.strand(connection.cluster_id, now)

    def receive(self, connection: Connection, frame: Frame, *, now: float) -> list[Action]:
        """A frame about a command has come in on the connection."""
        return self._frames.receive(connection, frame, now=now)

    # What happens elsewhere

    def news(self, cluster_id: str, *, now: float) -> list[Action]:
        """The directory has changed what it says of this cluster."""
        return self._routes.news(cluster_id, now)

    # What time brings

    def next_due(self) -> float | None:
        """When `tick` has something to do."""
        nexts = (self._account.deadlines.next(), self._account.graces.next(), self._twins.next_due())
        return min((due for due in nexts if due is not None), default=None)

    def tick(self, *, now: float) -> list[Action]:
        """Ends what has run out of time."""
        account = self._account
        actions: list[Action] = []
        self._twins.forget(now)
        due = [self.commands[command_id] for command_id in account.deadlines.pop(now)]
        # What waits first: the place of one that ran must not go to another whose time is up as well.
        for command in sorted(due, key=lambda command: command.state is not State.QUEUED):
            # The end of one may be that of others, which waited for it.
            if command.state is not State.DONE:
                actions += self._expire(command, now)
        for instance in account.graces.pop(now):
            gone = account.away.pop(instance)
            for command_id in sorted(gone.commands):
                why = f"its executor has not come back within {self._grace_s:g} s"
                actions += account.lose(self.commands[command_id], why, now)
            actions += self._routes.strand(gone.cluster_id, now)
        return actions

    def _expire(self, command: Command, now: float) -> list[Action]:
        connection = self.connections.of_instance(command.instance)
        told = [] if connection is None else [stop(connection, command.command_id, "deadline")]
        if command.waits_until is None:
            outcome, error = command_pb2.OUTCOME_TIMED_OUT, timed_out(command)
        else:
            outcome, error = command_pb2.OUTCOME_REJECTED, offline(command.ask.cluster_id)
        return [*told, *self._account.end(command, Event.EXPIRED, outcome, error, now)]
