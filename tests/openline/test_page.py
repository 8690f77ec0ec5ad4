"""One page over HTTP: bounded against whoever asks for it."""

import asyncio
import contextlib

import pytest

from openline import page
from openline.page import Page, serve_page
from openline.settings import Address

HERE = Address("127.0.0.1:0")
LARGE = Page(b"x" * (8 << 20), content_type=b"text/plain")


async def ask(port: int, head: bytes = b"GET /p HTTP/1.1\r\n\r\n") -> bytes:
    """The whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_large_page_arrives_whole() -> None:
    async with serve_page(HERE, b"/p", lambda: LARGE) as port:
        head, _, body = (await ask(port)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")
        assert body == LARGE.body
        assert (await ask(port, b"HEAD /p HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")


async def test_who_says_nothing_holds_up_nobody() -> None:
    async with serve_page(HERE, b"/p", lambda: Page(b"here")) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        assert (await ask(port)).endswith(b"here")
        for _, writer in silent:
            writer.close()


async def test_who_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that many of them have not many pages in memory."""
    monkeypatch.setattr(page, "ANSWER_TIMEOUT_S", 0.05)
    async with serve_page(HERE, b"/p", lambda: LARGE) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /p HTTP/1.1\r\n\r\n")
        await reader.readexactly(1)
        await asyncio.sleep(0.2)  # the time in which nothing is taken
        taken = 0
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                while data := await reader.read(1 << 20):
                    taken += len(data)
        writer.close()
        assert taken < len(LARGE.body)


async def test_a_stop_waits_for_nobody() -> None:
    async with asyncio.timeout(5):
        async with serve_page(HERE, b"/p", lambda: LARGE) as port:
            silent = await asyncio.open_connection("127.0.0.1", port)
            slow = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            slow[1].write(b"GET /p HTTP/1.1\r\n\r\n")
            await slow[0].readexactly(1)
    for _, writer in (silent, slow):
        writer.close()
