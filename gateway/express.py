"""POST /debug/execute in its plain form, on a short way past the framework.

FastAPI's layers cost as much again as everything the gateway does with a command, and this is the route that AI agents
use. So a request without special wishes is taken out here and passed through the same functions as the route calls.
Whatever is not plain, or not right, goes the usual way from the beginning, and is answered there.
"""

from dataclasses import dataclass

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.argv import Unacceptable
from gateway.callers import Caller, read_caller
from gateway.debug import whole_answer
from gateway.edge import before
from gateway.leaving import CallerGone
from gateway.models import ExecuteBody
from gateway.problems import on_caller_gone, problem_of
from gateway.requests import execute_request
from openline.errors import OpenlineError
from openline.ids import is_cluster_id
from openline.pipes import Pipes
from openline.v1.command_service_pb2 import ExecuteRequest

PATH = "/debug/execute"
# With any of these the answer has another form, or may have.
_SPECIAL = ("prefer", "idempotency-key")


@dataclass(frozen=True, slots=True)
class Route:
    """What is said of a route in logs and metrics."""

    path: str


class Express:
    """ASGI in, ASGI out, before the application; the body of a request is whole when it comes here."""

    def __init__(self, usual: ASGIApp, pipes: Pipes) -> None:
        self._usual = usual
        self._pipes = pipes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST" or not _is_plain(scope):
            await self._usual(scope, receive, send)
            return
        message = await receive()
        http = Request(scope, receive)
        asked = await self._read(message, http)
        if asked is None:
            await self._usual(scope, before(message, receive), send)
            return
        scope["route"] = Route(PATH)
        response = await self._execute(*asked, http)
        await response(scope, receive, send)

    async def _read(self, message: Message, http: Request) -> tuple[ExecuteRequest, Caller] | None:
        """What is asked, and by whom; None where the usual way will say what is wrong."""
        try:
            caller = await read_caller(http)
            request = execute_request(ExecuteBody.model_validate_json(message.get("body", b"")), caller)
        except (ValidationError, RequestValidationError, Unacceptable):
            return None
        return (request, caller) if is_cluster_id(request.cluster_id) and not request.session_id else None

    async def _execute(self, request: ExecuteRequest, caller: Caller, http: Request) -> Response:
        caller.exchange.facts.update(cluster_id=request.cluster_id, command_id=request.command_id)
        try:
            return await whole_answer(self._pipes, request, caller, http)
        except OpenlineError as failure:
            return problem_of(http.scope, failure)
        except CallerGone as gone:
            return await on_caller_gone(http, gone)


def _is_plain(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return (
        not any(name in headers for name in _SPECIAL) and "text/event-stream" not in headers.get("accept", "").lower()
    )
