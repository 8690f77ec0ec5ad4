"""The gateway in front of the real broker and the real executor; only kubectl is a script."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.app import build_app
from gateway.serving import listen, make_server
from openline.pipes import Pipes
from openline.settings import Address

PROGRAMS = Path(sys.executable).parent

# Answers by its second word; otherwise it says what it was asked.
KUBECTL = r"""#!/bin/sh
case "$2" in
  fail) echo 'Error from server (NotFound): pods "fail" not found' >&2; echo 'second line' >&2; exit 1 ;;
  mute) exit 3 ;;
  both) echo out; echo warning >&2 ;;
  binary) printf 'a\377b' ;;
  slow) echo 'so far'; sleep 30 ;;
  pause) sleep 1; echo done ;;
  *) printf '%s\n' "$@" ;;
esac
"""


class Program:
    """One of the console scripts as a process, with its log lines as they come."""

    def __init__(self, name: str, *flags: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENLINE_")}
        self.process = subprocess.Popen(
            [PROGRAMS / name, *flags, "--log-format", "json"], stderr=subprocess.PIPE, env=environment, text=True
        )

    def until(self, event: str) -> dict[str, Any]:
        """The fields of the next log line of this event; fails when the program ends without it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{") and (fields := json.loads(line))["event"] == event:
                return dict(fields)
        raise AssertionError(f"ended without {event}")

    def stop(self) -> tuple[int, str]:
        """The exit code after SIGTERM, and what was still to be read."""
        self.process.terminate()
        _, rest = self.process.communicate(timeout=30)
        return self.process.returncode, rest


@contextmanager
def running(name: str, *flags: str) -> Iterator[Program]:
    program = Program(name, *flags)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.kill()
        program.process.communicate()


@pytest.fixture(scope="session")
def run_program() -> Any:
    """`with run_program(name, *flags) as program`: killed at the end if it still runs."""
    return running


@pytest.fixture(scope="session")
def broker() -> Iterator[Address]:
    """A broker that knows the clusters local, east and west."""
    keys = "me:test-key:execute+session+read+admin+audit,you:other-key:execute+session+read,looker:read-key:read"
    tokens = "local:TOKEN,west:WEST,east:EAST"
    flags = ("--listen", "127.0.0.1:0", "--api-keys", keys, "--executor-tokens", tokens)
    with running("openline-broker", *flags) as program:
        yield Address(program.until("broker.started")["listen"])


@pytest.fixture(scope="session")
def cluster(broker: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The cluster `local`, with an executor connected to the broker."""
    kubectl = tmp_path_factory.mktemp("kubectl") / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    flags = ("--broker", broker, "--cluster-id", "local", "--token", "TOKEN", "--kubectl", str(kubectl))
    with running("openline-executor", *flags) as program:
        program.until("connection.opened")
        yield "local"


@asynccontextmanager
async def serving(*brokers: Address) -> AsyncIterator[Address]:
    """A gateway served by uvicorn in this loop, for as long as it is wanted."""
    with listen("127.0.0.1", 0) as listener:
        async with Pipes(brokers, client="test") as pipes:
            server = make_server(build_app(pipes))
            serve = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                async with asyncio.timeout(10):
                    while not (server.started and any(replica.is_connected for replica in pipes.replicas)):
                        await asyncio.sleep(0.005)
                yield Address(f"127.0.0.1:{listener.getsockname()[1]}")
            finally:
                server.should_exit = True
                await serve


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(broker: Address, cluster: str) -> AsyncIterator[Address]:
    async with serving(broker) as address:
        yield address


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api(gateway: Address) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key that may do everything."""
    headers = {"X-API-Key": "test-key"}
    async with httpx.AsyncClient(base_url=f"http://{gateway}", headers=headers, timeout=20, trust_env=False) as client:
        yield client
