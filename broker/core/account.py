"""What the ledger knows: commands, connections, who waits, what is due; and how a command ends, whatever ended it."""

from collections.abc import Callable

from broker.core.actions import Action, Conclude, Forward, Send
from broker.core.agenda import Agenda
from broker.core.command import Command
from broker.core.connections import Connection, Connections, Here, Instance
from broker.core.life import Event, State
from broker.core.queue import FairQueue
from openline import errors
from openline.limits import DEADLINE_ALLOWANCE_S
from openline.reasons import NO, UNKNOWN, YES, Reason
from openline.v1 import command_pb2, executor_service_pb2

BrokerFrame = executor_service_pb2.BrokerFrame

# What to do about a command whose time went by while it waited.
NEVER_BEGUN = "It has not run: no executor took it in time. Ask again with a longer timeout, or for less at a time."


# What follows for others from what happens to a command.
Following = Callable[[Command, float], list[Action]]


def _nothing(_command: Command, _now: float) -> list[Action]:
    return []


class Account:
    """Shared by the parts of the ledger, which alone change it."""

    def __init__(self) -> None:
        self.commands: dict[str, Command] = {}
        self.connections = Connections()
        # Connections that broke with commands on them, until their instance is back or the grace is over.
        self.away: dict[Instance, Connection] = {}
        # By cluster; only those in which something waits.
        self.queues: dict[str, FairQueue] = {}
        self.deadlines = Agenda[str]()
        self.graces = Agenda[Instance]()
        # Of one that has ended, and of one that is to wait for its cluster from now on: for those that wait for it.
        self.ended: Following = _nothing
        self.stalled: Following = _nothing

    def __repr__(self) -> str:
        waiting = sum(map(len, self.queues.values()))
        return f"<Account commands={len(self.commands)} waiting={waiting} {self.connections!r} away={len(self.away)}>"

    def holder(self, command: Command) -> Connection | None:
        """The connection, open or broken, that the command is counted on."""
        return self.connections.of_instance(command.instance) or self.away.get(command.instance)

    def write(self, command: Command, connection: Connection, now: float) -> list[Action]:
        """The command goes out on a stream, of an executor that has not had it."""
        command.written(instance_id=connection.instance_id, executor_id=connection.executor_id, now=now)
        connection.commands.add(command.command_id)
        if command.twin is not None:
            command.twin.announced = connection.capabilities
        self.deadlines.add(command.command_id, command.deadline + DEADLINE_ALLOWANCE_S)
        return [Send(connection, command.frame(now))]

    def fill(self, cluster_id: str, now: float) -> list[Action]:
        """Writes what waits for this cluster, in turn, as far as there is room."""
        actions: list[Action] = []
        expired: list[Command] = []
        queue = self.queues.get(cluster_id)
        while queue and isinstance(place := self.connections.place(cluster_id), Here):
            command = queue.pop()
            if command is not None and command.deadline > now:
                actions += self.write(command, place.connection, now)
            elif command is not None:
                # Its turn comes in the very moment in which its time is up, or after this process stood still.
                self.deadlines.discard(command.command_id)
                error = timed_out(command)
                command.apply(Event.EXPIRED)
                command.end(command_pb2.OUTCOME_TIMED_OUT, error, now)
                actions.append(Conclude(command))
                expired.append(command)
        if queue is not None and not queue:
            del self.queues[cluster_id]
        # Behind the loop: what follows may stand in the same line.
        for command in expired:
            actions += self.ended(command, now)
        return actions

    def arrive(self, cluster_id: str, now: float) -> None:
        """The cluster has come: what waited for it waits for a place now."""
        for command in self.queues.get(cluster_id, ()):
            if command.waits_until is not None:
                self.begin_clock(command, now)
                self.deadlines.add(command.command_id, command.deadline)

    def begin_clock(self, command: Command, now: float) -> None:
        """The command waits for its cluster no more. Its timeout begins, if it had a time of its own for that."""
        if command.waits_until is not None and command.ask.wait_for_cluster_s:
            command.clock_from = now
        command.waits_until = None

    def end(
        self,
        command: Command,
        event: Event,
        outcome: command_pb2.Outcome.ValueType,
        error: command_pb2.Error,
        now: float,
    ) -> list[Action]:
        """Ends a command by itself, without its executor's word."""
        command.apply(event)
        command.end(outcome, error, now)
        return self.concluded(command, now)

    def lose(self, command: Command, why: str, now: float) -> list[Action]:
        """The instance that held the command is gone."""
        error = errors.error(Reason.EXECUTOR_LOST, why)
        return self.end(command, Event.INSTANCE_GONE, command_pb2.OUTCOME_LOST, error, now)

    def concluded(self, command: Command, now: float) -> list[Action]:
        """The command has its result; its place is free for the next one."""
        cluster_id = command.ask.cluster_id
        self.deadlines.discard(command.command_id)
        if (connection := self.holder(command)) is not None:
            connection.commands.discard(command.command_id)
        if (queue := self.queues.get(cluster_id)) is not None:
            queue.discard(command)
        return [Conclude(command), *self.fill(cluster_id, now), *self.ended(command, now)]

    def stop(self, command: Command, why: str, now: float) -> list[Action]:
        """Ends a command that waits; passes the cancel on to whoever holds it, now or when it is found."""
        command.cancel_why = why
        if command.state is State.QUEUED:
            error = errors.error(Reason.CANCELLED, why, executed=NO)
            return self.end(command, Event.CANCELLED, command_pb2.OUTCOME_CANCELLED, error, now)
        if command.state is State.FORWARDED:
            return [Forward(command)]
        connection = self.connections.of_instance(command.instance)
        return [] if connection is None else [stop(connection, command.command_id, why)]


Step = Callable[[Command, executor_service_pb2.ExecutorFrame, float], list[Action]]


def offline(cluster_id: str) -> command_pb2.Error:
    """The error of a command whose cluster is not connected; since when is for the store to say."""
    return errors.error(
        Reason.CLUSTER_OFFLINE,
        f"no executor of cluster {cluster_id!r} is connected",
        executed=NO,
        retry_after_s=5.0,
        metadata={"cluster_id": cluster_id},
    )


def timed_out(command: Command) -> command_pb2.Error:
    """The error of a command whose deadline passed without an answer of its executor."""
    # One that was accepted may have waited for its place: only Started says that it ran.
    executed = {State.QUEUED: NO, State.RUNNING: YES}.get(command.state, UNKNOWN)
    message = f"no result within {command.ask.timeout_s:g} s"
    metadata = {errors.NEXT_STEP: NEVER_BEGUN} if executed == NO else {}
    return errors.error(Reason.COMMAND_TIMEOUT, message, executed=executed, metadata=metadata)


def acknowledge(connection: Connection, command_id: str) -> Send:
    """The executor may forget the command."""
    ack = executor_service_pb2.ResultAck(command_id=command_id)
    return Send(connection, BrokerFrame(result_ack=ack))


def stop(connection: Connection, command_id: str, why: str) -> Send:
    """The executor is to stop the command."""
    cancel = executor_service_pb2.Cancel(command_id=command_id, why=why)
    return Send(connection, BrokerFrame(cancel=cancel))


def credit(connection: Connection, *, command_id: str, size: int) -> Send:
    """The executor may send more output."""
    more = executor_service_pb2.Credit(command_id=command_id, bytes=size)
    return Send(connection, BrokerFrame(credit=more))
