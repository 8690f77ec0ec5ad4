"""/v1's lists: the commands and sessions of a key's owner, a page at a time."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from gateway.callers import Asking, Caller
from gateway.cluster_answers import session_shown
from gateway.cluster_models import SessionPage
from gateway.command_answers import command_listed
from gateway.command_models import CommandPage
from gateway.exchange import visible
from gateway.problems import PROBLEMS
from gateway.stubs import Stubs
from gateway.times import Instant, stamp
from gateway.v1 import MAX_PAGE, PAGE, SessionId
from openline.v1.command_service_pb2 import (
    COMMAND_ORDER_NEWEST_FIRST,
    COMMAND_ORDER_OLDEST_FIRST,
    ListCommandsRequest,
)
from openline.v1.session_service_pb2 import ListSessionsRequest

ClusterName = Annotated[str, Query(max_length=253, description="Only of this cluster.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many at most.")]
# A page goes on behind an id.
Cursor = Annotated[
    str, Query(max_length=36, pattern=r"^([0-9a-f-]{36})?$", description="The `next_cursor` of the page before.")
]
Since = Annotated[Instant | None, Query(description="Only those that were asked for since then.")]
Order = Annotated[
    Literal["newest", "oldest"],
    Query(description="Which come first: `oldest` reads a conversation from its beginning."),
]
Owner = Annotated[
    str,
    Query(
        max_length=200, description="Whose, for keys with the scope `admin`; all others see their own owner's alone."
    ),
]
_ORDERS = {"newest": COMMAND_ORDER_NEWEST_FIRST, "oldest": COMMAND_ORDER_OLDEST_FIRST}


def listing_routes(stubs: Stubs) -> APIRouter:
    routes = APIRouter(prefix="/v1", responses=PROBLEMS)

    async def page(request: ListCommandsRequest, caller: Caller) -> CommandPage:
        found = await stubs.list_commands(request, caller)
        commands = [command_listed(command) for command in found.commands]
        return CommandPage(commands=commands, count=len(commands), next_cursor=found.next_page_token or None)

    @routes.get("/commands", operation_id="list_commands", tags=["commands"])
    async def list_commands(
        caller: Asking,
        cluster_id: ClusterName = "",
        session_id: Annotated[str, Query(max_length=200)] = "",
        correlation_id: Annotated[str, Query(description="As it was given, or as it was told back.")] = "",
        owner: Owner = "",
        since: Since = None,
        order: Order = "newest",
        limit: Limit = PAGE,
        cursor: Cursor = "",
    ) -> CommandPage:
        """Lists commands that run or whose results have not expired, without their output.

        What is asked for is on the list a moment later. Of a conversation or a session the last thousand are kept, of
        all the last ten thousand.
        """
        request = ListCommandsRequest(
            cluster_id=cluster_id,
            session_id=session_id,
            correlation_id=visible(correlation_id.encode()),
            owner=owner,
            since=stamp(since),
            page_size=limit,
            page_token=cursor,
            order=_ORDERS[order],
        )
        return await page(request, caller)

    @routes.get("/sessions/{session_id}/commands", operation_id="list_session_commands", tags=["sessions"])
    async def list_session_commands(
        session_id: SessionId,
        caller: Asking,
        since: Since = None,
        order: Order = "newest",
        limit: Limit = PAGE,
        cursor: Cursor = "",
    ) -> CommandPage:
        """Lists the commands of a session, also when it has ended. An admin may see those of others."""
        await stubs.check_session_id(session_id, caller)
        request = ListCommandsRequest(
            session_id=session_id, since=stamp(since), page_size=limit, page_token=cursor, order=_ORDERS[order]
        )
        return await page(request, caller)

    @routes.get("/sessions", operation_id="list_sessions", tags=["sessions"])
    async def list_sessions(
        caller: Asking, cluster_id: ClusterName = "", limit: Limit = PAGE, cursor: Cursor = ""
    ) -> SessionPage:
        """Lists the sessions of the key's owner, newest first."""
        request = ListSessionsRequest(cluster_id=cluster_id, page_size=limit, page_token=cursor)
        found = await stubs.list_sessions(request, caller)
        sessions = [session_shown(session) for session in found.sessions]
        return SessionPage(sessions=sessions, count=len(sessions), next_cursor=found.next_page_token or None)

    return routes
