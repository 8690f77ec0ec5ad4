"""Two gateways of one broker: with a cluster of the demo's API server and the real kubectl, one whose kubectl is a
script that writes down what becomes of it, and one that nobody is connected for. The client is the SDK's own.
"""

import contextlib
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from demo.kubectl import kubectl_path
from gateway.mcp.listing import LISTING

PROGRAMS = Path(sys.executable).parent
PATIENCE_S = 60.0
KEY, OTHER, READER, EXECUTER = "the-key-of-mia", "the-key-of-noa", "the-key-of-a-reader", "the-key-of-an-executer"
# For all clients, since each would read all authorities anew: two hundred at once take seconds of this process for it.
CONTEXT = ssl.create_default_context()
# What clients of today and of before do first.
MODES = {"modern": "auto", "legacy": "legacy"}

# `get pods NAME -n WHAT`: one that sleeps or is held says which process it is, and when it has begun; one that is held
# goes on when it is let go.
SCRIPT = """#!/bin/sh
[ "$1 $2" = "get pods" ] || { echo '{}'; exit 0; }
begins() { echo $$ > "%(here)s/$1.pid"; echo "$2"; echo begun >> "%(here)s/$1"; }
case "$4" in
  *=sleeps) begins "$3" "so far"; sleep 60 ;;
  *=held) begins "$3" "one, two"; until [ -e "%(here)s/$3.go" ]; do sleep 0.05; done; echo three ;;
  *=floods) seq 20000 ;;
  *=zeros) head -c 300000 /dev/zero ;;
  *=faces) yes "$(printf '\\360\\237\\230\\200')" | head -n 100000 | tr -d '\\n' ;;
  *=fails) echo "out"; echo "it failed" >&2; exit 3 ;;
  *=hides) echo "password=hunter2hunter2" ;;
  *) echo "$3" ;;
esac
"""


@pytest.fixture(scope="session")
def mcp(start_stage: Any, run_program: Any) -> Iterator[Any]:
    keys = (
        f"mia:{KEY}:execute+read+admin+session,noa:{OTHER}:execute+read,reader:{READER}:read,"
        f"executer:{EXECUTER}:execute"
    )
    with (
        start_stage(SCRIPT, keys, "--labels", "env=dev", others=("real", "away")) as stage,
        _kubernetes() as kubeconfig,
    ):
        flags = (
            "--broker", stage.broker, "--cluster-id", "real", "--token", "the-token-of-real",
            "--kubectl", str(kubectl_path()), "--kubeconfig", kubeconfig, "--labels", "env=prod,region=eu",
        )  # fmt: skip
        with run_program("openline-executor", *flags) as executor:
            executor.until("connection.opened")
            for url in stage.urls:
                _speak_to(url)
            yield stage


@contextlib.contextmanager
def _kubernetes() -> Iterator[str]:
    """The demo's API server; the path of its kubeconfig."""
    server = subprocess.Popen(
        [sys.executable, "-m", "demo.kubernetes", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        server.stdout.readline()
        yield server.stdout.readline().strip().partition("KUBECONFIG=")[2]
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE_S)
        server.stdout.close()


def _speak_to(url: str) -> None:
    """Once, since clients have less patience than tests on a busy machine."""
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"X-API-Key": KEY, "Accept": "application/json, text/event-stream"}
    httpx.post(f"{url}/mcp", json=ping, headers=headers, timeout=PATIENCE_S, trust_env=False).raise_for_status()


@asynccontextmanager
async def _connected(url: str, mode: str, *, key: str = KEY, **headers: str) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S, verify=CONTEXT, trust_env=False) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=MODES[mode]) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def connect() -> Any:
    """`async with connect(url, mode, key=…) as client`."""
    return _connected


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass(frozen=True)
class Answer:
    """What a tool has answered."""

    text: str
    fields: dict[str, Any]
    is_error: bool


async def _call(client: Client, tool: str, *, progress: Any = None, **arguments: Any) -> Answer:
    """Calls a tool; what it answers fits its schema."""
    result = await client.call_tool(tool, arguments, progress_callback=progress)
    [schema] = [each["outputSchema"] for each in LISTING if each["name"] == tool]
    Draft202012Validator(schema).validate(result.structured_content)
    [content] = result.content
    return Answer(content.text, result.structured_content, result.is_error)


@pytest.fixture(scope="session")
def call() -> Any:
    """`await call(client, tool, name=value, …)`: an Answer."""
    return _call


@pytest_asyncio.fixture
async def api(mcp: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The first gateway's REST."""
    headers = {"X-API-Key": KEY}
    async with httpx.AsyncClient(base_url=mcp.urls[0], headers=headers, timeout=PATIENCE_S, trust_env=False) as client:
        yield client


@pytest.fixture
def environment() -> dict[str, str]:
    """For a program of ours: without the settings of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENLINE_")}
