"""The protocol, which the SDK speaks: requests come here from `door`, and go to `tools`.

Importing the SDK takes half a second and 30 MiB, so nothing else imports this module; `door` does when it is needed.
"""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.edge import MAX_BODY_BYTES
from gateway.mcp.asked import Asked
from gateway.mcp.call import Call, Report
from gateway.mcp.listing import INSTRUCTIONS, LISTING
from gateway.mcp.tools import TOOLS, Tools
from gateway.stubs import Stubs
from openline import __version__
from openline.pipes import Pipes

log = structlog.get_logger()

# The tools are the same for everybody until the next version.
LISTED_FOR_MS = 3_600_000

Context = ServerRequestContext[Any, Request]


def build_server(pipes: Pipes, stubs: Stubs) -> ASGIApp:
    """Serves one HTTP request, whole when it comes here, in any version of the protocol."""
    listed = ListToolsResult(tools=[Tool.model_validate(each, by_name=False) for each in LISTING])
    tools = Tools(stubs)

    async def list_tools(_context: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return listed

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        if params.name not in TOOLS:
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name[:100]!r}; there are {', '.join(TOOLS)}")
        http = cast(Request, context.request)  # there is one, since everything comes over HTTP
        asked = Asked.of(http.scope)
        exchange = asked.caller.exchange
        exchange.facts["tool"] = params.name
        try:
            asked.take_meta(context.meta or {})
            call = Call(
                caller=asked.caller,
                pipes=pipes,
                commands=asked.commands,
                name=asked.name_of(context.request_id),
                arrived_at=asked.arrived_at,
                ends_with_client=context.protocol_version in MODERN_PROTOCOL_VERSIONS,
                report=_report(context),
            )
            told = await tools.call(params.name, params.arguments or {}, call)
        except Exception:
            # The SDK would tell a client of the older protocols what the exception says.
            log.exception("mcp.defect", request_id=exchange.request_id, **exchange.names)
            raise MCPError(INTERNAL_ERROR, "Internal error") from None
        return CallToolResult(
            content=[TextContent(text=told.text)], structured_content=told.fields, is_error=told.is_error
        )

    server = Server(
        "openline",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        # None of the tools asks for its arguments in headers. Otherwise the tools are listed for each call, to see.
        get_tool_input_schema=lambda _name: None,
        cache_hints={"tools/list": CacheHint(LISTED_FOR_MS, "public")},
    )

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        # Nothing is kept from one request to the next, so each has a manager of its own: its tasks end with the
        # request, and there is nothing to start and to stop with the gateway.
        manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=MAX_BODY_BYTES)
        async with manager.run():
            await manager.handle_request(scope, receive, send)

    return serve


def _report(context: Context) -> Report | None:
    if not context.meta or context.meta.get("progress_token") is None:
        return None
    session = context.session
    send: Callable[[float, float | None, str | None], Awaitable[None]] = session.report_progress

    async def report(progress: float, message: str) -> None:
        await send(progress, None, message)

    return report
