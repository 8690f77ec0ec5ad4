"""The life of the server: what it leaves on disk, how it stops, and what it says when it cannot start."""

import asyncio
import os
import signal
import socket
import ssl
import sys
from pathlib import Path

import pytest

from demo.kubernetes.server import ApiServer, serve

ROOT = Path(__file__).parents[3]


async def open_watch(server: ApiServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which a watch has begun."""
    port = int(server.url.rsplit(":", 1)[1])
    context = ssl.create_default_context(cafile=str(server.ca_file))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    head = f"GET /api/v1/pods?watch=true HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.token}\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    return reader, writer


async def test_it_stops_in_spite_of_open_watches(tmp_path: Path) -> None:
    """Open watches end, no task is left behind, and the port is free again."""
    before = asyncio.all_tasks()
    async with serve(directory=tmp_path) as server:
        watches = [await open_watch(server) for _ in range(5)]
        port = int(server.url.rsplit(":", 1)[1])
    assert asyncio.all_tasks() == before
    for reader, writer in watches:
        assert (await reader.read()).endswith(b"0\r\n\r\n")
        writer.transport.abort()
    socket.create_server(("127.0.0.1", port)).close()


async def test_it_stops_in_spite_of_a_client_that_does_not_read(tmp_path: Path) -> None:
    """A client that asked for the flood and reads nothing of it is cut off."""
    before = asyncio.all_tasks()
    async with serve(directory=tmp_path) as server:
        _, writer = await open_watch(server)
        _, flooded = await open_watch(server)
        request = (
            f"GET /api/v1/namespaces/flood/pods/chatty/log HTTP/1.1\r\nauthorization: Bearer {server.token}\r\n\r\n"
        )
        flooded.write(request.encode())
        await asyncio.sleep(0.3)
    assert asyncio.all_tasks() == before
    writer.transport.abort()
    flooded.transport.abort()


async def test_a_client_that_leaves_ends_its_watch(tmp_path: Path) -> None:
    """When the connection is gone, so are the tasks that served it."""
    async with serve(directory=tmp_path) as server:
        before = len(asyncio.all_tasks())
        _, writer = await open_watch(server)
        assert len(asyncio.all_tasks()) > before
        writer.transport.abort()
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0.02)


async def test_only_the_owner_can_read_the_kubeconfigs(tmp_path: Path) -> None:
    """Kubeconfigs hold tokens, and are for their owner alone; the two tokens differ."""
    async with serve(directory=tmp_path) as server:
        assert server.kubeconfig == tmp_path / "kubeconfig"
        assert server.admin_kubeconfig == tmp_path / "admin.kubeconfig"
        for path in (server.kubeconfig, server.admin_kubeconfig):
            assert path.stat().st_mode & 0o777 == 0o600
        assert server.token in server.kubeconfig.read_text()
        assert server.token not in server.admin_kubeconfig.read_text()


async def test_signals_stay_with_the_owner(tmp_path: Path) -> None:
    """Serving changes no signal handler."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with serve(directory=tmp_path):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def run_alone(*args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "demo.kubernetes",
        *args,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_alone_it_ends_without_a_traceback(number: signal.Signals) -> None:
    """`python -m demo.kubernetes` says where its kubeconfig is, and stops quietly when told to."""
    process = await run_alone("--port", "0")
    assert process.stdout is not None
    async with asyncio.timeout(20):
        await process.stdout.readline()
        assert b"export KUBECONFIG=" in await process.stdout.readline()
        process.send_signal(number)
        _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")


async def test_a_port_in_use_is_one_line() -> None:
    """A port that somebody else has is told in one line, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await run_alone("--port", str(port))
        async with asyncio.timeout(20):
            _, stderr = await process.communicate()
    assert process.returncode == 1
    assert stderr.decode() == f"cannot listen on 127.0.0.1:{port}: Address already in use\n"
