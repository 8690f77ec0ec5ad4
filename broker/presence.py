"""Says in Redis which executors are connected to this replica, and keeps saying it."""

import asyncio
from collections.abc import Sequence

from broker.core.connections import Connection, Connections
from broker.store import keys, presence
from broker.store.store import Store
from openline.v1 import cluster_service_pb2


class Presence:
    """Of the clusters that have a connection here."""

    def __init__(self, connections: Connections, store: Store, *, replica_id: str) -> None:
        self._connections = connections
        self._store = store
        self._replica_id = replica_id

    def refresh(self, cluster_id: str, *, gone: Sequence[Connection] = ()) -> None:
        """Writes the cluster's presence, without the connections that are gone."""
        here = [(cluster_id, executor) for executor in self.executors(cluster_id)]
        left = [(cluster_id, self._executor(connection)) for connection in gone]
        for command in (*presence.unregistering(left), *presence.registering(here, changed=False)):
            self._store.behind.put(*command)

    async def refresh_forever(self) -> None:
        """Keeps what is written from expiring, until it is cancelled by its owner."""
        while True:
            await asyncio.sleep(keys.SEEN_EVERY_S)
            for cluster_id in self._connections.clusters():
                self.refresh(cluster_id)

    def executors(self, cluster_id: str) -> list[cluster_service_pb2.ConnectedExecutor]:
        """The cluster's executors that are connected to this replica."""
        return [self._executor(connection) for connection in self._connections.of_cluster(cluster_id)]

    def _executor(self, connection: Connection) -> cluster_service_pb2.ConnectedExecutor:
        return cluster_service_pb2.ConnectedExecutor(
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
