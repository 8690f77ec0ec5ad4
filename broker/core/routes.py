"""Where a command goes: onto a connection here, to another replica, or into the line until there is a place.

The one part of the ledger that looks at both this replica's connections and the directory of the others'. A command
that was forwarded here is never forwarded again.
"""

from broker.core.account import Account, Following, offline, timed_out
from broker.core.actions import Action, Forward
from broker.core.command import Command
from broker.core.connections import Connection, Here, Nowhere, Place
from broker.core.directory import Directory, Entry
from broker.core.life import Event, State
from broker.core.queue import FairQueue
from openline import errors
from openline.limits import DEADLINE_ALLOWANCE_S
from openline.reasons import Reason
from openline.v1 import command_pb2

BUSY_RETRY_S = 1.0
# The replica that runs a command tells what became of it by then; this one allows it the same on top.
FORWARD_ALLOWANCE_S = 2 * DEADLINE_ALLOWANCE_S


class ClusterAbsent(Exception):
    """No executor of the cluster is connected to any replica, as far as is known; nothing was recorded."""

    def __init__(self, cluster_id: str, *, is_moving: bool = False) -> None:
        super().__init__(cluster_id)
        self.cluster_id = cluster_id
        # One was told to move, and is between two replicas.
        self.is_moving = is_moving


class Routes:
    """The part of the ledger that places."""

    def __init__(self, account: Account, directory: Directory) -> None:
        self._account = account
        self._directory = directory
        # For what comes back; as `place`.
        self.placing: Following = self.place

    def place(self, command: Command, now: float) -> list[Action]:
        """Writes, forwards or queues a command. Raises ClusterAbsent or CLUSTER_BUSY, and has recorded nothing then."""
        account, cluster_id = self._account, command.ask.cluster_id
        here = account.connections.place(cluster_id)
        if isinstance(here, Here) and cluster_id not in account.queues:
            account.commands[command.command_id] = command
            return account.write(command, here.connection, now)
        if (entry := self._elsewhere(command, here, now)) is not None:
            account.commands[command.command_id] = command
            return self._forward(command, entry)
        if not isinstance(here, Nowhere):
            self._enqueue(command, due=command.deadline)
        elif (until := self._wait_until(command, now)) is not None:
            command.waits_until = until
            self._enqueue(command, due=until)
            return account.stalled(command, now)
        else:
            is_moving = self._directory.expected_until(cluster_id, now=now) is not None
            raise ClusterAbsent(cluster_id, is_moving=is_moving)
        return []

    def seek(self, command: Command, now: float, *, may_return: bool) -> list[Action]:
        """Nobody here knows where the command is: it is looked for, until its deadline."""
        account = self._account
        account.commands[command.command_id] = command
        command.forward("", known=True, may_return=may_return)
        account.deadlines.add(command.command_id, max(command.deadline, now) + FORWARD_ALLOWANCE_S)
        return [Forward(command)]

    def follow(self, command: Command, replica_id: str, now: float) -> list[Action]:
        """The command is known to that replica."""
        actions = self.seek(command, now, may_return=command.may_return)
        command.replica_id = replica_id
        return actions

    def returned(self, command: Command, now: float) -> list[Action]:
        """Nobody has the command after all: it is placed anew, if somebody still wants it and there is time."""
        command.forget_place()
        self._account.deadlines.discard(command.command_id)
        why = command.cancel_why
        if why is None and command.result is not None:
            why = command.result.error.message  # it went on for others, who are placed by themselves
        if why is not None:
            return self._account.stop(command, why, now)
        if command.deadline <= now:
            outcome, error = command_pb2.OUTCOME_TIMED_OUT, timed_out(command)
            return self._account.end(command, Event.EXPIRED, outcome, error, now)
        return self._place_or_end(command, self.placing, now)

    def place_again(self, command: Command, now: float) -> list[Action]:
        """Places a command that is recorded and QUEUED, or ends it."""
        return self._place_or_end(command, self.place, now)

    def _place_or_end(self, command: Command, place: Following, now: float) -> list[Action]:
        try:
            return place(command, now)
        except ClusterAbsent:
            return self._end_offline(command, now)
        except errors.OpenlineError as refusal:
            return self._account.end(command, Event.STRANDED, command_pb2.OUTCOME_REJECTED, refusal.error, now)

    def news(self, cluster_id: str, now: float) -> list[Action]:
        """The directory has changed: what waits here, or for an executor to come back, may be for another replica."""
        account = self._account
        actions: list[Action] = []
        for gone in [gone for gone in account.away.values() if gone.cluster_id == cluster_id]:
            actions += self.move(gone, now)
        queue = account.queues.get(cluster_id)
        if queue is None or account.connections.serve(cluster_id):
            return actions
        while queue and (entry := self._directory.place(cluster_id, now=now)) is not None:
            if (command := queue.pop()) is None:
                break
            account.deadlines.discard(command.command_id)
            if command.ask.origin:
                actions += self._end_offline(command, now)
            else:
                account.begin_clock(command, now)
                actions += self._forward(command, entry)
        if not queue:
            account.queues.pop(cluster_id, None)
        return actions

    def move(self, gone: Connection, now: float) -> list[Action]:
        """What was on a connection that broke is followed to where its executor is connected now, if that is known.

        Its Hello there has listed what it holds. So what was only written to this one, and is not known there, was not
        accepted and may be placed anew; unless it is another process, of which the one before may have run anything.
        """
        account = self._account
        entry = self._directory.elsewhere(gone.instance)
        if entry is None or entry.executor.epoch <= gone.epoch:
            return []
        account.away.pop(gone.instance, None)
        account.graces.discard(gone.instance)
        is_same = entry.executor.instance_id == gone.instance_id
        actions: list[Action] = []
        for command_id in sorted(gone.commands):
            command = account.commands[command_id]
            command.may_return = is_same and command.state is State.WRITTEN
            actions += self.follow(command, entry.replica_id, now)
        gone.commands.clear()
        return actions

    def strand(self, cluster_id: str, now: float) -> list[Action]:
        """Ends what waits for a place in a cluster that has gone, but for those that may wait longer."""
        account = self._account
        if account.connections.serve(cluster_id):
            return []
        actions = self.news(cluster_id, now)
        if any(gone.cluster_id == cluster_id for gone in account.away.values()):
            return actions
        for command in account.queues.get(cluster_id, ()):
            if (until := self._wait_until(command, now)) is not None:
                command.waits_until = until
                account.deadlines.add(command.command_id, until)
                actions += account.stalled(command, now)
            else:
                actions += self._end_offline(command, now)
        return actions

    def _elsewhere(self, command: Command, here: Place, now: float) -> Entry | None:
        """An executor on another replica: if there is none here, or one there has a free place and none here has."""
        if command.ask.origin:
            return None
        below_load = None if isinstance(here, Nowhere) else 1.0
        return self._directory.place(command.ask.cluster_id, now=now, below_load=below_load)

    def _forward(self, command: Command, entry: Entry) -> list[Action]:
        entry.forwarded += 1
        command.forward(entry.replica_id, known=False, may_return=True)
        self._account.deadlines.add(command.command_id, command.deadline + FORWARD_ALLOWANCE_S)
        return [Forward(command)]

    def _wait_until(self, command: Command, now: float) -> float | None:
        """Until when the command may wait for its cluster: as its caller said, or while an executor is on its way."""
        ask = command.ask
        until = command.created_at + ask.wait_for_cluster_s
        if not ask.origin and (expected := self._directory.expected_until(ask.cluster_id, now=now)) is not None:
            until = max(until, min(expected, command.deadline))
        return until if until > now else None

    def _enqueue(self, command: Command, *, due: float) -> None:
        """The command waits for a place. Raises CLUSTER_BUSY when too many do."""
        account, cluster_id = self._account, command.ask.cluster_id
        queue = account.queues.get(cluster_id) or FairQueue()
        if not queue.has_room(command.ask.share):
            crowded = f"{len(queue)} commands wait for cluster {cluster_id!r}"
            raise errors.OpenlineError(busy(crowded, queued=len(queue)))
        queue.put(command)
        account.queues[cluster_id] = queue
        account.commands[command.command_id] = command
        account.deadlines.add(command.command_id, due)

    def _end_offline(self, command: Command, now: float) -> list[Action]:
        # Whoever forwarded it here may have another place for it: what is stored of it is that one's.
        command.is_stored_elsewhere = command.ask.origin != ""
        error = offline(command.ask.cluster_id)
        return self._account.end(command, Event.STRANDED, command_pb2.OUTCOME_REJECTED, error, now)


def busy(message: str, *, queued: int) -> command_pb2.Error:
    metadata = {"queued": str(queued)}
    return errors.error(Reason.CLUSTER_BUSY, message, retry_after_s=BUSY_RETRY_S, metadata=metadata)
