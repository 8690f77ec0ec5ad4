"""Carries out what the ledger decides: frames onto streams, results into the store, commands to other replicas.

The only place where the ledger meets the loop's clock. Everything here is synchronous; what takes time is behind the
streams' outboxes, the store's queue and `forwarding`.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from time import monotonic

from google.protobuf.timestamp_pb2 import Timestamp

from broker import steps
from broker.activity import Activity
from broker.afterwards import Afterwards
from broker.audience import Audience
from broker.audit import Audit
from broker.core.actions import Action, Close, Conclude, Forward, Send, Tell
from broker.core.command import Ask, Command
from broker.core.connections import Connection
from broker.core.directory import Directory
from broker.core.ledger import Held, Ledger
from broker.core.proof import Proof
from broker.core.repetition import Repetitions
from broker.core.tally import Tally
from broker.core.whose import Whose
from broker.ended import EndedCommands
from broker.forwarding import Forwarding
from broker.presence import Presence
from broker.records import running
from broker.rpc.peers import Peers
from broker.store.store import Store
from broker.streams import BrokerFrame, Stream, Streams
from openline.v1 import executor_service_pb2


class Replaced(Exception):
    """The stream was ended because a newer connection of the same executor is open."""


class Dispatcher:
    """Place and send; called by the services, in the loop's thread."""

    def __init__(
        self,
        ledger: Ledger,
        directory: Directory,
        store: Store,
        presence: Presence,
        peers: Peers,
        proof: Proof,
        audit: Audit,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._afterwards = Afterwards(store, audit, self._settled)
        self._presence = presence
        self._forwarding = Forwarding(
            ledger.relayed, peers, directory, store.results, replica_id=presence.replica_id, tell=self._relayed
        )
        presence.superseded = self._superseded
        self._loop = asyncio.get_running_loop()
        self.streams = Streams(proof)
        self.activity = Activity(store.clusters)
        self._timer: asyncio.Handle | None = None
        self._timer_due: float | None = None
        # Once in a turn of the loop, however much happens in it.
        self._rearming: asyncio.Handle | None = None
        self.audience = Audience()
        self.tally = Tally()
        self.ended = EndedCommands()
        self.repetitions = Repetitions()
        # Ids of commands that wait for a word of Redis before they are dispatched.
        self.expected: set[str] = set()

    def __repr__(self) -> str:
        return f"<Dispatcher {self._ledger!r} {self.audience!r} {self._forwarding!r}>"

    @property
    def lost_results(self) -> int:
        """Results that were never stored, since the start."""
        return self._afterwards.lost

    async def close(self) -> None:
        """Ends what is done about commands of other replicas."""
        await self._forwarding.close()

    # For callers

    def dispatch(self, ask: Ask, *, known_to: str = "") -> Command:
        """Places and sends a command, or finds the same one that was asked for before.

        `known_to` is the replica that has it already. Raises ClusterAbsent when no executor of the cluster is connected
        anywhere, OpenlineError when there is no room.
        """
        now = monotonic()
        try:
            command, actions = self._ledger.submit(ask, asked_at=_timestamp(), now=now, known_to=known_to)
            self._perform(actions)
            self._store.history.begun(partial(running, command))
            steps.placed(command)
            return command
        finally:
            # Behind the command, and also when the cluster is absent: it is wanted.
            self._mark_active(ask.cluster_id, now)

    def may_be_done(self, command_id: str) -> bool:
        """Whether the store may have a result under this id, so that it is to be asked before `dispatch`."""
        return self._ledger.may_be_done(command_id, clock_s=time.time())

    def find(self, command_id: str) -> Command | None:
        """A command that this replica has to do with: it is not done, or its result is not stored yet."""
        return self._ledger.commands.get(command_id)

    def cancel(self, command: Command, *, why: str) -> None:
        """Asks for a command to be stopped; one that an executor holds ends when the executor says so."""
        steps.cancelled(command, why)
        self._perform(self._ledger.cancel(command, why=why, now=monotonic()))

    def of(self, whose: Whose) -> list[Command]:
        """The commands that this replica has to do with and that have not ended."""
        return self._ledger.of(whose)

    # For connections

    def connected(
        self,
        connection: Connection,
        stream: Stream,
        *,
        in_flight: Collection[str],
        unacked: Collection[str],
        held: Mapping[str, Held],
        welcome: Callable[[Sequence[executor_service_pb2.Verdict]], BrokerFrame],
    ) -> None:
        """Registers a connection and queues its Welcome, before anything else that goes out on it. Raises Outdated."""
        verdicts, actions = self._ledger.connect(
            connection, in_flight=in_flight, unacked=unacked, held=held, now=monotonic()
        )
        self.streams.add(connection, stream)
        self.streams.send(connection, welcome(verdicts))
        self._perform(actions)
        self._forwarding.let_go_of_others()
        self._presence.opened(connection)
        self._tell_active(connection, monotonic())

    def disconnected(self, connection: Connection) -> None:
        """The connection's stream has ended."""
        self.streams.remove(connection)
        if self._ledger.connections.of_instance(connection.instance) is connection:
            # First: whether it is moving decides what becomes of those who wait.
            self._presence.closed(connection)
        _, actions = self._ledger.disconnect(connection, now=monotonic())
        self._perform(actions)

    def received(self, connection: Connection, frame: executor_service_pb2.ExecutorFrame) -> None:
        """A frame about a command has come in on the connection."""
        steps.heard(self._ledger.commands, connection, frame)
        if actions := self._ledger.receive(connection, frame, now=monotonic()):
            self._perform(actions)
        if self.audience.is_watching and (kind := frame.WhichOneof("frame")) is not None:
            self.audience.wake(getattr(frame, kind).command_id)

    def move(self, connection: Connection, *, reason: str, drain_s: float = 0.0) -> None:
        """Tells an executor to move to another replica; what it runs goes along, after `drain_s` at the latest."""
        if connection not in self.streams or connection.moving:
            return
        connection.moving = True
        self._presence.moving(connection)
        away = executor_service_pb2.GoAway(reason=reason, drain_deadline_s=drain_s)
        self.streams.send(connection, BrokerFrame(go_away=away))
        self.news(connection.cluster_id)

    def news(self, cluster_id: str) -> None:
        """What is known of the cluster's executors on other replicas has changed."""
        self._perform(self._ledger.news(cluster_id, now=monotonic()))

    # Carrying out

    def _mark_active(self, cluster_id: str, now: float) -> None:
        if self.activity.mark(cluster_id, now=now):
            for connection in self._ledger.connections.of_cluster(cluster_id):
                self._tell_active(connection, now)

    def _tell_active(self, connection: Connection, now: float) -> None:
        left_s = self.activity.left_s(connection.cluster_id, now=now)
        if left_s > 0:
            self.streams.send(connection, BrokerFrame(activity=executor_service_pb2.Activity(active_for_s=left_s)))

    def _superseded(self, connection: Connection) -> None:
        self.streams.break_off(connection, Replaced("the executor is connected to another replica"))

    def _relayed(self, command: Command, actions: Sequence[Action]) -> None:
        self._perform(actions)
        self.audience.wake(command.command_id)

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(connection, frame):
                    self.streams.send(connection, frame)
                case Close(connection, why):
                    self.streams.break_off(connection, Replaced(why))
                case Conclude(command):
                    self._conclude(command)
                case Tell(command):
                    self.audience.tell(command)
                case Forward(command):
                    self._forwarding.forward(command)
        if self._rearming is None:
            self._rearming = self._loop.call_soon(self._rearm)

    def _conclude(self, command: Command) -> None:
        self.streams.dispatches.end(command)
        if not command.ask.origin:
            self.repetitions.concluded(command, now=monotonic())
        self.audience.tell(command)
        if not command.ask.origin:
            self.tally.concluded(command)
            self.ended.add(command)
        self._forwarding.let_go(command)
        if command.is_stored_elsewhere:
            self._settled(command, stored=False)
            return
        self._afterwards.add(command)

    def _settled(self, command: Command, stored: bool) -> None:
        self._perform(self._ledger.settled(command, stored=stored))

    def _rearm(self) -> None:
        """Sets the one timer to what the ledger has due next."""
        self._rearming = None
        due = self._ledger.next_due()
        if due == self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = None if due is None else self._loop.call_later(max(0.0, due - monotonic()) + 0.001, self._tick)

    def _tick(self) -> None:
        self._timer = self._timer_due = None
        self._perform(self._ledger.tick(now=monotonic()))


def _timestamp() -> Timestamp:
    seconds, nanos = divmod(time.time_ns(), 10**9)
    return Timestamp(seconds=seconds, nanos=nanos)
