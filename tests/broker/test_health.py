"""--health-listen of a real broker, asked over HTTP as a kubelet does it."""

import asyncio
import socket
from typing import Any

import pytest

from broker.server import CannotListen
from tests.programs import free_port

PATIENCE_S = 20.0


async def ask(port: int, path: str) -> int:
    """The status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.read()
    writer.close()
    return int(head.split()[1])


async def until(port: int, path: str, status: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await ask(port, path) != status:
            await asyncio.sleep(0.02)


async def test_a_replica_that_drains_lives_and_is_not_ready(start_broker: Any, frames: Any) -> None:
    """So nobody new is sent to it, and it is not killed for that while it finishes what runs."""
    port = free_port()

    async def look(executor: Any, command_id: str) -> tuple[int, int]:
        await until(port, "/healthz", 503)
        found = await ask(port, "/livez"), await ask(port, "/healthz")
        await executor.send(frames.finished(command_id))
        return found

    async with start_broker(health_listen=f"127.0.0.1:{port}") as broker:
        assert (await ask(port, "/healthz"), await ask(port, "/livez"), await ask(port, "/")) == (200, 200, 404)
        executor = await broker.executor()
        running = broker.execute()
        command_id = await executor.begin_one()
        # They stay open while the broker stops.
        channels, broker._channels = broker._channels, []
        looking = asyncio.create_task(look(executor, command_id))
    assert await looking == (200, 503)
    for channel in channels:
        await channel.close()
    await asyncio.gather(running, return_exceptions=True)
    with pytest.raises(ConnectionRefusedError):
        await ask(port, "/livez")


async def test_a_port_that_is_taken_is_told(start_broker: Any) -> None:
    refused = pytest.raises(CannotListen, match="--health-listen: cannot listen on ")
    with socket.create_server(("127.0.0.1", 0)) as taken, refused:
        async with start_broker(health_listen=f"127.0.0.1:{taken.getsockname()[1]}"):
            pass
