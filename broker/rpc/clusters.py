"""ClusterService: which clusters there are, and which can be reached now."""

import time
from collections.abc import Sequence
from typing import Any

import grpc

from broker.core.credentials import Caller, Credentials
from broker.presence import Presence
from broker.registry import Registry
from broker.rpc.service import credential
from broker.store.store import Store
from openline.v1 import cluster_service_pb2

MAX_PAGE = 1000

Context = grpc.aio.ServicerContext[Any, Any]


class ClusterService:
    def __init__(self, store: Store, credentials: Credentials, registry: Registry, presence: Presence) -> None:
        self._store = store
        self._credentials = credentials
        self._registry = registry
        self._presence = presence

    async def ListClusters(  # noqa: N802
        self, request: cluster_service_pb2.ListClustersRequest, context: Context
    ) -> cluster_service_pb2.ListClustersResponse:
        """A page of the clusters that the key sees; its token is the last id of the page before."""
        caller = self._caller(context)
        size = min(request.page_size or MAX_PAGE, MAX_PAGE)
        ids = [cluster_id for cluster_id in self._registry.visible(caller) if cluster_id > request.page_token]
        return cluster_service_pb2.ListClustersResponse(
            clusters=await self._clusters(ids[:size]), next_page_token=ids[size - 1] if len(ids) > size else ""
        )

    async def GetCluster(  # noqa: N802
        self, request: cluster_service_pb2.GetClusterRequest, context: Context
    ) -> cluster_service_pb2.GetClusterResponse:
        self._registry.require(request.cluster_id, self._caller(context))
        [cluster] = await self._clusters([request.cluster_id])
        return cluster_service_pb2.GetClusterResponse(cluster=cluster)

    def _caller(self, context: Context) -> Caller:
        caller = self._credentials.caller(credential(context), clock_s=time.time())
        caller.require("read", or_scope="admin")
        return caller

    async def _clusters(self, cluster_ids: Sequence[str]) -> list[cluster_service_pb2.Cluster]:
        """What Redis knows of these clusters; what is connected here is known without it."""
        clusters = await self._store.clusters.get(cluster_ids)
        for cluster in clusters:
            cluster.has_token = True
            here = self._presence.executors(cluster.cluster_id)
            if here:
                known = {executor.executor_id for executor in here}
                elsewhere = [executor for executor in cluster.executors if executor.executor_id not in known]
                cluster.executors.clear()
                cluster.executors.extend([*here, *elsewhere])
                cluster.connected = True
        return clusters
