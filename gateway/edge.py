"""The outermost layer of every request: its ids, a bounded read of its body, its log line, its count.

A body is JSON whatever its Content-Type says, since people's curl scripts send none or a wrong one.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.callers import shown_key
from gateway.exchange import Exchange
from gateway.problems import problem
from gateway.spans import begin_request, end_request
from gateway.traffic import Traffic, Why
from openline.calls import broker_unavailable
from openline.errors import error
from openline.ids import is_token
from openline.reasons import NO, Reason
from openline.tracing.traceparent import log_fields
from openline.v1 import command_pb2

log = structlog.get_logger()

MAX_BODY_BYTES = 1 << 20
LARGE_HEAD = "The request's head is too large"
# From the end of the head to the end of the body; a client that needs longer is not talking to us.
BODY_TIMEOUT_S = 10.0

# Of a body that was refused: so much of it is still taken, and for so long, for its client to see the answer.
MAX_DISCARDED_BYTES = 32 << 20
DISCARD_S = 3.0

# Asked every few seconds by whatever watches the gateway: their lines are of interest only when something is wrong, and
# they are answered however many others ask.
_WATCHED = frozenset({"/health", "/healthz", "/metrics"})
# Where GET works, HEAD does.
_PAGES = _WATCHED | {"/docs", "/openapi.json"}
_FILES = "/ui"
# Whatever is below these asks for a key before anything else.
_KEYED = ("/debug/", "/admin/", "/cluster/", "/api/", "/v1/", "/audit", "/mcp", "/a2a")

_CROWDED = "openline.crowded"
_LARGE_HEAD = "openline.large_head"


def crowd(scope: Scope) -> None:
    """This request came on a connection beyond those that are served."""
    scope[_CROWDED] = True


def large_head(scope: Scope) -> None:
    """This request's head is beyond its bound."""
    scope[_LARGE_HEAD] = True


class _Refused(Exception):
    """The request is not passed on, nor its body taken; `failure` says why, where there is a reason in the table.

    `counted` is under which name it is counted, if it is.
    """

    def __init__(
        self, status: int, why: str, *, counted: Why | None = None, failure: command_pb2.Error | None = None
    ) -> None:
        super().__init__(why)
        self.status = status
        self.counted = counted
        self.failure = failure


class _Gone(Exception):
    """The client left before its body was complete."""


class Edge:
    """ASGI in, ASGI out, around the whole application."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at = time.perf_counter()
        traffic = self._traffic
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        exchange = Exchange.begin(scope, headers)
        # What nginx calls a client that left before its answer.
        status = 499
        head_s: float | None = None
        is_event_stream = False
        asked = scope

        async def answer(message: Message) -> None:
            nonlocal status, head_s, is_event_stream
            if message["type"] == "http.response.start":
                status, head_s = int(message["status"]), time.perf_counter() - began_at
                out = MutableHeaders(scope=message)
                if out.get("content-type", "").startswith("text/event-stream"):
                    is_event_stream = True
                    traffic.event_streams += 1
                out["X-Request-ID"] = exchange.request_id
                out["X-Correlation-ID"] = exchange.correlation_id
            await send(message)

        span = None if scope["path"] in _WATCHED else begin_request(scope, exchange)
        traffic.in_flight += 1
        try:
            _check(scope)
            if b"content-length" in headers or b"transfer-encoding" in headers:
                body = await _read_body(headers, receive)
                _say_json(scope)
                receive = before({"type": "http.request", "body": body, "more_body": False}, receive)
            if scope["method"] == "HEAD" and (scope["path"] in _PAGES or scope["path"].startswith(_FILES)):
                # The server leaves the body out: it knows what was asked.
                asked = {**scope, "method": "GET"}
            await self._app(asked, receive, answer)
        except _Gone:
            pass
        except _Refused as refused:
            if refused.counted is not None:
                traffic.refused[refused.counted] += 1
            response = problem(
                scope, refused.status, str(refused), failure=refused.failure, headers={"Connection": "close"}
            )
            await _refuse(response, scope, receive, answer)
        except Exception:
            # The server says so as well, but not of which request.
            log.error("request.failed", request_id=exchange.request_id, **exchange.names)
            raise
        finally:
            took_s = time.perf_counter() - began_at
            route = getattr(asked.get("route"), "path", None)
            traffic.in_flight -= 1
            traffic.event_streams -= is_event_stream
            traffic.count(
                route,
                scope["method"],
                status,
                is_agent_call=exchange.is_agent_call,
                head_s=took_s if head_s is None else head_s,
            )
            if span is not None:
                answered = None if head_s is None else status
                end_request(span, exchange, method=scope["method"], route=route, status=answered)
            say = log.debug if scope["path"] in _WATCHED and status < 400 else log.info
            say(
                "request.answered",
                method=scope["method"],
                route=route,
                status=status,
                ms=round(took_s * 1000, 1),
                request_id=exchange.request_id,
                **exchange.names,
                **log_fields(exchange.traceparent),
            )


def _check(scope: Scope) -> None:
    """What is refused whatever the body says. Raises _Refused."""
    path = scope["path"]
    if _CROWDED in scope and path not in _WATCHED:
        full = broker_unavailable("the gateway has as many connections open as it takes", executed=NO).error
        raise _Refused(503, full.message, counted="crowded", failure=full)
    if _LARGE_HEAD in scope:
        raise _Refused(431, LARGE_HEAD, counted="large_head")
    if path.startswith(_KEYED):
        key = shown_key(Headers(scope=scope))
        if not is_token(key):
            why = "Invalid API key" if key else "Missing API key"
            raise _Refused(401, why, counted="no_key", failure=error(Reason.UNAUTHENTICATED, why))
    if "\0" in path:
        raise _Refused(404, "Not Found")


async def _read_body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    length = headers.get(b"content-length", b"0")
    too_large = _Refused(413, f"The body is larger than {MAX_BODY_BYTES} bytes", counted="large_body")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise _Gone
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise _Refused(408, f"The body was not complete after {BODY_TIMEOUT_S:g} s", counted="slow_body") from None


async def _refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers, and reads on for a while before the connection is closed.

    Most clients read nothing before they have sent everything. If we closed while something of theirs is still on its
    way, the system would reset the connection, and they would never see why (RFC 9112, 9.6).
    """

    async def unfinished(message: Message) -> None:
        await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

    await response(scope, receive, unfinished)
    left = MAX_DISCARDED_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    break
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _say_json(scope: Scope) -> None:
    kept = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    scope["headers"] = [*kept, (b"content-type", b"application/json")]


def before(message: Message, receive: Receive) -> Receive:
    """A receive that gives this message, and then what the client does next."""
    pending = [message]

    async def given() -> Message:
        return pending.pop() if pending else await receive()

    return given
