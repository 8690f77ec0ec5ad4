"""Carries out what the ledger decides: frames onto streams, results into the store, answers to whoever waits.

The only place where the ledger meets the loop's clock. Everything here is synchronous; what takes time is behind the
streams' outboxes and the store's queue.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from time import monotonic

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from broker.activity import Activity
from broker.core.actions import Action, Close, Conclude, Send
from broker.core.command import Ask, Command
from broker.core.connections import Connection
from broker.core.ledger import Ledger
from broker.presence import Presence
from broker.records import record
from broker.store.store import Store
from broker.watching import Replay, Watch
from openline.stream import FrameStream
from openline.v1 import command_pb2, executor_service_pb2

Stream = FrameStream[executor_service_pb2.ExecutorFrame, executor_service_pb2.BrokerFrame]
Done = Callable[[Command], None]

log = structlog.get_logger()


class Replaced(Exception):
    """The stream was ended because a newer connection of the same executor is open."""


class Dispatcher:
    """Place and send; called by the services, in the loop's thread."""

    def __init__(self, ledger: Ledger, store: Store, presence: Presence) -> None:
        self._ledger = ledger
        self._store = store
        self._presence = presence
        self._loop = asyncio.get_running_loop()
        self._streams: dict[Connection, Stream] = {}
        # By command id: who waits for the result, and who watches.
        self._waiting: dict[str, dict[Done, None]] = {}
        self._watches: dict[str, list[Watch]] = {}
        self._activity = Activity(store.clusters)
        self._timer: asyncio.Handle | None = None
        self._timer_due: float | None = None
        self._epoch = 0

    def __repr__(self) -> str:
        return f"<Dispatcher {self._ledger!r} waiting={len(self._waiting)} watched={len(self._watches)}>"

    # For callers

    def dispatch(self, ask: Ask) -> Command:
        """Places and sends a command, or finds the same one that was asked for before.

        Raises ClusterAbsent when no executor of the cluster is connected here, OpenlineError when there is no room.
        """
        now = monotonic()
        try:
            command, actions = self._ledger.submit(ask, asked_at=_timestamp(), now=now)
            self._perform(actions)
            return command
        finally:
            # Behind the command, and also when the cluster is absent: it is wanted.
            self._mark_active(ask.cluster_id, now)

    def may_be_done(self, command_id: str) -> bool:
        """Whether the store may have a result under this id, so that it is to be asked before `dispatch`."""
        return self._ledger.may_be_done(command_id, clock_s=time.time())

    def find(self, command_id: str) -> Command | None:
        """A command that this replica holds: it is not done, or its result is not stored yet."""
        return self._ledger.commands.get(command_id)

    def attach(self, command: Command, done: Done) -> None:
        """`done` is called once, when the command has its result; at once if it has."""
        if command.result is not None:
            done(command)
        else:
            self._waiting.setdefault(command.command_id, {})[done] = None

    def leave(self, command: Command, done: Done) -> None:
        """Whoever waited for the command is gone; it runs on."""
        waiting = self._waiting.get(command.command_id, {})
        waiting.pop(done, None)
        if not waiting:
            self._waiting.pop(command.command_id, None)

    @contextlib.contextmanager
    def watch(self, source: Command | command_pb2.Command, *, from_seq: int) -> Iterator[Watch | Replay]:
        """The events of a command, from an output seq on; read at the watcher's own pace until the block is left.

        Of one that this replica holds as they happen, of a stored one as they were.
        """
        if isinstance(source, command_pb2.Command):
            yield Replay(source, from_seq=from_seq)
            return
        command = source
        watch = Watch(command, from_seq=from_seq)
        watches = self._watches.setdefault(command.command_id, [])
        watches.append(watch)
        try:
            yield watch
        finally:
            watches.remove(watch)
            if not watches:
                del self._watches[command.command_id]

    def cancel(self, command: Command, *, why: str) -> None:
        """Asks for a command to be stopped; one that an executor holds ends when the executor says so."""
        self._perform(self._ledger.cancel(command, why=why, now=monotonic()))

    # For connections

    def next_epoch(self) -> int:
        """Orders connections: higher than every one before, and after a restart as well as clocks allow."""
        self._epoch = max(self._epoch + 1, time.time_ns() // 1000)
        return self._epoch

    def connected(
        self,
        connection: Connection,
        stream: Stream,
        *,
        in_flight: Collection[str],
        unacked: Collection[str],
        welcome: Callable[[Sequence[executor_service_pb2.Verdict]], executor_service_pb2.BrokerFrame],
    ) -> None:
        """Registers a connection and queues its Welcome, before anything else that goes out on it."""
        verdicts, actions = self._ledger.connect(connection, in_flight=in_flight, unacked=unacked, now=monotonic())
        self._streams[connection] = stream
        stream.send(welcome(verdicts))
        self._perform(actions)
        self._presence.refresh(connection.cluster_id)
        self._tell_active(connection, monotonic())

    def disconnected(self, connection: Connection) -> None:
        """The connection's stream has ended."""
        del self._streams[connection]
        was_current, actions = self._ledger.disconnect(connection, now=monotonic())
        self._presence.refresh(connection.cluster_id, gone=[connection] if was_current else [])
        self._perform(actions)

    def received(self, connection: Connection, frame: executor_service_pb2.ExecutorFrame) -> None:
        """A frame about a command has come in on the connection."""
        self._perform(self._ledger.receive(connection, frame, now=monotonic()))
        if self._watches and (kind := frame.WhichOneof("frame")) is not None:
            for watch in self._watches.get(getattr(frame, kind).command_id, ()):
                watch.wake()

    def go_away(self, reason: str) -> None:
        """Tells every executor to move, and ends its stream when it has been told."""
        away = executor_service_pb2.BrokerFrame(go_away=executor_service_pb2.GoAway(reason=reason))
        for stream in self._streams.values():
            stream.send(away)
            stream.close()

    # Carrying out

    def _mark_active(self, cluster_id: str, now: float) -> None:
        if self._activity.mark(cluster_id, now=now):
            for connection in self._ledger.connections.of_cluster(cluster_id):
                self._tell_active(connection, now)

    def _tell_active(self, connection: Connection, now: float) -> None:
        left_s = self._activity.left_s(connection.cluster_id, now=now)
        if left_s > 0:
            activity = executor_service_pb2.Activity(active_for_s=left_s)
            self._send(connection, executor_service_pb2.BrokerFrame(activity=activity))

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(connection, frame):
                    self._send(connection, frame)
                case Close(connection, why):
                    if (stream := self._streams.get(connection)) is not None:
                        stream.break_off(Replaced(why))
                case Conclude(command):
                    self._conclude(command)
        self._rearm()

    def _send(self, connection: Connection, frame: executor_service_pb2.BrokerFrame) -> None:
        if (stream := self._streams.get(connection)) is not None:
            stream.send(frame)

    def _conclude(self, command: Command) -> None:
        for done in self._waiting.pop(command.command_id, ()):
            done(command)
        for watch in self._watches.get(command.command_id, ()):
            watch.wake()
        _log(command)
        kept = self._store.results.put(
            record(command), lambda stored: self._perform(self._ledger.settled(command, stored=stored))
        )
        if not kept:
            log.error("result.dropped", command_id=command.command_id, why="too much waits for Redis")
            self._perform(self._ledger.settled(command, stored=False))

    def _rearm(self) -> None:
        """Sets the one timer to what the ledger has due next."""
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


def _log(command: Command) -> None:
    """One line a command, with its ids and where its time went; never what it was or wrote."""
    result = command.result or command_pb2.CommandResult()
    log.info(
        "command.finished",
        command_id=command.command_id,
        cluster_id=command.ask.cluster_id,
        executor_id=command.executor_id,
        owner=command.ask.owner,
        agent_call=bool(command.ask.correlation_id),
        correlation_id=command.ask.correlation_id or None,
        session_id=command.ask.session_id or None,
        outcome=command_pb2.Outcome.Name(result.outcome).removeprefix("OUTCOME_").lower(),
        reason=result.error.reason or None,
        exit_code=result.exit_code,
        ms=round(result.timings.total_s * 1000, 1),
        run_ms=round(result.timings.run_s * 1000, 1),
        bytes=len(result.stdout) + len(result.stderr),
    )


def _timestamp() -> Timestamp:
    now = Timestamp()
    now.FromNanoseconds(time.time_ns())
    return now
