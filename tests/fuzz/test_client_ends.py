"""An executor and a pipe's caller against a broker that sends anything: the stream ends, nothing else does.

After every such session the executor serves a broker that behaves, and the caller has been told about every call.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import note

from executor.activity import Activity
from executor.commands import Commands
from executor.connection import Connection, End
from executor.core import Core
from executor.kubectl import Kubectl
from executor.memory import MAX_RESULTS, MAX_RESULTS_BYTES
from executor.policy import PolicyInForce
from openline import limits
from openline.channels import CLIENT_OPTIONS, SERVER_OPTIONS
from openline.errors import OpenlineError
from openline.pipe import Pipe, PipeState
from openline.settings import Address
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as wire

PATIENCE_S = 20.0
pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.timeout(3600)]
IDS = [f"c{number}" for number in range(6)]
WORDS = {"command_id": IDS, "argv": ["get", "pods", "delete", "-n", "shop"], "reason": ["POLICY_DENIED", "NONSENSE"]}
PLACES = 2


def messages(made: Any, kind: Any, first: Any, length: int) -> list[Any]:
    """Most often what should come first; then anything, and now and then bytes that cannot be parsed."""
    begun = [first] if made.dice.random() < 0.9 else []
    return begun + [None if made.dice.random() < 0.02 else made.message(kind) for _ in range(length)]


def welcome(made: Any) -> wire.ConnectResponse:
    frame = wire.BrokerFrame(welcome=made.message(wire.Welcome))
    frame.welcome.protocol_version = limits.PROTOCOL_VERSION
    # A broker may say that silence is the end after a tenth of a second; here it would only end the session early.
    frame.welcome.heartbeat_timeout_s = 16.0
    return wire.ConnectResponse(frames=[frame])


class ExecutorUnderTest:
    """An executor's commands, with a kubectl that ends at once, and connections to whatever the test makes."""

    def __init__(self, commands: Commands, core: Core) -> None:
        self.commands = commands
        self.core = core

    async def connect(self, channel: Any) -> End:
        """One connection until it ends, which it must without raising."""
        held = self.commands.held()
        hello = wire.Hello(
            protocol_version=limits.PROTOCOL_VERSION,
            in_flight_ids=held.in_flight_ids,
            unacked_ids=held.unacked_ids,
        )
        connection = Connection(
            channel,
            self.commands,
            broker=Address("127.0.0.1:1"),
            token="secret",
            activity=Activity(),
            welcomed=lambda _welcome: None,
            active=lambda: None,
        )
        return await connection.hold(hello)

    def check_bounds(self) -> None:
        memory = self.core._handover._memory
        assert len(memory) <= MAX_RESULTS
        assert memory._bytes <= MAX_RESULTS_BYTES
        assert self.core.running <= PLACES
        assert self.core.queued <= 4 * PLACES


def test_executor_frames(
    arbitrary: Any,
    loopback: Any,
    loopback_channel: Any,
    fuzz: Callable[..., None],
    runner: asyncio.Runner,
    tmp_path: Path,
) -> None:
    """The executor's end of Connect, at the frames."""

    async def play(executor: ExecutorUnderTest, seed: int, length: int) -> None:
        made = arbitrary(seed, words=WORDS)
        call = loopback(serves=False)
        line = asyncio.ensure_future(executor.connect(loopback_channel(call)))
        for message in messages(made, wire.ConnectResponse, welcome(made), length):
            call.put(message)
            await asyncio.sleep(0)
            executor.check_bounds()
        if made.dice.random() < 0.5:
            call.put(grpc.aio.EOF)
        else:
            call.lose()
        async with asyncio.timeout(PATIENCE_S):
            assert isinstance(await line, End)
        if seed % 20 == 0:
            await serve_well(executor)

    async def serve_well(executor: ExecutorUnderTest) -> None:
        """A broker that behaves: it drops what the other one asked for, and gets what it asks for."""
        call = loopback(serves=False)
        held = executor.commands.held()
        verdicts = [
            wire.Verdict(command_id=command_id, action=wire.VERDICT_ACTION_DROP)
            for command_id in (*held.in_flight_ids, *held.unacked_ids)
        ]
        call.put(
            wire.ConnectResponse(frames=[wire.BrokerFrame(welcome=wire.Welcome(protocol_version=1, verdicts=verdicts))])
        )
        line = asyncio.ensure_future(executor.connect(loopback_channel(call)))
        async with asyncio.timeout(PATIENCE_S):
            await executor.commands.until(lambda: executor.core.idle)
            serve_well.asked += 1  # type: ignore[attr-defined]
            command_id = f"good-{serve_well.asked}"  # type: ignore[attr-defined]
            execute = wire.Execute(command_id=command_id, argv=["get", "pods"], timeout_s=10)
            call.put(wire.ConnectResponse(frames=[wire.BrokerFrame(execute=execute)]))
            while not (told := [f for m in call.written for f in m.frames if f.finished.command_id == command_id]):
                await asyncio.sleep(0.001)
            assert told[0].finished.outcome == command_pb2.OUTCOME_EXITED
            call.put(wire.ConnectResponse(frames=[wire.BrokerFrame(result_ack=wire.ResultAck(command_id=command_id))]))
            call.put(grpc.aio.EOF)
            await line
        assert executor.core.idle

    serve_well.asked = 0  # type: ignore[attr-defined]
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\necho done\n")
    kubectl.chmod(0o755)
    stack = contextlib.AsyncExitStack()

    async def start() -> ExecutorUnderTest:
        core = Core(max_concurrency=PLACES, judge=PolicyInForce().judge)
        commands = Commands(core, Kubectl(path=kubectl, home=tmp_path))
        return ExecutorUnderTest(await stack.enter_async_context(commands), core)

    executor = runner.run(start())

    def session(seed: int, length: int) -> None:
        note(f"Arbitrary({seed}, words=WORDS), {length} messages")
        runner.run(play(executor, seed, length))

    fuzz(session)
    runner.run(serve_well(executor))
    runner.run(stack.aclose())


async def call_for_everything(pipe: Pipe, api_key: str) -> list["asyncio.Task[object]"]:
    """A few calls of every kind, under the ids that replies may name."""

    async def events(watching: Any) -> None:
        async with contextlib.aclosing(watching) as shown:
            async for _ in shown:
                pass

    request = pb.ExecuteRequest(cluster_id="prod", argv=["get"])
    times: dict[str, Any] = {"api_key": api_key, "timeout_s": 5.0}
    calls: list[Any] = [pipe.execute(request, **times) for _ in range(2)]
    calls += [events(pipe.execute_stream(request, **times)), events(pipe.watch(pb.WatchCommandRequest(), **times))]
    calls.append(pipe.cancel(pb.CancelCommandRequest(command_id="c1"), **times))
    return [asyncio.ensure_future(call) for call in calls]


async def play_pipe(pipe_of: Callable[[], Any], feed: Callable[[], Any]) -> None:
    """One pipe: opened or refused, its calls answered or failed, and nothing of them left."""
    opening = asyncio.ensure_future(pipe_of())
    feeding = asyncio.ensure_future(feed())
    calls: list[asyncio.Task[object]] = []
    async with asyncio.timeout(PATIENCE_S):
        try:
            pipe = await opening
        except OpenlineError:
            await feeding
            return
        calls = await call_for_everything(pipe, "key")
        with contextlib.suppress(OpenlineError):
            await pipe.run()
        await feeding
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert all(
        end is None or isinstance(end, OpenlineError | pb.ExecuteResponse | pb.CancelCommandResponse) for end in ends
    )
    assert pipe.state is PipeState.ENDED
    assert len(pipe._calls) == 0
    assert pipe._space.used_bytes == 0


def pipe_welcome(made: Any) -> pb.PipeResponse:
    frame = pb.ReplyFrame(welcome=made.message(pb.PipeWelcome))
    frame.welcome.heartbeat_timeout_s = made.dice.choice([0.0, 16.0])
    return pb.PipeResponse(frames=[frame])


def test_pipe_frames(
    arbitrary: Any, loopback: Any, loopback_channel: Any, fuzz: Callable[..., None], runner: asyncio.Runner
) -> None:
    """The caller's end of Pipe, at the frames."""

    async def play(seed: int, length: int) -> None:
        made = arbitrary(seed, words=WORDS)
        call = loopback(serves=False)

        async def feed() -> None:
            for message in messages(made, pb.PipeResponse, pipe_welcome(made), length):
                call.put(message)
                await asyncio.sleep(0)
            if made.dice.random() < 0.5:
                call.put(grpc.aio.EOF)
            else:
                call.lose()

        await play_pipe(lambda: Pipe.open(loopback_channel(call), client="fuzz"), feed)

    def session(seed: int, length: int) -> None:
        note(f"Arbitrary({seed}, words=WORDS), {length} messages")
        runner.run(play(seed, length))

    fuzz(session)


class Shouting:
    """A server that says what it is given on every stream, as bytes, whatever it hears."""

    def __init__(self) -> None:
        self.says: list[bytes] = []
        self.stays = False

    async def stream(self, _requests: Any, context: Any) -> None:
        await context.read()
        for content in self.says:
            await context.write(content)
            await asyncio.sleep(0)


class Generic(grpc.GenericRpcHandler):
    """Every path is this stream."""

    def __init__(self, shouting: Shouting) -> None:
        self._shouting = shouting

    def service(self, _handler_call_details: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._shouting.stream)


@pytest.mark.parametrize("end", ["executor", "pipe"])
def test_bytes(end: str, arbitrary: Any, fuzz: Callable[..., None], runner: asyncio.Runner, tmp_path: Path) -> None:
    """Both clients over grpc, as bytes: garbage and messages that are too large as well."""

    async def play(address: str, server: Shouting, executor: ExecutorUnderTest, seed: int, length: int) -> None:
        made = arbitrary(seed, words=WORDS)
        kind, first = (
            (wire.ConnectResponse, welcome(made)) if end == "executor" else (pb.PipeResponse, pipe_welcome(made))
        )
        told = messages(made, kind, first, length)
        server.says = [made.garbage() if message is None else message.SerializeToString() for message in told]
        if made.dice.random() < 0.05:
            server.says.insert(made.dice.randrange(length + 1), b"\x12" + bytes(9 << 20))

        async def nothing() -> None:
            return

        async with asyncio.timeout(PATIENCE_S), grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
            if end == "executor":
                assert isinstance(await executor.connect(channel), End)
                executor.check_bounds()
            else:
                await play_pipe(lambda: Pipe.open(channel, client="fuzz"), nothing)

    stack = contextlib.AsyncExitStack()

    async def start() -> tuple[str, Shouting, ExecutorUnderTest]:
        shouting = Shouting()
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers((Generic(shouting),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, 0)
        core = Core(max_concurrency=PLACES, judge=PolicyInForce().judge)
        commands = Commands(core, Kubectl(path=Path("/bin/true"), home=tmp_path))
        await stack.enter_async_context(commands)
        return f"127.0.0.1:{port}", shouting, ExecutorUnderTest(commands, core)

    address, shouting, executor = runner.run(start())

    def session(seed: int, length: int) -> None:
        note(f"Arbitrary({seed}, words=WORDS), {length} messages")
        runner.run(play(address, shouting, executor, seed, length))

    fuzz(session, share=10)
    runner.run(stack.aclose())
