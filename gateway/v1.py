"""/v1/clusters and /v1/sessions: what there is, and conversations with it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from gateway.callers import Asking
from gateway.cluster_answers import cluster_shown, session_shown
from gateway.cluster_models import ClusterPage, ClusterShown, SessionShown
from gateway.documentation import LOCATION
from gateway.models import SessionBody
from gateway.problems import PROBLEMS
from gateway.requests import session_request
from gateway.stubs import Stubs
from openline.ids import is_cluster_id

PAGE = 100
MAX_PAGE = 1000

ClusterId = Annotated[str, Path(description="As it is listed.")]
SessionId = Annotated[str, Path(description="As it was answered when the session began.")]


def v1_routes(stubs: Stubs) -> APIRouter:
    routes = APIRouter(prefix="/v1", responses=PROBLEMS)

    @routes.get("/clusters", operation_id="list_clusters_v1", tags=["clusters"])
    async def list_clusters(
        caller: Asking,
        page_size: Annotated[int, Query(ge=1, le=MAX_PAGE)] = PAGE,
        page_token: Annotated[str, Query(max_length=253, description="The `next_page_token` of the page before.")] = "",
    ) -> ClusterPage:
        """Lists the registered clusters that the key may see, a page at a time."""
        page = await stubs.list_clusters(caller, page_size=page_size, page_token=page_token)
        return ClusterPage(
            clusters=[cluster_shown(cluster) for cluster in page.clusters],
            count=len(page.clusters),
            next_page_token=page.next_page_token or None,
        )

    @routes.get("/clusters/{cluster_id}", operation_id="get_cluster_v1", tags=["clusters"])
    async def get_cluster(cluster_id: ClusterId, caller: Asking) -> ClusterShown:
        """Shows a cluster: whether it can be reached, by which executors, and what they can do."""
        if not is_cluster_id(cluster_id):
            raise await stubs.no_such_cluster(cluster_id, caller)
        return cluster_shown(await stubs.get_cluster(cluster_id, caller))

    @routes.post(
        "/sessions",
        operation_id="create_session_v1",
        status_code=201,
        tags=["sessions"],
        responses={201: {"headers": {"Location": LOCATION}}},
    )
    async def create_session(body: SessionBody, caller: Asking, response: Response) -> SessionShown:
        """Begins a session: a record that commands may name, and that lives on while they do."""
        session = await stubs.create_session(session_request(body, caller), caller)
        caller.exchange.facts.update(cluster_id=session.cluster_id, session_id=session.session_id)
        response.headers["Location"] = f"/v1/sessions/{session.session_id}"
        return session_shown(session)

    @routes.get("/sessions/{session_id}", operation_id="get_session_v1", tags=["sessions"])
    async def get_session(session_id: SessionId, caller: Asking) -> SessionShown:
        """Shows a session. Looking at it does not prolong it."""
        return session_shown(await stubs.get_session(session_id, caller))

    @routes.delete("/sessions/{session_id}", operation_id="delete_session_v1", status_code=204, tags=["sessions"])
    async def delete_session(session_id: SessionId, caller: Asking) -> None:
        """Ends a session. Commands that run in it run on."""
        await stubs.delete_session(session_id, caller)

    return routes
