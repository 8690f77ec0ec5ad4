"""Executors that connect: what they hold goes on, is taken over from another replica, or is not wanted any more.

Whoever holds a command lists it in Hello. For one that this replica has never heard of, the executor shows what it was
told, under the seal of the replica that told it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from broker.core.account import Account, stop
from broker.core.actions import Action, Close, Send
from broker.core.command import Ask, Command
from broker.core.connections import Connection
from broker.core.directory import Directory
from broker.core.life import Event, State
from broker.core.routes import FORWARD_ALLOWANCE_S
from openline.limits import DEADLINE_ALLOWANCE_S
from openline.v1 import executor_service_pb2
from openline.v1.cluster_service_pb2 import ConnectedExecutor

Verdict = executor_service_pb2.Verdict


class Outdated(Exception):
    """A later process of the same executor is connected, or its own process has opened a later stream; the connection
    was not registered."""


@dataclass(frozen=True, slots=True)
class Held:
    """A command that an executor holds and another replica sent: what was asked, with the time that remains."""

    ask: Ask
    # The first output that can still be had.
    first_seq: int


class Arrivals:
    """The part of the ledger that says Welcome."""

    def __init__(self, account: Account, directory: Directory, *, max_commands: int) -> None:
        self._account = account
        self._directory = directory
        self._max_commands = max_commands

    def connect(
        self,
        connection: Connection,
        *,
        in_flight: Collection[str],
        unacked: Collection[str],
        held: Mapping[str, Held],
        now: float,
    ) -> tuple[list[Verdict], list[Action]]:
        """See `Ledger.connect`."""
        account = self._account
        self._check_is_latest(connection)
        actions: list[Action] = []
        replaced = account.connections.add(connection)
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
                command = account.commands[command_id]
                if same or command_id in held_there:
                    actions += self._resume(command, connection, held_there, now)
                else:
                    actions += account.lose(command, "its executor was restarted", now)
        for command_id in (*in_flight, *unacked):
            if (known := held.get(command_id)) is not None:
                actions += self._take_over(command_id, known, connection, now)
        verdicts = [self._verdict(command_id, connection, running=True) for command_id in in_flight]
        verdicts += [self._verdict(command_id, connection, running=False) for command_id in unacked]
        return verdicts, [*actions, *account.fill(connection.cluster_id, now)]

    def _check_is_latest(self, connection: Connection) -> None:
        """A Hello may be read after that of the next stream. What it lists is old then, and nobody is at its other end.

        Raises Outdated.
        """
        account, executor = self._account, (connection.cluster_id, connection.executor_id)
        current = account.connections.of_executor(*executor)
        if current is not None and connection.is_outdated_by(current):
            raise Outdated("a later process of this executor is connected")
        others: list[Connection | ConnectedExecutor | None] = [current, account.away.get(connection.instance)]
        if (entry := self._directory.of_executor(*executor)) is not None:
            others.append(entry.executor)
        if any(other is not None and connection.was_given_up_for(other) for other in others):
            raise Outdated("this process has opened a later stream")

    def _resume(
        self, command: Command, connection: Connection, held_there: Collection[str], now: float
    ) -> list[Action]:
        """The command's instance is back on another connection, or the next one has its result."""
        connection.commands.add(command.command_id)
        command.resume(instance_id=connection.instance_id, executor_id=connection.executor_id)
        if command.command_id in held_there:
            if command.state is State.WRITTEN:
                command.apply(Event.ACCEPTED)  # the frame that said so was lost with the stream
            return self._cancel_again(command, connection)
        if command.state is State.WRITTEN:
            return [Send(connection, command.frame(now)), *self._cancel_again(command, connection)]
        return self._account.lose(command, "its executor has no memory of it", now)

    def _take_over(self, command_id: str, held: Held, connection: Connection, now: float) -> list[Action]:
        """The command was another replica's, whose connection is gone; it is this one's now."""
        account = self._account
        command = account.commands.get(command_id)
        if command is None:
            if len(account.commands) >= self._max_commands:
                return []
            command = Command(ask=held.ask, created_at=now, asked_at=connection.connected_at)
            command.written(instance_id=connection.instance_id, executor_id=connection.executor_id, now=now)
            command.apply(Event.ACCEPTED)
            account.commands[command_id] = command
            account.deadlines.add(command_id, command.deadline + DEADLINE_ALLOWANCE_S)
        elif command.state is State.FORWARDED and command.ask.cluster_id == connection.cluster_id:
            command.resume(instance_id=connection.instance_id, executor_id=connection.executor_id)
            account.deadlines.add(command_id, command.deadline + FORWARD_ALLOWANCE_S)
        else:
            return []
        connection.commands.add(command_id)
        if held.first_seq > command.transcript.next_seq:
            command.transcript.skip_to(held.first_seq)
        return self._cancel_again(command, connection)

    def _cancel_again(self, command: Command, connection: Connection) -> list[Action]:
        return [] if command.cancel_why is None else [stop(connection, command.command_id, command.cancel_why)]

    def _verdict(self, command_id: str, connection: Connection, *, running: bool) -> Verdict:
        command = self._account.commands.get(command_id)
        if command is not None and command.state is State.DONE:
            if not running and command.instance[:2] == connection.instance[:2]:
                # Its result is not stored yet: it is acknowledged to this instance, which may have it from disk.
                command.instance_id = connection.instance_id
            else:
                command = None  # its result is another one: nobody waits for what this one does
        if command is None or command.instance != connection.instance:
            return Verdict(command_id=command_id, action=executor_service_pb2.VERDICT_ACTION_DROP)
        return Verdict(
            command_id=command_id,
            action=executor_service_pb2.VERDICT_ACTION_KEEP,
            next_seq=command.transcript.next_seq,
        )


def _same_executor(one: Connection, other: Connection) -> bool:
    return (one.cluster_id, one.executor_id) == (other.cluster_id, other.executor_id)
