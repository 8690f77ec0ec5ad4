"""The gateway beside a bare uvicorn that answers the same, and kubectl through it beside kubectl alone."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Mapping, Set
from pathlib import Path

from demo.kubectl import kubectl_path
from loadtest.compare.contenders import Contender
from loadtest.figures import OK
from loadtest.http import open_connections
from loadtest.measuring import Ask, until_answered
from loadtest.rest import PATH, execute_body, headers_of, over_rest
from loadtest.rivals import bare
from loadtest.stage import KEY, Stage, new_token

CLUSTER = "loadtest-1"
ARGV = ("get", "pods", "-n", "default")
CALLERS = 16
TIMEOUT_S = 10.0
NAMES = ("rest_c16", "bare_uvicorn_c16")
KUBECTL_NAMES = ("rest_kubectl_c1", "bare_kubectl_c1")


@contextlib.asynccontextmanager
async def rest(stage: Stage, _wanted: Set[str]) -> AsyncIterator[list[Contender]]:
    """Simulated executors behind the gateway, and an answer of theirs from a bare server. Raises StartFailed."""
    token = new_token()
    broker = await stage.broker("broker", await stage.valkey(), [CLUSTER], token)
    await stage.executors("executors", [broker], [CLUSTER], token)
    url = await stage.gateway([broker])
    body, headers = execute_body(CLUSTER, ARGV, timeout_s=TIMEOUT_S), headers_of(KEY)
    async with open_connections(url) as connections:
        ask = over_rest(connections, [CLUSTER], ARGV, api_key=KEY, timeout_s=TIMEOUT_S)
        await until_answered(ask)
        answer = await connections.post(PATH, body, headers, timeout_s=TIMEOUT_S)
        async with open_connections(await bare.start(stage, answer.body)) as others:
            yield [
                Contender("rest_c16", ask, CALLERS),
                Contender("bare_uvicorn_c16", bare.over_http(others, PATH, body, headers), CALLERS),
            ]


@contextlib.asynccontextmanager
async def kubectl(stage: Stage, _wanted: Set[str]) -> AsyncIterator[list[Contender]]:
    """The real kubectl in a real executor, and by itself, on the demo's API server.

    Raises StartFailed, KubectlMissing.
    """
    program, token = kubectl_path(), new_token()
    kubeconfig = await _cluster(stage)
    broker = await stage.broker("broker", await stage.valkey(), [CLUSTER], token)
    await stage.script(
        "executor", "openline-executor",
        "--broker", broker, "--cluster-id", CLUSTER, "--kubectl", program, "--kubeconfig", kubeconfig,
        OPENLINE_TOKEN=token,
    )  # fmt: skip
    home = stage.directory / "home"
    home.mkdir()
    # As the executor starts it.
    environment = {
        "HOME": str(home), "KUBECONFIG": str(kubeconfig), "KUBECTL_KUBERC": "false", "PATH": os.environ["PATH"]
    }  # fmt: skip
    async with open_connections(await stage.gateway([broker])) as connections:
        yield [
            Contender("rest_kubectl_c1", over_rest(connections, [CLUSTER], ARGV, api_key=KEY, timeout_s=TIMEOUT_S), 1),
            Contender("bare_kubectl_c1", _run_bare(program, environment), 1),
        ]


async def _cluster(stage: Stage) -> Path:
    """Starts the demo's API server; gives the kubeconfig."""
    address = stage.address()
    server = await stage.module("kubernetes", "demo.kubernetes", "--port", str(address.port))
    said = "export KUBECONFIG="
    await stage.until("the API server", lambda: said in server.log.read_text())
    return Path(server.log.read_text().partition(said)[2].splitlines()[0])


def _run_bare(program: Path, environment: Mapping[str, str]) -> Ask:
    def run() -> int:
        # Not the loop's own way: uvloop forks, which beside gRPC's threads takes several milliseconds.
        return subprocess.run(  # noqa: S603  (the program that is measured, no shell)
            [program, *ARGV], env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=TIMEOUT_S,
        ).returncode  # fmt: skip

    async def ask() -> str:
        code = await asyncio.to_thread(run)
        return f"exit code {code}" if code else OK

    return ask
