"""/debug/clusters and /cluster: which clusters there are, and whether they can be reached."""

from fastapi import APIRouter

from gateway.answers import cluster_answer, cluster_status_answer
from gateway.callers import Asking
from gateway.cluster_answers import capabilities_answer
from gateway.cluster_models import CapabilitiesAnswer
from gateway.models import ClusterAnswer, ClustersAnswer, ClusterStatusAnswer
from gateway.problems import PROBLEMS
from gateway.stubs import Stubs
from openline.errors import OpenlineError
from openline.reasons import Reason


def cluster_routes(stubs: Stubs) -> APIRouter:
    routes = APIRouter(tags=["clusters"], responses=PROBLEMS)

    @routes.get("/debug/clusters", operation_id="list_clusters")
    async def list_clusters(caller: Asking) -> ClustersAnswer:
        """Lists the registered clusters that the key may see."""
        ids = await stubs.list_cluster_ids(caller)
        return ClustersAnswer(clusters=ids, count=len(ids))

    @routes.get("/debug/clusters/{cluster_id}", operation_id="get_cluster")
    async def get_cluster(cluster_id: str, caller: Asking) -> ClusterAnswer:
        """Says what is known of a cluster."""
        return cluster_answer(await stubs.get_cluster(cluster_id, caller))

    @routes.get("/cluster/{cluster_id}/status", operation_id="get_cluster_status")
    async def get_cluster_status(cluster_id: str, caller: Asking) -> ClusterStatusAnswer:
        """Says whether a cluster is active and whether it can be reached now."""
        return cluster_status_answer(await stubs.get_cluster(cluster_id, caller))

    @routes.get("/api/v1/clusters/{cluster_id}/capabilities", operation_id="get_capabilities")
    async def get_capabilities(cluster_id: str, caller: Asking) -> CapabilitiesAnswer:
        """Says what the executor of a cluster can do; of one that is not there, that it is not available."""
        try:
            return capabilities_answer(await stubs.get_cluster(cluster_id, caller))
        except OpenlineError as failure:
            if failure.reason is not Reason.CLUSTER_UNKNOWN:
                raise
            return CapabilitiesAnswer(clusterId=cluster_id, capabilities=None, available=False)

    return routes
