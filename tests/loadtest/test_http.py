"""The small HTTP client, against a server that misbehaves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from loadtest.http import Answer, Connections, HttpFailed, open_connections

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
Serving = Callable[[bytes], AbstractAsyncContextManager[tuple[Connections, list[int]]]]


@pytest.fixture
def serving() -> Serving:
    """A server that answers with given bytes, closes after bad ones, and counts the requests of each connection."""

    @asynccontextmanager
    async def served(answer: bytes) -> AsyncIterator[tuple[Connections, list[int]]]:
        asked: list[int] = []
        tasks: list[asyncio.Task[None] | None] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(0)
            tasks.append(asyncio.current_task())
            try:
                while await reader.readuntil(b"}"):
                    asked[-1] += 1
                    writer.write(answer)
                    if answer != GOOD:
                        break
            except asyncio.IncompleteReadError:
                pass
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, open_connections(f"http://127.0.0.1:{port}") as connections:
            yield connections, asked
        await asyncio.gather(*filter(None, tasks))

    return served


async def test_a_connection_is_kept(serving: Serving) -> None:
    """For the next request, and no other one is opened meanwhile."""
    async with serving(GOOD) as (connections, asked):
        answers = [await connections.post("/", b"{}", timeout_s=5) for _ in range(3)]
    assert answers == [Answer(200, b"hi")] * 3
    assert asked == [3]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="closed at once"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", id="closed too early"),
        pytest.param(b"SSH-2.0\r\n\r\n", id="no HTTP"),
    ],
)
async def test_no_answer_is_a_failure_and_the_next_one_dials_anew(serving: Serving, answer: bytes) -> None:
    """What is left of an answer must not become the next one's."""
    async with serving(answer) as (connections, asked):
        for _ in range(2):
            with pytest.raises(HttpFailed):
                await connections.post("/", b"{}", timeout_s=5)
    assert asked == [1, 1]


async def test_nobody_there_is_a_failure(unused_tcp_port: int) -> None:
    """Named by its kind."""
    async with open_connections(f"http://127.0.0.1:{unused_tcp_port}") as connections:
        with pytest.raises(HttpFailed, match="ConnectionRefusedError"):
            await connections.post("/", b"{}", timeout_s=5)
