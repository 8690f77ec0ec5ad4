"""The overview of the whole installation: every other replica is asked, and what they say is put together."""

import asyncio
from collections.abc import Iterable

from broker import merging
from broker.absence import Absence
from broker.core.credentials import Caller
from broker.core.directory import Directory
from broker.core.patterns import Patterns
from broker.hearing import Hearing
from broker.own_overview import OwnOverview
from broker.registry import Registry
from broker.rpc import everywhere
from broker.rpc.peers import Peers
from broker.store.clusters import Clusters
from openline.v1 import cluster_service_pb2, overview_pb2


class Survey:
    def __init__(
        self,
        own: OwnOverview,
        peers: Peers,
        hearing: Hearing,
        registry: Registry,
        directory: Directory,
        records: Clusters,
    ) -> None:
        self._own = own
        self._peers = peers
        self._hearing = hearing
        self._registry = registry
        self._directory = directory
        self._records = records

    def own(self, within: Patterns) -> overview_pb2.Overview:
        """This replica's part, for another one that puts the parts together."""
        return self._own.read(within)

    def absence(self) -> Absence:
        """For whoever gathers the same overview again and again."""
        return Absence(self._records)

    async def gather(
        self, within: Patterns, *, timeout_s: float, absence: Absence | None = None
    ) -> overview_pb2.Overview:
        """Of the clusters that these patterns see. Replicas that have not answered in time are shown as such."""
        absence = absence or self.absence()
        visible = list(self._registry.visible(Caller(owner="", scopes=(), clusters=within)))
        away = [cluster_id for cluster_id in visible if not self.is_connected(cluster_id)]
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(everywhere.overviews(self._peers, within, timeout_s=timeout_s))
            tasks.create_task(absence.look(away, timeout_s=timeout_s))
        told = asking.result()
        own = self._own.read(within)
        known = {replica_id: cluster_service_pb2.Replica(replica_id=replica_id) for replica_id in self._peers.known}
        known |= {replica.replica_id: replica for replica in self._hearing.replicas if replica.replica_id in known}
        overview = merging.merge(own, told, known)
        loads = merging.Loads.of([own, *(answer.overview for answer in told.answers.values())])
        merging.add_clusters(overview, visible, self, loads, absence.last_seen)
        return overview

    # As `merging.Fleet`

    def is_connected(self, cluster_id: str) -> bool:
        return bool(self._own.connections.of_cluster(cluster_id)) or any(
            not executor.moving for executor in self._directory.executors(cluster_id)
        )

    def executors(self, cluster_id: str) -> Iterable[cluster_service_pb2.ConnectedExecutor]:
        here = {executor.executor_id: executor for executor in self._own.executors(cluster_id)}
        there = {executor.executor_id: executor for executor in self._directory.executors(cluster_id)}
        # What is here is known better than by what was heard.
        return (there | here).values()
