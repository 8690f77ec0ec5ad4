"""Says in Redis who is connected to this replica, hears who is connected to the others, and keeps both fresh.

Three tasks: one writes, one reads everything every few seconds, one listens for what changes between. Redis may go and
come back, or come back empty: then everything is written again at once. Commands never wait for any of this.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import aclosing
from time import monotonic

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.connections import Connection, Connections
from broker.core.directory import Directory
from broker.core.proof import Proof
from broker.rpc.peers import Peers
from broker.store import keys
from broker.store.news import Change
from broker.store.presence import PresenceRecords
from openline.errors import OpenlineError
from openline.ids import new_id
from openline.settings import Address
from openline.v1 import cluster_service_pb2

ConnectedExecutor = cluster_service_pb2.ConnectedExecutor

# What is heard between is heard at once; this finds what was missed, and that Redis has come back empty.
READ_EVERY_S = 2.0
# One that has come back empty is told all again within this; what it lacks until then is not believed to be gone.
TOLD_AGAIN_S = 2 * READ_EVERY_S + 1.0
RETRY_MIN_S, RETRY_MAX_S = 0.1, 1.0

log = structlog.get_logger()


class Presence:
    """Of this replica's connections and the other replicas. `superseded` and `news` are called with what is heard."""

    def __init__(
        self,
        connections: Connections,
        directory: Directory,
        records: PresenceRecords,
        peers: Peers,
        proof: Proof,
        *,
        replica_id: str,
        clusters: Callable[[], Collection[str]],
        agrees_on_secret: bool = True,
    ) -> None:
        self._connections = connections
        self._directory = directory
        self._records = records
        self._peers = peers
        self._proof = proof
        self._clusters = clusters
        self._agrees_on_secret = agrees_on_secret
        self.replica_id = replica_id
        self._address = Address("")
        self._started_at = Timestamp()
        self._started_at.GetCurrentTime()
        self._epoch = time.time_ns() // 1000
        # What Redis had the last time; another one is another Redis, or an empty one.
        self._mark = ""
        self._whole_at = 0.0
        # Connections that are to be written at once, and those that are gone.
        self._changed: dict[Connection, None] = {}
        self._gone: dict[Connection, None] = {}
        self._write_now = asyncio.Event()
        self._read_now = asyncio.Event()
        self.is_draining = False
        self.superseded: Callable[[Connection], None] = lambda _connection: None
        self.news: Callable[[str], None] = lambda _cluster_id: None

    def opened(self, connection: Connection) -> None:
        """A connection has been made."""
        self._changed[connection] = None
        self._write_now.set()

    def closed(self, connection: Connection) -> None:
        """A connection has ended that was its executor's newest."""
        self._changed.pop(connection, None)
        self._gone[connection] = None
        self._write_now.set()

    def moving(self, connection: Connection) -> None:
        """Its executor was told to move: it may be expected elsewhere."""
        self._directory.learn(connection.cluster_id, self._executor(connection), now=monotonic())
        self.opened(connection)

    def write_again(self) -> None:
        """Redis may have forgotten everything."""
        for cluster_id in self._connections.clusters():
            self._changed.update(dict.fromkeys(self._connections.of_cluster(cluster_id)))
        self._write_now.set()
        self._read_now.set()

    def executors(self, cluster_id: str) -> list[ConnectedExecutor]:
        """The cluster's executors that are connected to this replica."""
        return [self._executor(connection) for connection in self._connections.of_cluster(cluster_id)]

    async def run(self, address: Address) -> None:
        """Until it is cancelled by its owner; `address` is where the other replicas reach this one."""
        self._address = address
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write_forever(), name="presence-write")
            tasks.create_task(self._read_forever(), name="presence-read")
            tasks.create_task(self._listen_forever(), name="presence-listen")

    async def leave(self) -> None:
        """The replica is stopping, and all of its connections are gone. Raises STORE_UNAVAILABLE."""
        await self._write_changes()
        await self._records.unregister_replica(self.replica_id, epoch=self._epoch)

    # Writing

    async def _write_forever(self) -> None:
        refresh_at = monotonic()
        pause_s = RETRY_MIN_S
        while True:
            try:
                async with asyncio.timeout(max(0.0, refresh_at - monotonic())):
                    await self._write_now.wait()
            except TimeoutError:
                pass
            self._write_now.clear()
            try:
                await self._write_changes()
                if monotonic() >= refresh_at:
                    await self._refresh()
                    refresh_at = monotonic() + keys.SEEN_EVERY_S
            except OpenlineError:  # it is said elsewhere that Redis is away
                self._write_now.set()
                await asyncio.sleep(pause_s)
                pause_s = min(RETRY_MAX_S, 2 * pause_s)
            else:
                pause_s = RETRY_MIN_S

    async def _write_changes(self) -> None:
        """What has changed since the last time; kept for the next one when Redis is away."""
        gone, changed = dict(self._gone), dict(self._changed)
        await self._register([*changed, *(c for c in gone if c.moving)], changed=True)
        left = [(c.cluster_id, self._executor(c)) for c in gone if not c.moving]
        if left:
            await self._records.unregister(left)
        for connection in gone:
            self._gone.pop(connection, None)
        for connection in changed:
            self._changed.pop(connection, None)

    async def _refresh(self) -> None:
        connections = [c for name in self._connections.clusters() for c in self._connections.of_cluster(name)]
        await self._register(connections, changed=False)
        replica = cluster_service_pb2.Replica(
            replica_id=self.replica_id,
            address=self._address,
            started_at=self._started_at,
            draining=self.is_draining,
            executors=len(connections),
        )
        await self._records.register_replica(replica, epoch=self._epoch)

    async def _register(self, connections: list[Connection], *, changed: bool) -> None:
        if not connections:
            return
        entries = [(each.cluster_id, self._executor(each)) for each in connections]
        for connection, holds in zip(connections, await self._records.register(entries, changed=changed), strict=True):
            if not holds:
                self.superseded(connection)

    def _executor(self, connection: Connection) -> ConnectedExecutor:
        return ConnectedExecutor(
            executor_id=connection.executor_id,
            instance_id=connection.instance_id,
            replica_id=self.replica_id,
            replica_address=self._address,
            epoch=connection.epoch,
            connected_at=connection.connected_at,
            capabilities=connection.capabilities,
            versions=connection.versions,
            max_concurrency=connection.max_concurrency,
            running=len(connection.commands),
            moving=connection.moving,
        )

    # Reading

    async def _read_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(READ_EVERY_S):
                    await self._read_now.wait()
            except TimeoutError:
                pass
            self._read_now.clear()
            try:
                await self._read()
            except OpenlineError:  # what is known stays
                continue

    async def _read(self) -> None:
        # A new mark, which an empty Redis takes: with the one before it would look as if nothing had been lost.
        mark, secret = await self._records.meet(new_id(), self._proof.secret)
        if self._agrees_on_secret:
            self._proof.agree(secret)
        if mark != self._mark:
            self._mark = mark
            self._whole_at = monotonic() + TOLD_AGAIN_S
            self.write_again()
            await self._refresh()
        await self._peers.know(await self._records.read_replicas())
        cluster_ids = sorted(self._clusters())
        present = dict(zip(cluster_ids, await self._records.read(cluster_ids), strict=True))
        self._directory.refresh(present, now=(now := monotonic()), is_whole=now > self._whole_at)
        for cluster_id, executors in present.items():
            for executor in executors:
                self._look_for_newer(cluster_id, executor)
        self.news_of_all()

    async def _listen_forever(self) -> None:
        async with aclosing(self._records.subscribe()) as changes:
            async for change in changes:
                if change is None:
                    self._read_now.set()
                else:
                    self._heard(change)

    def _heard(self, change: Change) -> None:
        cluster_id, executor, now = change.cluster_id, change.executor, monotonic()
        if change.present:
            self._directory.learn(cluster_id, executor, now=now)
            self._look_for_newer(cluster_id, executor)
        else:
            self._directory.unlearn(cluster_id, executor.executor_id, epoch=executor.epoch, now=now)
        self.news(cluster_id)

    def news_of_all(self) -> None:
        """For every cluster of which something may wait here."""
        for cluster_id in sorted(self._clusters()):
            self.news(cluster_id)

    def _look_for_newer(self, cluster_id: str, executor: ConnectedExecutor) -> None:
        """An executor that is connected elsewhere has left this replica, whatever its socket here says."""
        connection = self._connections.of_executor(cluster_id, executor.executor_id)
        is_elsewhere = executor.replica_id != self.replica_id and not executor.moving
        if connection is not None and is_elsewhere and executor.epoch > connection.epoch:
            self.superseded(connection)
