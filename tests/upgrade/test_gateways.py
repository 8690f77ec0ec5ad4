"""A gateway of the last release before today's broker, and today's before one of the last release; clients likewise."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

# What a script of the last release does, with that release's client.
SCRIPT = """
import sys
from openline.client import Client, ClusterOffline

address, key = sys.argv[1:]
with Client(address, key) as client:
    result = client.execute("east", "get", "pods", "by-script", "-n", "fail-3", timeout_s=40)
    print(result.exit_code, result.text.split(), result.stderr)
    *_, last = client.stream("east", "get", "pods", "streamed", "-n", "ticks-3", timeout_s=40)
    print(last.exit_code, last.text.split())
    print(client.get(result.command_id).result.exit_code, [cluster.cluster_id for cluster in client.clusters()])
    with client.session("east") as session:
        print(session.execute("get", "pods", "in-session").ok)
    try:
        client.execute("absent", "get", "pods")
    except ClusterOffline as absent:
        print(absent.executed)
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A gateway and a broker of different versions, and an HTTP client."""

    here: Any
    rest: httpx.AsyncClient
    broker_tree: Any


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["an old gateway", "an old broker"])
async def pair(request: pytest.FixtureRequest, old: Any, new: Any, install: Callable[..., Any]) -> AsyncIterator[Pair]:
    gateway_tree, broker_tree = (old, new) if request.param == "an old gateway" else (new, old)
    async with install("east", "absent") as here:
        await here.broker(broker_tree, 0)
        await here.executor(broker_tree, "east", here.addresses[0])
        await here.gateway(gateway_tree, 0)
        headers = {"X-API-Key": here.key}
        async with httpx.AsyncClient(base_url=f"http://{here.gateways[0]}", headers=headers, timeout=60) as rest:
            yield Pair(here, rest, broker_tree)


async def test_a_command_runs(pair: Pair) -> None:
    """On both surfaces; the result is found by its id, also as exact bytes."""
    asked = {"argv": ["get", "pods", "one", "-n", "fail-3"], "timeout_seconds": 40}
    answer = (await pair.rest.post("/v1/clusters/east/commands", json=asked)).json()
    assert (answer["exit_code"], answer["stdout"], answer["stderr"]) == (3, "begun one\n", "failed one\n")
    found = (await pair.rest.get(f"/v1/commands/{answer['command_id']}")).json()
    assert (found["digest"], found["exit_code"]) == (answer["digest"], 3)
    assert (await pair.rest.get(f"/v1/commands/{answer['command_id']}/output")).content == b"begun one\n"
    asked = {"cluster_id": "east", "command_type": "get", "args": ["pods", "two"], "namespace": "default"}
    assert (await pair.rest.post("/debug/execute", json=asked)).json()["output"] == "begun two\ndone two\n"


async def test_output_comes_as_it_is_written(pair: Pair) -> None:
    """As events, each output in its place, and then the result."""
    asked = {"argv": ["get", "pods", "live", "-n", "ticks-5"], "timeout_seconds": 40}
    headers = {"Accept": "text/event-stream"}
    async with pair.rest.stream("POST", "/v1/clusters/east/commands", json=asked, headers=headers) as response:
        lines = [line async for line in response.aiter_lines()]
    said = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    ticks = "".join(f"tick {n}\n" for n in range(1, 6))
    assert "".join(each["text"] for each in said if "text" in each) == f"begun live\n{ticks}done live\n"
    assert (said[-1]["outcome"], said[-1]["exit_code"]) == ("exited", 0)


async def test_a_command_is_stopped(pair: Pair) -> None:
    """It was asked for without waiting, and ends as cancelled."""
    asked = {"argv": ["get", "pods", "stopped", "-n", "sleep-60"], "timeout_seconds": 60}
    begun = await pair.rest.post("/v1/clusters/east/commands", json=asked, headers={"Prefer": "respond-async, wait=0"})
    assert begun.status_code == 202
    await pair.here.until_it_runs("stopped")
    await pair.rest.delete(begun.headers["location"])
    ended = await pair.rest.get(begun.headers["location"], params={"wait": "20"})
    assert (ended.json()["outcome"], ended.json()["error"]["reason"]) == ("cancelled", "CANCELLED")


async def test_sessions_lists_and_clusters(pair: Pair) -> None:
    """Everything that is asked for by calls of its own, not over the pipe."""
    session = (await pair.rest.post("/v1/sessions", json={"cluster_id": "east"})).json()["session_id"]
    asked = {"argv": ["get", "pods", "in-session"], "session_id": session, "timeout_seconds": 40}
    assert (await pair.rest.post("/v1/clusters/east/commands", json=asked)).json()["exit_code"] == 0
    async with asyncio.timeout(60):
        while not (await pair.rest.get(f"/v1/sessions/{session}/commands")).json()["commands"]:
            await asyncio.sleep(0.1)
    cluster = (await pair.rest.get("/v1/clusters/east")).json()
    assert (cluster["is_connected"], len(cluster["executors"])) == (True, 1)
    assert (await pair.rest.get("/admin/agents")).status_code == 200
    assert (await pair.rest.get("/audit")).status_code == 200
    assert (await pair.rest.get("/health")).json()["status"] == "healthy"


async def test_what_cannot_be_run_is_told(pair: Pair) -> None:
    """With the same reasons."""
    absent = await pair.rest.post("/v1/clusters/absent/commands", json={"argv": ["get", "pods"]})
    assert (absent.status_code, absent.json()["reason"]) == (503, "CLUSTER_OFFLINE")
    denied = await pair.rest.post("/v1/clusters/east/commands", json={"argv": ["delete", "pods", "x"]})
    assert (denied.status_code, denied.json()["reason"]) == (403, "POLICY_DENIED")
    wrong = await pair.rest.get("/v1/clusters", headers={"X-API-Key": "no-key-of-anybody"})
    assert wrong.status_code == 401


async def test_a_script_with_the_client_of_the_other_version(pair: Pair, old: Any, new: Any) -> None:
    """Execute, stream, look up, list, sessions and errors."""
    tree = old if pair.broker_tree is new else new
    command = tree.python("-c", SCRIPT, pair.here.addresses[0], pair.here.key)
    told = await asyncio.to_thread(
        subprocess.run, command, env=tree.environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines() == [
        "3 ['begun', 'by-script'] b'failed by-script\\n'",
        "0 ['begun', 'streamed', 'tick', '1', 'tick', '2', 'tick', '3', 'done', 'streamed']",
        "3 ['absent', 'east']",
        "True",
        "no",
    ]
