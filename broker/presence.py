"""Says in Redis which executors are connected to this replica, and keeps saying it."""

import asyncio
from collections.abc import Sequence

from broker.core.connections import Connections
from broker.store import keys
from broker.store.store import Store
from openline.v1 import cluster_service_pb2


class Presence:
    """Of the clusters that have a connection here."""

    def __init__(self, connections: Connections, store: Store, *, replica_id: str) -> None:
        self._connections = connections
        self._store = store
        self._replica_id = replica_id

    def refresh(self, cluster_id: str, *, gone: Sequence[str] = ()) -> None:
        """Writes the cluster's presence, without the executors that are gone."""
        self._store.clusters.present(cluster_id, self.executors(cluster_id), gone=gone)

    async def refresh_forever(self) -> None:
        """Keeps what is written from expiring, until it is cancelled by its owner."""
        while True:
            await asyncio.sleep(keys.SEEN_EVERY_S)
            for cluster_id in self._connections.clusters():
                self.refresh(cluster_id)

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
            for connection in self._connections.of_cluster(cluster_id)
        ]
