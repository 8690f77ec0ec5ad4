"""Clients that break off in every way there is: no call, task or socket is left of any of them."""

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from gateway import edge
from openline.settings import Address
from openline.v1 import command_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")

OURS = {
    "caller-watch", "deferred-read", "deferred-wait", "events-begin", "events-ping", "fanout",
}  # fmt: skip
COMMAND = ("/v1/clusters/local/commands", {"argv": ["get", "pods"]})
ASKED: dict[str, tuple[tuple[str, dict[str, Any]], str]] = {
    "answer": (COMMAND, ""),
    "events": (COMMAND, "Accept: text/event-stream\r\n"),
    "deferred": (COMMAND, "Prefer: respond-async, wait=50\r\n"),
    "drop-in": (("/debug/execute", {"cluster_id": "local", "args": ["pods"]}), ""),
    "fan-out": (("/v1/fanout", {"clusters": ["a", "b"], "argv": ["get", "pods"]}), ""),
    "fan-out events": (("/v1/fanout", {"clusters": ["a", "b"], "argv": ["get"]}), "Accept: text/event-stream\r\n"),
}


async def endless(frame: pb.CallerFrame, say: Any) -> None:
    """Runs, and says something now and then."""
    if frame.HasField("execute_stream"):
        await say.state("RUNNING")
        for seq in range(10_000):
            await say.output(seq, b"line\n")
            await asyncio.sleep(0.01)
    await asyncio.sleep(600)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()} & OURS


async def ask(gateway: Address, kind: str) -> asyncio.StreamWriter:
    (path, body), headers = ASKED[kind]
    data = json.dumps(body).encode()
    _, writer = await asyncio.open_connection(gateway.host, gateway.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: k\r\n{headers}Content-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
    return writer


def half_close(writer: asyncio.StreamWriter) -> None:
    """Says that nothing more will be sent, and reads on."""
    writer.write_eof()


def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """As a process that is killed with unread data does."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux to count sockets")
@pytest.mark.parametrize("leave", [half_close, close, reset])
@pytest.mark.parametrize("kind", ASKED)
async def test_nothing_is_left_of_who_leaves(
    stage: Any, kind: str, leave: Callable[[asyncio.StreamWriter], None]
) -> None:
    """Twenty at once, while the broker is still at work; whoever half-closes has left as well."""
    async with stage(endless) as scene:
        before = open_files()
        writers = [await ask(scene.gateway, kind) for _ in range(20)]
        expected = 20 * (2 if kind.startswith("fan-out") else 1)
        await until(lambda: len(scene.broker.asked) == expected)
        await asyncio.sleep(0.05)
        for writer in writers:
            leave(writer)
        await until(lambda: len(scene.broker.abandoned) == expected)
        await until(lambda: not tasks())
        for writer in writers:
            writer.close()
        await until(lambda: open_files() <= before)
        assert scene.open_calls == 0


@pytest.mark.parametrize("path", ["/v1/fanout", "/v1/clusters/local/commands", "/v1/sessions", "/debug/execute/async"])
@pytest.mark.parametrize("chunk", [1 << 10, 1 << 20])
async def test_a_chunked_body_over_1_mib_is_413(gateway: Address, path: str, chunk: int) -> None:
    """Whatever the size of its chunks and wherever it goes, as a problem, without waiting for its end."""
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: test-key\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    piece = b"%x\r\n%b\r\n" % (chunk, b"x" * chunk)
    for _ in range(edge.MAX_BODY_BYTES // chunk + 1):
        writer.write(piece)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"content-type: application/problem+json" in answer.lower()
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (problem["status"], problem["executed"]) == (413, "no")


async def test_a_body_that_drips_is_cut_off(gateway: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not prolong the time for it."""
    monkeypatch.setattr(edge, "BODY_TIMEOUT_S", 0.4)
    loop = asyncio.get_running_loop()
    # A bare socket: what has arrived can be read from it although a byte that came too late was answered with a reset.
    with await asyncio.to_thread(socket.create_connection, (gateway.host, gateway.port)) as client:
        client.setblocking(False)
        head = b"POST /v1/fanout HTTP/1.1\r\nHost: x\r\nX-API-Key: test-key\r\nContent-Length: 1000\r\n\r\n"
        await loop.sock_sendall(client, head)

        async def drip() -> None:
            while True:
                await loop.sock_sendall(client, b" ")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        try:
            async with asyncio.timeout(10):
                assert (await loop.sock_recv(client, 1000)).startswith(b"HTTP/1.1 408")
        finally:
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_client_that_sends_all_before_it_reads_sees_why(api: httpx.AsyncClient, is_chunked: bool) -> None:
    """413 and not a reset connection, also for far too much."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(128):
            yield b"x" * (64 << 10)

    content = pieces() if is_chunked else b"x" * (8 << 20)
    response = await api.post("/v1/fanout", content=content)
    assert (response.status_code, response.json()["status"]) == (413, 413)


async def test_a_client_that_sends_without_end_is_cut_off(gateway: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered, and what it sends is not taken for ever."""
    monkeypatch.setattr(edge, "DISCARD_S", 0.5)
    _, writer = await asyncio.open_connection(gateway.host, gateway.port)
    writer.write(b"POST /v1/fanout HTTP/1.1\r\nHost: x\r\nX-API-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"%x\r\n%b\r\n" % (1 << 16, b"x" * (1 << 16))
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
    writer.close()
