"""The answer for whoever watches the process."""

import asyncio

import pytest

from openline import page
from openline.health import serve_health
from openline.page import MAX_CONNECTIONS
from openline.settings import Address

HERE = Address("127.0.0.1:0")


async def ask(port: int, head: bytes) -> bytes:
    """The first line of the answer; nothing if the connection is closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    try:
        async with asyncio.timeout(5):
            return (await reader.read()).partition(b"\r\n")[0]
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_line", "healthy", "answer"),
    [
        (b"GET /healthz HTTP/1.1", True, b"HTTP/1.1 200 OK"),
        (b"GET /healthz HTTP/1.1", False, b"HTTP/1.1 503 Service Unavailable"),
        (b"GET /healthz?verbose HTTP/1.0", True, b"HTTP/1.1 200 OK"),
        (b"HEAD /healthz HTTP/1.1", True, b"HTTP/1.1 200 OK"),
        (b"GET /livez HTTP/1.1", False, b"HTTP/1.1 200 OK"),
        (b"POST /healthz HTTP/1.1", True, b"HTTP/1.1 405 Method Not Allowed"),
        (b"GET / HTTP/1.1", True, b"HTTP/1.1 404 Not Found"),
        (b"\xff\xfe", True, b"HTTP/1.1 404 Not Found"),
    ],
)
async def test_says_whether_it_is_of_use_and_whether_it_lives(
    request_line: bytes, healthy: bool, answer: bytes
) -> None:
    async with serve_health(HERE, healthy=lambda: healthy, otherwise="not connected") as port:
        assert await ask(port, request_line + b"\r\nHost: x\r\n\r\n") == answer


async def test_a_request_that_never_ends_is_dropped() -> None:
    """Neither a slow one nor a large one holds a connection."""
    async with serve_health(HERE, healthy=lambda: True, otherwise="") as port:
        assert await ask(port, b"GET /healthz HTTP/1.1\r\n") == b""
        assert await ask(port, b"x" * 100_000) == b""


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than may be open at a time is closed without an answer."""
    monkeypatch.setattr(page, "REQUEST_TIMEOUT_S", 60.0)
    async with serve_health(HERE, healthy=lambda: True, otherwise="") as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        assert await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n") == b""
        for _, writer in idle:
            writer.close()
