"""The gateway as a program: its flags, its start, its stop, and brokers that come and go."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest

from openline.ids import new_id
from openline.settings import Address
from tests.programs import until

GATEWAY = Path(sys.executable).parent / "openline-gateway"
BODY = {"cluster_id": "local", "args": ["pods"]}
KEY = {"X-API-Key": "test-key"}
SETTLED_S = 3.0


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
        (["--insecure", "--listen", "nosuchhost.invalid:1"], "--listen: cannot listen"),
        (["--listen", "0.0.0.0:0"], "--listen: plaintext at 0.0.0.0:0"),
        (["--broker", "127.0.0.1:1,192.0.2.1:1"], "--broker: plaintext at 192.0.2.1:1"),
        (["--listen-key", __file__], "--listen-cert and --listen-key go together"),
        (["--public-url", "openline.example.com"], "--public-url: expected http"),
        (["--public-url", "https://me:word@openline.example.com"], "--public-url: has no room for credentials"),
        (["--listen-cert", __file__], "--listen-cert"),
        (["--listen-client-ca", certifi.where()], "--listen-client-ca: has no effect without --listen-cert"),
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
            assert health.json()["brokers"] == [
                {"address": "127.0.0.1:9", "connected": False, "replica_id": None, "degraded": False}
            ]
            assert (await api.get("/healthz")).json() == {"status": "ok"}
            for answer in (await api.post("/debug/execute", json=BODY), await api.get("/debug/clusters")):
                problem = answer.json()
                assert (answer.status_code, problem["reason"]) == (503, "BROKER_UNAVAILABLE")
                assert (problem["executed"], problem["retryable"]) == ("no", True)
                assert "Retry-After" in answer.headers
        code, rest = gateway.stop()
    assert code == 0
    assert "Traceback" not in rest


async def test_told_to_stop_it_finishes_what_runs(run_program: Any, broker: Address, cluster: str, gate: Any) -> None:
    """SIGTERM: the command in flight is answered, new connections are refused, the exit code is 0."""
    with run_program("openline-gateway", "--listen", "127.0.0.1:0", "--broker", broker) as gateway:
        address = gateway.until("gateway.listening")["address"]
        async with client(address) as api:
            assert (await api.get("/health")).json()["status"] in {"healthy", "unhealthy"}
            told = new_id()
            body = {"cluster_id": cluster, "args": ["held", told], "correlation_id": told, "timeout_seconds": 60}
            call = asyncio.create_task(api.post("/debug/execute", json=body))
            async with asyncio.timeout(30):
                while '"running"' not in (await api.get("/v1/commands", params={"correlation_id": told})).text:
                    await asyncio.sleep(0.02)
            gateway.process.terminate()
            gateway.until("gateway.stopping")
            gate(told).touch()
            assert (await call).json()["stdout"] == "one\ntwo\n"
            async with asyncio.timeout(10):
                while gateway.process.poll() is None:
                    await asyncio.sleep(0.02)
            with pytest.raises(httpx.ConnectError):
                await api.get("/healthz")
        assert gateway.process.returncode == 0


@pytest.fixture
async def pair(run_program: Any, tmp_path: Path, redis: Any) -> AsyncIterator[tuple[Any, Any, httpx.AsyncClient]]:
    """Two brokers on one Redis, each with an executor of the same cluster that knows the other, and a gateway.

    What they run writes down that it does.
    """
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f'#!/bin/sh\ntouch "{tmp_path}/$2"\n[ "$2" = slow ] && sleep 20\n[ "$2" = pause ] && sleep 1\necho ran\n'
    )
    kubectl.chmod(0o755)
    keys = ("--api-keys", "me:test-key:execute+session+read", "--executor-tokens", "local:the-token-of-local")
    broker = ("openline-broker", "--listen", "127.0.0.1:0", "--redis-url", redis.url, *keys)
    with run_program(*broker, "--replica-id", "a") as first, run_program(*broker, "--replica-id", "b") as second:
        addresses = [first.until("broker.started")["listen"], second.until("broker.started")["listen"]]
        executor = (
            "openline-executor",
            "--cluster-id",
            "local",
            "--token",
            "the-token-of-local",
            "--kubectl",
            str(kubectl),
        )
        gateway = ("openline-gateway", "--listen", "127.0.0.1:0", "--broker", ",".join(addresses))
        with (
            run_program(*executor, "--broker", ",".join(addresses), "--executor-id", "one") as one,
            run_program(*executor, "--broker", ",".join(addresses), "--executor-id", "other") as other,
            run_program(*gateway) as serving,
        ):
            one.until("connection.opened")
            other.until("connection.opened")
            first.until("peer.reached")
            second.until("peer.reached")
            address = serving.until("gateway.listening")["address"]
            serving.until("pipe.opened")
            serving.until("pipe.opened")
            # A replica that has just started cannot tell what is nowhere: it looks for commands that are older than it.
            await asyncio.sleep(SETTLED_S)
            async with client(address) as api:
                yield first, second, api


async def asked_all_the_while(api: httpx.AsyncClient, ended: asyncio.Event) -> list[httpx.Response]:
    """Answers to callers who ask one command after the other until it is over."""

    async def ask() -> list[httpx.Response]:
        answers = []
        while not ended.is_set():
            answers.append(await api.post("/debug/execute", json=BODY))
        return answers

    return [answer for answers in await asyncio.gather(*(ask() for _ in range(4))) for answer in answers]


async def test_a_killed_broker_is_passed_over(pair: tuple[Any, Any, httpx.AsyncClient], tmp_path: Path) -> None:
    """kill -9 under many commands: each is answered by the other replica, a unary call as well; health says who."""
    first, _, api = pair
    brokers = (await api.get("/health")).json()["brokers"]
    assert [(broker["replica_id"], broker["connected"]) for broker in brokers] == [("a", True), ("b", True)]
    ended = asyncio.Event()
    asking = asyncio.create_task(asked_all_the_while(api, ended))
    under_way = asyncio.create_task(api.post("/debug/execute", json={"cluster_id": "local", "args": ["pause"]}))
    await until((tmp_path / "pause").exists)
    first.process.kill()
    assert (await api.get("/debug/clusters")).json()["count"] == 1
    async with asyncio.timeout(30):
        while (health := await api.get("/health")).json()["brokers"][0]["connected"]:
            await asyncio.sleep(0.01)
    assert (health.status_code, health.json()["brokers"][0]["replica_id"]) == (200, None)
    await asyncio.sleep(0.3)
    ended.set()
    answers = [*await asking, await under_way]
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    assert {answer.json()["output"] for answer in answers} == {"ran\n"}


async def test_a_broker_that_is_told_to_stop_shows_no_error(
    pair: tuple[Any, Any, httpx.AsyncClient], tmp_path: Path
) -> None:
    """SIGTERM: what runs there is answered by it, everything after that by the other one, and health stays 200."""
    first, _, api = pair
    ended = asyncio.Event()
    asking = asyncio.create_task(asked_all_the_while(api, ended))
    under_way = asyncio.create_task(api.post("/debug/execute", json={"cluster_id": "local", "args": ["pause"]}))
    await until((tmp_path / "pause").exists)
    first.process.terminate()
    async with asyncio.timeout(20):
        while first.process.poll() is None:
            assert (await api.get("/health")).status_code == 200
            await asyncio.sleep(0.05)
    ended.set()
    answers = [*await asking, await under_way]
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    assert {answer.json()["output"] for answer in answers} == {"ran\n"}


async def test_brokers_killed_in_mid_command_are_told_honestly(
    pair: tuple[Any, Any, httpx.AsyncClient], tmp_path: Path
) -> None:
    """With nobody left who could know, what may have run is a 503 with executed=unknown by the deadline; no retry."""
    first, second, api = pair
    body = {"cluster_id": "local", "args": ["slow"], "timeout_seconds": 4}
    call = asyncio.create_task(api.post("/debug/execute", json=body))
    await until((tmp_path / "slow").exists)
    assert not call.done()
    first.process.kill()
    second.process.kill()
    async with asyncio.timeout(15):
        answer = await call
    problem = answer.json()
    assert (answer.status_code, problem["reason"]) == (503, "BROKER_UNAVAILABLE")
    assert (problem["executed"], problem["retryable"]) == ("unknown", False)
    assert "Retry-After" not in answer.headers
    health = await api.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
