"""/mcp: what is refused before the protocol begins, and what of the protocol the SDK leaves to its host.

No state: a request is answered by whichever gateway it comes to. A client of the older protocols is given a session id
all the same, which nobody keeps: it says which calls are of one client.
"""

import asyncio
import json
from typing import Any

from fastapi import Request, Response
from starlette.datastructures import MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.edge import before
from gateway.express import Route as ShownRoute
from gateway.mcp.asked import SESSION_ID, Asked
from gateway.mcp.cancelling import InFlight, TakingBack
from gateway.origins import check_origin
from gateway.stubs import Stubs
from openline.ids import new_id
from openline.pipes import Pipes

PATH = "/mcp"

INITIALIZE = "initialize"
# Where a client begins, and what needs no broker: a wrong key is told here.
BEGINNINGS = (INITIALIZE, "server/discover", "tools/list")
CALL = "tools/call"
CANCELLED = "notifications/cancelled"


def mcp_routes(pipes: Pipes, stubs: Stubs) -> list[Route]:
    # Neither GET, which would be a stream on which nothing ever comes, nor DELETE, since there is nothing to delete.
    return [Route(PATH, endpoint=Door(pipes, stubs), methods=["POST"], include_in_schema=False)]


class Door:
    """ASGI in, ASGI out; the body of a request is whole when it comes here."""

    def __init__(self, pipes: Pipes, stubs: Stubs) -> None:
        self._pipes = pipes
        self._stubs = stubs
        self._in_flight = InFlight()
        self._taking_back = TakingBack(pipes, stubs)
        self._route = ShownRoute(PATH)
        self._loading: asyncio.Future[ASGIApp] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = Request(scope, receive)
        scope["route"] = self._route
        check_origin(http)
        message = await receive()
        said = _read(message.get("body", b""))
        method = said.get("method")
        asked = await Asked.read(http)
        if method == CANCELLED and "id" not in said:
            await self._take_back(said, asked, scope, receive, send)
            return
        if method in BEGINNINGS:
            await self._stubs.refuse_wrong_key(asked.caller)
        # From here on it can be taken back, though it may take a while until it begins something.
        name = asked.name_of(said.get("id")) if method == CALL else None
        with self._in_flight.hold(asked.caller.api_key, name, asked.commands):
            serve = await self._server()
            asked.begin()
            if method == INITIALIZE:
                send = _in_session(new_id(), asked, send)
            await serve(scope, before(message, receive), send)

    async def _server(self) -> ASGIApp:
        """Loaded when it is first asked for, in a thread: the gateway goes on meanwhile."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(asyncio.to_thread(self._load))
        loading = self._loading
        try:
            return await asyncio.shield(loading)
        finally:
            # What could not be loaded is tried again with the next request.
            if loading is self._loading and loading.done() and (loading.cancelled() or loading.exception() is not None):
                self._loading = None

    def _load(self) -> ASGIApp:
        from gateway.mcp.server import build_server

        return build_server(self._pipes, self._stubs)

    async def _take_back(self, said: dict[str, Any], asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        """Cancels a call that came before, here or at another gateway. Nobody waits for what becomes of it.

        Raises UNAUTHENTICATED for a key that is none, where the call has to be looked for.
        """
        params = said.get("params")
        name = asked.name_of(params.get("requestId")) if isinstance(params, dict) else None
        commands = None if name is None else self._in_flight.find(asked.caller.api_key, name)
        # Before the answer: so keys that are made up take up a connection each, and nobody's place.
        is_known = name is not None and commands is None and await self._taking_back.knows_key(asked.caller)
        await Response(status_code=202)(scope, receive, send)
        facts = asked.caller.exchange.facts
        if commands is not None:
            facts["cancelled"] = await self._taking_back.here(commands, asked.caller)
        elif name is not None and is_known:
            facts["cancelled"] = await self._taking_back.elsewhere(name, asked.caller)


def _read(body: bytes) -> dict[str, Any]:
    """The message; empty for what is none, which the SDK answers.

    By what reads whatever the SDK does, in any version of the protocol: NaN, any number as an id, UTF-16.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _in_session(session_id: str, asked: Asked, send: Send) -> Send:
    """A send that tells the client of its session."""
    asked.caller.exchange.offer_correlation_id(session_id)

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            MutableHeaders(scope=message)[SESSION_ID] = session_id
        await send(message)

    return told
