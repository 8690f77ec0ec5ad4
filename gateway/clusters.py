"""/debug/clusters and /cluster: which clusters there are, and whether they can be reached."""

from fastapi import APIRouter

from gateway.answers import cluster_answer, cluster_status_answer
from gateway.callers import Asking
from gateway.models import ClusterAnswer, ClustersAnswer, ClusterStatusAnswer
from gateway.problems import PROBLEMS
from gateway.stubs import Stubs


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

    return routes
