"""A page or two over HTTP, for whoever watches a process: its health, its metrics.

Not a web server: one request a connection, whose head must arrive within a second and in 4 KiB, and whose answer must
be taken within five.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from openline.settings import Address

REQUEST_TIMEOUT_S = 1.0
ANSWER_TIMEOUT_S = 5.0
MAX_REQUEST_BYTES = 4096
MAX_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Page:
    body: bytes
    status: bytes = b"200 OK"
    content_type: bytes = b"application/json"


NOT_FOUND = Page(b'{"status":"not found"}', b"404 Not Found")
NOT_ALLOWED = Page(b'{"status":"method not allowed"}', b"405 Method Not Allowed")


def serve_page(address: Address, path: bytes, page: Callable[[], Page]) -> AbstractAsyncContextManager[int]:
    """Answers `GET` of one path while the block runs; gives the port. Raises OSError if the address cannot be had."""
    return serve_pages(address, {path: page})


@asynccontextmanager
async def serve_pages(address: Address, pages: Mapping[bytes, Callable[[], Page]]) -> AsyncIterator[int]:
    """The same of several paths."""
    answering: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(answering) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        answering.add(writer)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                writer.write(_response(head, pages))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass
        finally:
            answering.discard(writer)
            # Whatever was not taken by now never will be.
            writer.transport.abort()

    server = await asyncio.start_server(answer, address.host, address.port, limit=MAX_REQUEST_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in list(answering):
            writer.transport.abort()
        await server.wait_closed()


def _response(head: bytes, pages: Mapping[bytes, Callable[[], Page]]) -> bytes:
    method, _, rest = head.partition(b" ")
    page = pages.get(rest.partition(b" ")[0].partition(b"?")[0])
    shown = NOT_FOUND if page is None else page() if method in (b"GET", b"HEAD") else NOT_ALLOWED
    lines = (
        b"HTTP/1.1 " + shown.status,
        b"Content-Type: " + shown.content_type,
        b"Content-Length: %d" % len(shown.body),
        b"Connection: close",
        b"",
        b"" if method == b"HEAD" else shown.body,
    )
    return b"\r\n".join(lines)
