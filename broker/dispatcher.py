"""Carries out what the ledger decides: frames onto streams, results into the store, answers to whoever waits.

The only place where the ledger meets the loop's clock. Everything here is synchronous; what takes time is behind the
streams' outboxes and the store's queue.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from time import monotonic

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.actions import Action, Close, Conclude, Send
from broker.core.command import Ask, Command
from broker.core.connections import Connection
from broker.core.ledger import Ledger
from broker.store.store import Store
from openline.stream import FrameStream
from openline.v1 import cluster_service_pb2, command_pb2, executor_service_pb2

Stream = FrameStream[executor_service_pb2.ExecutorFrame, executor_service_pb2.BrokerFrame]

log = structlog.get_logger()


class Replaced(Exception):
    """The stream was ended because a newer connection of the same executor is open."""


class Dispatcher:
    """Place and send; called by the services, in the loop's thread."""

    def __init__(self, ledger: Ledger, store: Store, *, replica_id: str) -> None:
        self._ledger = ledger
        self._store = store
        self._replica_id = replica_id
        self._loop = asyncio.get_running_loop()
        self._streams: dict[Connection, Stream] = {}
        self._waiting: dict[str, Callable[[Command], None]] = {}
        self._timer: asyncio.Handle | None = None
        self._timer_due: float | None = None
        self._epoch = 0

    def __repr__(self) -> str:
        return f"<Dispatcher {self._replica_id} {self._ledger!r}>"

    # For callers

    def dispatch(self, ask: Ask, done: Callable[[Command], None]) -> Command:
        """Places and sends a command; `done` is called once, when it has its result.

        Raises ClusterAbsent when no executor of the cluster is connected here, OpenlineError when there is no room.
        """
        now = monotonic()
        self._store.clusters.mark_active(ask.cluster_id, now=now)
        command, actions = self._ledger.submit(ask, asked_at=_timestamp(), now=now)
        self._waiting[command.command_id] = done
        self._perform(actions)
        return command

    def cancel(self, command: Command, *, why: str) -> None:
        """Asks the executor to stop a command; it ends like any other, with the output so far."""
        self._perform(self._ledger.cancel(command, why=why))

    def leave(self, command: Command) -> None:
        """Whoever waited for the command is gone; it runs on."""
        self._waiting.pop(command.command_id, None)

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
        self.refresh(connection.cluster_id)

    def disconnected(self, connection: Connection) -> None:
        """The connection's stream has ended."""
        del self._streams[connection]
        replaced = not self._ledger.disconnect(connection, now=monotonic())
        self.refresh(connection.cluster_id, gone=[] if replaced else [connection.executor_id])
        self._rearm()

    def received(self, connection: Connection, frame: executor_service_pb2.ExecutorFrame) -> None:
        """A frame about a command has come in on the connection."""
        self._perform(self._ledger.receive(connection, frame, now=monotonic()))

    def refresh(self, cluster_id: str, *, gone: Sequence[str] = ()) -> None:
        """Writes the cluster's presence."""
        self._store.clusters.present(cluster_id, self.executors(cluster_id), gone=gone)

    def executors(self, cluster_id: str) -> list[cluster_service_pb2.ConnectedExecutor]:
        """The cluster's executors that are connected to this replica."""
        return [
            cluster_service_pb2.ConnectedExecutor(
                executor_id=connection.executor_id,
                instance_id=connection.instance_id,
                replica_id=self._replica_id,
                epoch=connection.epoch,
                connected_at=connection.connected_at,
                capabilities=connection.capabilities,
                versions=connection.versions,
                max_concurrency=connection.max_concurrency,
                running=len(connection.commands),
            )
            for connection in self._ledger.connections.of_cluster(cluster_id)
        ]

    def go_away(self, reason: str) -> None:
        """Tells every executor to move, and ends its stream when it has been told."""
        away = executor_service_pb2.BrokerFrame(go_away=executor_service_pb2.GoAway(reason=reason))
        for stream in self._streams.values():
            stream.send(away)
            stream.close()

    async def refresh_forever(self, every_s: float) -> None:
        """Keeps the presence of the connected clusters from expiring, until it is cancelled by its owner."""
        while True:
            await asyncio.sleep(every_s)
            for cluster_id in self._ledger.connections.clusters():
                self.refresh(cluster_id)

    # Carrying out

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(connection, frame):
                    if (stream := self._streams.get(connection)) is not None:
                        stream.send(frame)
                case Close(connection, why):
                    if (stream := self._streams.get(connection)) is not None:
                        stream.break_off(Replaced(why))
                case Conclude(command):
                    self._conclude(command)
        self._rearm()

    def _conclude(self, command: Command) -> None:
        result = command.result
        if result is None:
            raise AssertionError(f"{command!r} concluded without a result")
        if (done := self._waiting.pop(command.command_id, None)) is not None:
            done(command)
        kept = self._store.results.put(
            result, lambda stored: self._perform(self._ledger.settled(command, stored=stored))
        )
        if not kept:
            log.error("result.dropped", command_id=command.command_id, why="too much waits for Redis")
            self._perform(self._ledger.settled(command, stored=False))
        _log(command, result)

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


def _log(command: Command, result: command_pb2.CommandResult) -> None:
    """One line a command, with its ids and where its time went; never what it was or wrote."""
    timings = result.timings
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
        ms=round(timings.total_s * 1000, 1),
        run_ms=round(timings.run_s * 1000, 1),
        bytes=len(result.stdout) + len(result.stderr),
    )


def _timestamp() -> Timestamp:
    now = Timestamp()
    now.FromNanoseconds(time.time_ns())
    return now
