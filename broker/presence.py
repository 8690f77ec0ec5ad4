"""Says in Redis which executors are connected to this replica, and that this replica is there; and keeps saying it.

Redis may go and come back, or come back empty: then everything is written again at once. No command waits for this.
"""

import asyncio
import time
from collections.abc import Callable
from time import monotonic

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.connections import Connection, Connections
from broker.core.directory import Directory
from broker.store import keys
from broker.store.presence import PresenceRecords
from openline.errors import OpenlineError
from openline.settings import Address
from openline.v1 import cluster_service_pb2

ConnectedExecutor = cluster_service_pb2.ConnectedExecutor

RETRY_MIN_S, RETRY_MAX_S = 0.1, 1.0

log = structlog.get_logger()


class Presence:
    """Of this replica. `superseded` is called with a connection whose executor has a newer one elsewhere."""

    def __init__(
        self, connections: Connections, directory: Directory, records: PresenceRecords, *, replica_id: str
    ) -> None:
        self._connections = connections
        self._directory = directory
        self._records = records
        self.replica_id = replica_id
        self._address = Address("")
        self._started_at = Timestamp()
        self._started_at.GetCurrentTime()
        self._epoch = time.time_ns() // 1000
        # Connections that are to be written at once, and those that are gone.
        self._changed: dict[Connection, None] = {}
        self._gone: dict[Connection, None] = {}
        self._write_now = asyncio.Event()
        self._refresh_at = monotonic()
        self.is_draining = False
        self.superseded: Callable[[Connection], None] = lambda _connection: None

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
        self._changed.update(dict.fromkeys(self._connections))
        self._refresh_at = monotonic()
        self._write_now.set()

    def executors(self, cluster_id: str) -> list[ConnectedExecutor]:
        """The cluster's executors that are connected to this replica."""
        return [self._executor(connection) for connection in self._connections.of_cluster(cluster_id)]

    def own_record(self, *, executors: int) -> cluster_service_pb2.Replica:
        """This replica, with so many executors."""
        return cluster_service_pb2.Replica(
            replica_id=self.replica_id,
            address=self._address,
            started_at=self._started_at,
            draining=self.is_draining,
            executors=executors,
        )

    async def run(self, address: Address) -> None:
        """Until it is cancelled by its owner; `address` is where the other replicas reach this one."""
        self._address = address
        pause_s = RETRY_MIN_S
        while True:
            try:
                async with asyncio.timeout(max(0.0, self._refresh_at - monotonic())):
                    await self._write_now.wait()
            except TimeoutError:
                pass
            self._write_now.clear()
            try:
                await self._write_changes()
                if monotonic() >= self._refresh_at:
                    self._refresh_at = monotonic() + keys.SEEN_EVERY_S
                    await self._refresh()
            except OpenlineError:  # it is said elsewhere that Redis is away
                self.write_again()
                await asyncio.sleep(pause_s)
                pause_s = min(RETRY_MAX_S, 2 * pause_s)
            else:
                pause_s = RETRY_MIN_S

    async def leave(self) -> None:
        """The replica is stopping, and all of its connections are gone. Raises STORE_UNAVAILABLE."""
        await self._write_changes()
        await self._records.unregister_replica(self.replica_id, epoch=self._epoch)

    async def _write_changes(self) -> None:
        """What has changed since the last time; kept for the next one when Redis is away."""
        gone, changed = dict(self._gone), dict(self._changed)
        moving = [connection for connection in gone if connection.moving]
        await self._register([*changed, *moving], changed=True)
        left = [(c.cluster_id, self._executor(c)) for c in gone if not c.moving]
        if left:
            await self._records.unregister(left)
        for connection in gone:
            self._gone.pop(connection, None)
        for connection in changed:
            self._changed.pop(connection, None)

    async def _refresh(self) -> None:
        connections = list(self._connections)
        await self._register(connections, changed=False)
        replica = self.own_record(executors=len(connections))
        if not await self._records.register_replica(replica, epoch=self._epoch):
            log.error("replica.id_in_use", replica_id=self.replica_id)

    async def _register(self, connections: list[Connection], *, changed: bool) -> None:
        if not connections:
            return
        entries = [(connection.cluster_id, self._executor(connection)) for connection in connections]
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
            attempt=connection.attempt,
        )
