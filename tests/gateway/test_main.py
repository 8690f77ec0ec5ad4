"""The gateway as a program: its flags, its start, its stop, and brokers that come and go."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from openline.settings import Address

GATEWAY = Path(sys.executable).parent / "openline-gateway"
BODY = {"cluster_id": "local", "args": ["pods"]}
KEY = {"X-API-Key": "test-key"}


def client(address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{address}", headers=KEY, timeout=20, trust_env=False)


def one_line(*flags: str) -> tuple[int, str]:
    """The exit code and the one line of a start that fails."""
    ended = subprocess.run([GATEWAY, *flags], capture_output=True, text=True, timeout=30, check=False)
    [line] = ended.stderr.splitlines()
    return ended.returncode, line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--listen", "nonsense"], "--listen"),
        (["--broker", ""], "--broker"),
        (["--broker", "host"], "--broker"),
        (["--colour", "green"], "--colour"),
        (["--tls-ca", "/no/such/file"], "--tls-ca"),
        (["--tls-key", __file__], "--tls-cert and --tls-key go together"),
        (["--tls-ca", __file__], "--tls-ca"),
        (["--listen", "nosuchhost.invalid:1"], "--listen"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(flags: list[str], said: str) -> None:
    """The line names the flag."""
    code, line = one_line(*flags)
    assert code == 2
    assert line.startswith("openline-gateway: ")
    assert said in line


def test_a_port_in_use_is_one_line_and_exit_1() -> None:
    """Two gateways on one port would each get half of the connections."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, line = one_line("--listen", address)
    assert code == 1
    assert line == f"openline-gateway: --listen: cannot listen on {address}: Address already in use"


async def test_without_a_broker_it_runs_and_says_so(run_program: Any) -> None:
    """No broker is no reason to die: 503 from /health and from calls, 200 from /healthz, a clean stop."""
    with run_program("openline-gateway", "--listen", "127.0.0.1:0", "--broker", "127.0.0.1:9") as gateway:
        async with client(gateway.until("gateway.listening")["address"]) as api:
            health = await api.get("/health")
            assert health.status_code == 503
            assert health.json()["status"] == "unhealthy"
            assert health.json()["brokers"] == [{"address": "127.0.0.1:9", "connected": False}]
            assert (await api.get("/healthz")).json() == {"status": "ok"}
            for answer in (await api.post("/debug/execute", json=BODY), await api.get("/debug/clusters")):
                problem = answer.json()
                assert (answer.status_code, problem["reason"]) == (503, "BROKER_UNAVAILABLE")
                assert (problem["executed"], problem["retryable"]) == ("no", True)
                assert "Retry-After" in answer.headers
        code, rest = gateway.stop()
    assert code == 0
    assert "Traceback" not in rest


async def test_told_to_stop_it_finishes_what_runs(run_program: Any, broker: Address, cluster: str) -> None:
    """SIGTERM: the command in flight is answered, new connections are refused, the exit code is 0."""
    with run_program("openline-gateway", "--listen", "127.0.0.1:0", "--broker", broker) as gateway:
        address = gateway.until("gateway.listening")["address"]
        async with client(address) as api:
            assert (await api.get("/health")).json()["status"] in {"healthy", "unhealthy"}
            call = asyncio.create_task(api.post("/debug/execute", json={"cluster_id": cluster, "args": ["pause"]}))
            await asyncio.sleep(0.4)
            gateway.process.terminate()
            assert (await call).json()["output"] == "done\n"
            async with asyncio.timeout(10):
                while gateway.process.poll() is None:
                    await asyncio.sleep(0.02)
            with pytest.raises(httpx.ConnectError):
                await api.get("/healthz")
        assert gateway.process.returncode == 0


@pytest.fixture
async def pair(run_program: Any, tmp_path: Path) -> AsyncIterator[tuple[Any, Any, httpx.AsyncClient]]:
    """Two brokers that do not know of each other, an executor on the second one only, and a gateway to both."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\n[ "$2" = slow ] && sleep 20\necho ran\n')
    kubectl.chmod(0o755)
    keys = ("--api-keys", "me:test-key:execute+session+read", "--executor-tokens", "local:TOKEN")
    broker = ("openline-broker", "--listen", "127.0.0.1:0", *keys)
    with run_program(*broker) as first, run_program(*broker) as second:
        addresses = [first.until("broker.started")["listen"], second.until("broker.started")["listen"]]
        executor = ("--broker", addresses[1], "--cluster-id", "local", "--token", "TOKEN", "--kubectl", str(kubectl))
        gateway = ("openline-gateway", "--listen", "127.0.0.1:0", "--broker", ",".join(addresses))
        with run_program("openline-executor", *executor) as connected, run_program(*gateway) as serving:
            connected.until("connection.opened")
            address = serving.until("gateway.listening")["address"]
            serving.until("pipe.opened")
            serving.until("pipe.opened")
            async with client(address) as api:
                yield first, second, api


async def test_a_killed_broker_is_passed_over(pair: tuple[Any, Any, httpx.AsyncClient]) -> None:
    """The replica that has the executor is found, with the other one alive and with it killed; unary calls as well."""
    first, _, api = pair
    assert (await api.post("/debug/execute", json=BODY)).json()["output"] == "ran\n"
    first.process.kill()
    # Unary calls may be asked again at any moment; a command only when it surely has not left.
    assert (await api.get("/debug/clusters")).json()["count"] == 1
    async with asyncio.timeout(5):
        while (await api.get("/health")).json()["brokers"][0]["connected"]:
            await asyncio.sleep(0.01)
    for _ in range(20):
        assert (await api.post("/debug/execute", json=BODY)).json()["output"] == "ran\n"


async def test_a_broker_killed_in_mid_command_is_told_honestly(pair: tuple[Any, Any, httpx.AsyncClient]) -> None:
    """What may have run is a 503 with executed=unknown, at once, not retryable, and not sent to the other replica."""
    _, second, api = pair
    call = asyncio.create_task(api.post("/debug/execute", json={"cluster_id": "local", "args": ["slow"]}))
    await asyncio.sleep(0.4)
    assert not call.done()
    second.process.kill()
    async with asyncio.timeout(5):
        answer = await call
    problem = answer.json()
    assert (answer.status_code, problem["reason"]) == (503, "BROKER_UNAVAILABLE")
    assert (problem["executed"], problem["retryable"]) == ("unknown", False)
    assert "Retry-After" not in answer.headers


async def test_a_command_is_found_at_the_replica_that_has_it(pair: tuple[Any, Any, httpx.AsyncClient]) -> None:
    """Followed, looked up and stopped, although the replica that is asked first does not know it."""
    _, _, api = pair
    body = {"argv": ["get", "slow"]}
    async with asyncio.timeout(15):
        async with api.stream(
            "POST", "/v1/clusters/local/commands", json=body, headers={"Accept": "text/event-stream"}
        ) as stream:
            lines = stream.aiter_lines()
            async for line in lines:
                if '"running"' in line:
                    command_id = json.loads(line.removeprefix("data: "))["command_id"]
                    break
            path = f"/v1/commands/{command_id}"
            assert (await api.get(path)).json()["state"] == "running"
            assert (await api.delete(path)).status_code == 202
            assert "event: result" in [line async for line in lines]
        assert (await api.get(path)).json()["outcome"] == "cancelled"
        async with api.stream("GET", f"{path}/events") as stream:
            assert "event: result" in [line async for line in stream.aiter_lines()]


async def test_waiting_for_a_cluster_costs_nothing_where_it_is_connected(
    pair: tuple[Any, Any, httpx.AsyncClient],
) -> None:
    """The replica that does not have it is not the one that waits."""
    _, _, api = pair
    async with asyncio.timeout(10):
        response = await api.post("/debug/execute", json={**BODY, "wait_for_cluster_s": 300})
    assert response.json()["output"] == "ran\n"
