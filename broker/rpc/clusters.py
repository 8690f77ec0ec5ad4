"""ClusterService: which clusters there are, and which can be reached now; of those that the key sees."""

from bisect import bisect_right
from itertools import takewhile
from typing import Any

import grpc

from broker.core.credentials import Credentials
from broker.lasting import LastingCalls
from broker.overview import Overview
from broker.paging import MAX_PAGE, Room, page_size
from broker.registry import Registry
from broker.rpc.callers import admitted
from openline.v1 import cluster_service_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class ClusterService:
    def __init__(self, credentials: Credentials, registry: Registry, overview: Overview, lasting: LastingCalls) -> None:
        self._credentials = credentials
        self._registry = registry
        self._overview = overview
        self._lasting = lasting

    async def ListClusters(  # noqa: N802
        self, request: cluster_service_pb2.ListClustersRequest, context: Context
    ) -> cluster_service_pb2.ListClustersResponse:
        """A page of the clusters; its token is the last id of the page before."""
        visible = self._registry.visible(admitted(self._credentials, context, "ClusterService.ListClusters"))
        size = page_size(request.page_size, usual=MAX_PAGE)
        begin = bisect_right(visible, request.page_token)
        clusters = list(takewhile(Room().takes, await self._overview.get(visible[begin : begin + size])))
        is_last = begin + len(clusters) >= len(visible)
        return cluster_service_pb2.ListClustersResponse(
            clusters=clusters, next_page_token="" if is_last else clusters[-1].cluster_id
        )

    async def GetCluster(  # noqa: N802
        self, request: cluster_service_pb2.GetClusterRequest, context: Context
    ) -> cluster_service_pb2.GetClusterResponse:
        caller = admitted(self._credentials, context, "ClusterService.GetCluster")
        self._registry.require(request.cluster_id, caller)
        [cluster] = await self._overview.get([request.cluster_id])
        return cluster_service_pb2.GetClusterResponse(cluster=cluster)

    async def WatchClusters(  # noqa: N802
        self, _request: cluster_service_pb2.WatchClustersRequest, context: Context
    ) -> None:
        """Writes every cluster once, and then each change, to a caller who may read as slowly as it likes."""
        caller = admitted(self._credentials, context, "ClusterService.WatchClusters")
        async with self._lasting.of(caller), self._overview.watch(caller) as clusters:
            async for cluster in clusters:
                await context.write(cluster_service_pb2.WatchClustersResponse(cluster=cluster))
