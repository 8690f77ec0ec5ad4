"""A broker that does what the test says, over real gRPC on loopback, and kubectls made of a few lines of shell."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import grpc
import pytest

from executor.commands import Commands
from executor.core import Core
from executor.kubectl import Kubectl
from executor.link import Link
from executor.pace import Pace
from executor.policy import PolicyInForce
from executor.settings import load_settings
from openline import ids, limits
from openline.channels import SERVER_OPTIONS
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire
from openline.v1.executor_service_pb2_grpc import ExecutorServiceServicer, add_ExecutorServiceServicer_to_server
from tests.programs import PATIENCE_S


class ScriptedConnection:
    """One Connect stream as the broker sees it. Frames are read as the test asks for them, or never."""

    def __init__(self, context: grpc.aio.ServicerContext) -> None:
        self._context = context
        self._frames: list[wire.ExecutorFrame] = []
        self.metadata = dict(context.invocation_metadata())
        self.over = asyncio.Event()

    async def send(self, *frames: wire.BrokerFrame) -> None:
        await self._context.write(wire.ConnectResponse(frames=frames))

    async def frame(self) -> wire.ExecutorFrame:
        """The executor's next frame."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._frames:
                message = await self._context.read()
                assert message is not grpc.aio.EOF, "the executor closed the stream"
                self._frames.extend(message.frames)
        return self._frames.pop(0)

    async def expect(self, kind: str) -> wire.ExecutorFrame:
        """The next frame that is no heartbeat, which must be of this kind."""
        while True:
            frame = await self.frame()
            got = frame.WhichOneof("frame")
            if got == kind:
                return frame
            assert got == "heartbeat", frame

    async def until_closed(self) -> None:
        """Reads until the executor ends the stream."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.BaseError):
                while await self._context.read() is not grpc.aio.EOF:
                    pass

    async def welcome(
        self,
        *,
        verdict: "wire.VerdictAction.ValueType | None" = None,
        heartbeat_interval_s: float = 5.0,
        heartbeat_timeout_s: float = 120.0,
        reconnect_s: tuple[float, float] = (0.02, 0.1),
        next_seq: int = 0,
        command_credit_bytes: int = 0,
        epoch: int = 1,
    ) -> wire.Hello:
        """Takes Hello and answers with Welcome: one verdict on everything that Hello lists."""
        hello = (await self.expect("hello")).hello
        listed = [*hello.in_flight_ids, *hello.unacked_ids] if verdict is not None else []
        welcome = wire.Welcome(
            protocol_version=limits.PROTOCOL_VERSION,
            epoch=epoch,
            replica_id="scripted",
            heartbeat_interval_s=heartbeat_interval_s,
            heartbeat_timeout_s=heartbeat_timeout_s,
            reconnect=wire.ReconnectPolicy(min_s=reconnect_s[0], max_s=reconnect_s[1]),
            limits=wire.StreamLimits(command_credit_bytes=command_credit_bytes),
            verdicts=[wire.Verdict(command_id=command_id, action=verdict, next_seq=next_seq) for command_id in listed],
        )
        await self.send(wire.BrokerFrame(welcome=welcome))
        return hello

    async def grant(self, output: command_pb2.Output) -> None:
        """Gives back the credit that a frame of output took."""
        size = len(output.data)
        await self.send(
            wire.BrokerFrame(credit=wire.Credit(command_id=output.command_id, bytes=size)),
            wire.BrokerFrame(credit=wire.Credit(bytes=size)),
        )

    async def result(self, command_id: str, *, next_seq: int = 0) -> tuple[wire.Finished, bytes, bytes]:
        """Reads until this command's Finished, giving credit: that, its stdout and its stderr."""
        output = {1: b"", 2: b""}
        seq = next_seq
        while True:
            frame = await self.frame()
            match frame.WhichOneof("frame"):
                case "output" if frame.output.command_id == command_id:
                    assert frame.output.seq == seq
                    assert len(frame.output.data) <= limits.MAX_FRAME_BYTES
                    seq += 1
                    output[frame.output.source] += frame.output.data
                    await self.grant(frame.output)
                case "finished" if frame.finished.command_id == command_id:
                    return frame.finished, output[1], output[2]

    def end(self) -> None:
        """Ends the stream from the broker's side, without a word."""
        self.over.set()


class ScriptedBroker(ExecutorServiceServicer):
    """Hands every Connect to the test, in order, and holds it until the test ends it."""

    def __init__(self) -> None:
        self._connections: asyncio.Queue[ScriptedConnection] = asyncio.Queue()
        self.refusal: grpc.StatusCode | None = None
        self.refused = 0
        self.address = ""

    async def Connect(self, request_iterator: object, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
        # Of this moment: a test that has counted enough refusals takes it back, while this one is still read.
        if (refusal := self.refusal) is not None:
            self.refused += 1
            # As the real one does. Before it is read, it is being written, and then grpc.aio masks the status there.
            await context.read()
            await context.abort(refusal, "as the test wants it")
        connection = ScriptedConnection(context)
        self._connections.put_nowait(connection)
        await connection.over.wait()

    async def connection(self) -> ScriptedConnection:
        """The next connection that the executor opens."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._connections.get()


Serving = Callable[..., AbstractAsyncContextManager[ScriptedBroker]]


@pytest.fixture
def serving() -> Serving:
    """Runs a scripted broker on loopback, with credentials or in the clear."""

    @contextlib.asynccontextmanager
    async def serve(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[ScriptedBroker]:
        scripted = ScriptedBroker()
        server = grpc.aio.server(options=SERVER_OPTIONS)
        add_ExecutorServiceServicer_to_server(scripted, server)
        here = "127.0.0.1:0"
        port = server.add_secure_port(here, credentials) if credentials else server.add_insecure_port(here)
        scripted.address = f"127.0.0.1:{port}"
        await server.start()
        try:
            yield scripted
        finally:
            await server.stop(0)

    return serve


@pytest.fixture
async def broker(serving: Serving) -> AsyncIterator[ScriptedBroker]:
    """A scripted broker that listens on loopback."""
    async with serving() as scripted:
        yield scripted


@pytest.fixture
def stub_kubectl(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a program that stands for kubectl: a shell script with this body. `$LOG` is a file beside it; `gate NAME`
    waits until the test opens that."""

    def make(body: str) -> Path:
        path = tmp_path / "kubectl"
        log = tmp_path / "log"
        # Not without end: the test may have failed.
        gate = f"gate() {{ for _ in $(seq 5000); do [ -e {tmp_path}/$1.open ] && break; sleep 0.02; done; }}"
        path.write_text(f"#!/bin/sh\nLOG={log}\n{gate}\n{body}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def open_gate(tmp_path: Path) -> Callable[[str], None]:
    """Lets the stub go on."""
    return lambda name: (tmp_path / f"{name}.open").touch()


@pytest.fixture
async def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock of the test's loop on: what is due there within so many seconds is due now."""
    loop = asyncio.get_running_loop()
    actual, ahead_s = loop.time, 0.0

    def move_on(seconds: float) -> None:
        nonlocal ahead_s
        ahead_s += seconds

    monkeypatch.setattr(loop, "time", lambda: actual() + ahead_s)
    return move_on


@pytest.fixture(autouse=True)
def patience_with_the_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left afterwards can be told exactly, however long the kernel takes to end a process."""
    monkeypatch.setattr("executor.kubectl.REAP_S", PATIENCE_S)


@pytest.fixture
def execute() -> Callable[..., wire.BrokerFrame]:
    """Makes an Execute frame with a new command id."""

    def make(
        *argv: str,
        timeout_s: float = 60.0,
        command_id: str = "",
        max_bytes: int = 0,
        live: bool = False,
        traceparent: str = "",
    ) -> wire.BrokerFrame:
        frame = wire.BrokerFrame(
            execute=wire.Execute(
                command_id=command_id or ids.new_id(), argv=argv or ("get", "pods"), timeout_s=timeout_s, live=live
            )
        )
        frame.execute.output_limits.max_bytes = max_bytes
        frame.execute.traceparent = traceparent
        return frame

    return make


Dial = Callable[..., AbstractAsyncContextManager[Link]]


@pytest.fixture
def dial(broker: ScriptedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dial:
    """An executor in this process that dials the scripted broker, with a given kubectl."""

    @contextlib.asynccontextmanager
    async def dialing(kubectl: Path, *flags: str, brokers: str = "") -> AsyncIterator[Link]:
        token = () if "--token-file" in flags else ("--token", "the-token-of-local")
        dialed = ("--cluster-id", "local", "--broker", brokers or broker.address)
        settings = load_settings([*dialed, *token, "--kubectl", str(kubectl), *flags])
        core = Core(max_concurrency=settings.max_concurrency, judge=PolicyInForce().judge)
        who = wire.Hello(protocol_version=limits.PROTOCOL_VERSION, cluster_id="local", instance_id="i-1")
        async with Commands(core, Kubectl(path=kubectl, home=tmp_path)) as commands:
            link = Link(settings, who, commands, pace=Pace(refused_s=0.1))
            line = asyncio.create_task(link.run())
            try:
                yield link
            finally:
                link.close()
                with monkeypatch.context() as patched:
                    patched.setattr("openline.stream.GOODBYE_S", 0.0)  # a scripted broker ends no stream by itself
                    async with asyncio.timeout(PATIENCE_S):
                        await line

    return dialing
