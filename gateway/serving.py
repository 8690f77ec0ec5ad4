"""HTTP: uvicorn inside our own loop, bounded against clients that are slow, many or gone.

Signals are not handled here; `main` does.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.edge import LARGE_HEAD, crowd, large_head
from gateway.exchange import Exchange
from gateway.parsing import PlainParser
from gateway.problems import problem
from gateway.traffic import Traffic, Why

# What is asked on connections beyond this many is answered 503 at once, health excepted: see `edge`. Each costs a few
# tens of KiB.
MAX_CONNECTIONS = 4096
# Those beyond these are closed unheard.
MOST_CONNECTIONS = MAX_CONNECTIONS + 256
BACKLOG = 2048
# How long a connection may be without a request, a new one as well: who has opened it may be slow to ask. Longer than
# the minute after which load balancers close an idle connection, so that it is never us who close first.
KEEP_ALIVE_S = 65
# From the first byte of a request to the end of its head.
HEAD_TIMEOUT_S = 10.0
MAX_HEAD_BYTES = 64 << 10
# A client that takes nothing of what is sent to it for so long is gone, or might as well be.
STALL_TIMEOUT_S = 60.0
# What is running when the gateway is told to stop may go on for so long.
GRACE_S = 20


class Config(uvicorn.Config):
    """uvicorn's, with where its connections are counted."""

    def __init__(self, app: ASGIApp, *, traffic: Traffic, **given: Any) -> None:
        super().__init__(app, **given)
        self.traffic = traffic


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with what it lacks: bounds in time and size on a request's head, and in time on a stall."""

    config: Config
    parser: PlainParser  # type: ignore[assignment]  # it has all of the usual one that is used

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.parser = PlainParser(self)
        super().connection_made(transport)
        self.config.traffic.connections += 1
        if len(self.connections) > MOST_CONNECTIONS:
            self._close_unanswered("unheard", transport.close)
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        self._stall_over()
        self.config.traffic.connections -= 1
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._stall_over()
        self._stall_timer = self.loop.call_later(
            STALL_TIMEOUT_S, self._close_unanswered, "stalled", self.transport.abort
        )
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stall_over()
        super().resume_writing()

    def on_message_begin(self) -> None:
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if not self.parser.is_head_to_read_again:
            self._head_done()
            scope = cast(Scope, self.scope)
            if len(self.connections) > MAX_CONNECTIONS:
                crowd(scope)
            # One that came in a single piece has not been counted.
            if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
                large_head(scope)
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.is_head_to_read_again:
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        # Empty lines may come before a request, and begin none.
        if self.timeout_keep_alive_task is not None:
            self._await_head()
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, LARGE_HEAD, counted="large_head")

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg, counted="malformed")

    def _close_unanswered(self, why: Why, close: Callable[[], None]) -> None:
        self.config.traffic.refused[why] += 1
        close()

    def _refuse(self, status: int, why: str, *, counted: Why) -> None:
        """A problem with its ids, as every other refusal is, though there is no request that it could name."""
        self.config.traffic.refused[counted] += 1
        scope: Scope = {"type": "http", "method": "", "path": "", "headers": []}
        exchange = Exchange.begin(scope, {})
        ids = {"X-Request-ID": exchange.request_id, "X-Correlation-ID": exchange.correlation_id}
        answer = problem(scope, status, why, headers={**ids, "Connection": "close"})
        head = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
        line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
        self.transport.write(b"%b%b\r\n%b" % (line, head, bytes(answer.body)))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """CONNECT only: nothing that whoever runs the gateway could help by installing a library."""

    def _stall_over(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_late)

    def _head_late(self) -> None:
        self._close_unanswered("slow_head", self.transport.close)

    def _head_done(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to its owner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: ASGIApp, traffic: Traffic | None = None) -> Server:
    """For HTTP in plain; `securing` has the one for HTTPS. Connections are counted in `traffic`."""
    return Server(configure(app, traffic))


def configure(app: ASGIApp, traffic: Traffic | None = None) -> Config:
    return Config(
        app,
        traffic=traffic or Traffic(),
        http=BoundedHttp,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError when the address cannot be had."""
    [family, kind, proto, _, address] = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
