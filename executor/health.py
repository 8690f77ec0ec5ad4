"""A small HTTP answer for whoever watches this process: 200 while the line to a broker stands, 503 otherwise.

Not a web server: one request a connection, whose head must arrive within a second and in 4 KiB.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from openline.settings import Address

REQUEST_TIMEOUT_S = 1.0
MAX_REQUEST_BYTES = 4096
MAX_CONNECTIONS = 32


@asynccontextmanager
async def serve_health(address: Address, *, healthy: Callable[[], bool]) -> AsyncIterator[int]:
    """Answers `GET /healthz` on the address while the block runs; gives the port. Raises OSError if it is taken."""
    answering: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(answering) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        answering.add(writer)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, healthy()))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            answering.discard(writer)
            writer.close()

    server = await asyncio.start_server(answer, address.host, address.port, limit=MAX_REQUEST_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in list(answering):
            writer.transport.abort()
        await server.wait_closed()


def _response(head: bytes, healthy: bool) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if path != b"/healthz":
        status, body = b"404 Not Found", b'{"status":"not found"}'
    elif method not in (b"GET", b"HEAD"):
        status, body = b"405 Method Not Allowed", b'{"status":"method not allowed"}'
    elif healthy:
        status, body = b"200 OK", b'{"status":"ok"}'
    else:
        status, body = b"503 Service Unavailable", b'{"status":"not connected"}'
    lines = (
        b"HTTP/1.1 " + status,
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        b"",
        b"" if method == b"HEAD" else body,
    )
    return b"\r\n".join(lines)
