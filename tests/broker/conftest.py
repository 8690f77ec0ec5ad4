"""A real Valkey for the session, the real broker on loopback, and the executors and callers that talk to it."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from time import monotonic
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import structlog
import uvloop
from redis.asyncio import Redis

from broker import replica
from broker.core.credentials import Credentials
from broker.rpc import pipe
from broker.server import serve
from broker.settings import BrokerSettings
from broker.store.client import open_redis
from broker.store.embedded import embedded_valkey
from broker.store.store import Store, open_store
from openline import ids, limits
from openline.channels import CLIENT_OPTIONS
from openline.errors import OpenlineError, from_rpc_error
from openline.v1 import command_pb2, command_service_pb2
from openline.v1 import executor_service_pb2 as wire
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.executor_service_pb2_grpc import ExecutorServiceStub

PATIENCE_S = 20.0
KEY = "the-key-of-alice"
TOKEN = "the-token-of-prod"
# What a broker allows Redis and other replicas before it goes on without them.
BOUNDS = (
    "draining.ANSWER_S",
    "earlier.REPLAY_WAIT_S",
    "hearing.FIRST_LOOK_S",
    "lookups.ANSWER_S",
    "registry.LAST_SEEN_S",
    "replicated.FIRST_LOOK_S",
    "rpc.everywhere.TIMEOUT_S",
    "rpc.finding.FIND_TIMEOUT_S",
    "rpc.peers.FIND_TIMEOUT_S",
    "store.behind.TIMEOUT_S",
    "store.client.ANSWER_TIMEOUT_S",
    "store.eviction.ANSWER_TIMEOUT_S",
    "store.quotas.ANSWER_TIMEOUT_S",
    "store.single.ANSWER_TIMEOUT_S",
    "store.single.CONNECT_TIMEOUT_S",
    "store.store.ANSWER_TIMEOUT_S",
)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """The broker runs on uvloop, so its tests do."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of one embedded Valkey for all tests, each of which finds it empty."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr("broker.store.embedded.START_TIMEOUT_S", 60.0)
        stack = contextlib.AsyncExitStack()
        yield runner.run(stack.enter_async_context(embedded_valkey(None)))
        runner.run(stack.aclose())


@pytest.fixture
def unhurried() -> Iterator[None]:
    """Nobody is given up because the machine, or the loop that all of them share, stands still for some seconds.

    Whoever tests what becomes of one that is slow or frozen sets a bound.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in BOUNDS:
            patch.setattr(f"broker.{name}", 30.0)
        yield


@pytest.fixture
async def redis(valkey: str, unhurried: None) -> AsyncIterator[Redis]:
    """A client of its own, beside the broker's."""
    client = open_redis(valkey)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def store(valkey: str, redis: Redis) -> AsyncIterator[Store]:
    async with open_store(valkey, result_ttl_s=600) as opened:
        yield opened


@pytest.fixture
def by_news_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of credentials that come and go elsewhere a replica hears; it does not look, twice a second, by itself."""
    monkeypatch.setattr("broker.replicated.LOOK_EVERY_S", 3600.0)


@pytest.fixture(scope="session")
def within_a_second() -> Callable[[Callable[[], Awaitable[float]]], Awaitable[None]]:
    """What tells how long it took is fast enough, at the latest the third time: the machine may have stood still."""

    async def within_a_second(measure: Callable[[], Awaitable[float]]) -> None:
        took_s = [await measure()]
        while min(took_s) >= 1 and len(took_s) < 3:
            took_s.append(await measure())
        assert min(took_s) < 1, took_s

    return within_a_second


@pytest.fixture
def one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is asked within one window of the quotas, which begin and end by the clock."""
    still = SimpleNamespace(time=lambda: 1_800_000_000.0)
    for counts in ("admission", "sharing"):
        monkeypatch.setattr(f"broker.{counts}.time", still)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, float], None]:
    """For the commands of a broker it is so many seconds later from now on; what is due by then is done."""
    passed_s = 0.0

    def later(broker: Any, seconds: float) -> None:
        nonlocal passed_s
        passed_s += seconds
        monkeypatch.setattr("broker.dispatcher.monotonic", lambda: monotonic() + passed_s)
        broker.inside.dispatcher._tick()

    return later


@pytest.fixture
def expire(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """For keys and tokens it is so many seconds later from now on."""

    def expire(seconds: float) -> None:
        ahead = SimpleNamespace(time=lambda: time.time() + seconds)
        for checks in ("replicated", "rpc.callers"):
            monkeypatch.setattr(f"broker.{checks}.time", ahead)

    return expire


@pytest.fixture
def log_lines() -> Iterator[list[dict[str, Any]]]:
    """Every structlog line, as its fields."""
    with structlog.testing.capture_logs() as lines:
        yield lines


class Frames:
    """What an executor says of a command, each as a frame."""

    def accepted(self, command_id: str) -> wire.ExecutorFrame:
        return wire.ExecutorFrame(accepted=wire.Accepted(command_id=command_id))

    def started(self, command_id: str) -> wire.ExecutorFrame:
        return wire.ExecutorFrame(started=wire.Started(command_id=command_id))

    def rejected(self, command_id: str, error: command_pb2.Error | None = None) -> wire.ExecutorFrame:
        return wire.ExecutorFrame(rejected=wire.Rejected(command_id=command_id, error=error))

    def output(self, command_id: str, seq: int, data: bytes, *, stderr: bool = False) -> wire.ExecutorFrame:
        source = command_pb2.OUTPUT_SOURCE_STDERR if stderr else command_pb2.OUTPUT_SOURCE_STDOUT
        return wire.ExecutorFrame(output=command_pb2.Output(command_id=command_id, seq=seq, source=source, data=data))

    def finished(self, command_id: str, **fields: Any) -> wire.ExecutorFrame:
        fields = {"outcome": command_pb2.OUTCOME_EXITED} | fields
        return wire.ExecutorFrame(finished=wire.Finished(command_id=command_id, **fields))

    def ran(self, command_id: str, stdout: bytes = b"", *, exit_code: int = 0) -> list[wire.ExecutorFrame]:
        """The whole life of a command that ran."""
        output = [self.output(command_id, 0, stdout)] if stdout else []
        summary = command_pb2.OutputSummary(total_bytes=len(stdout), total_lines=stdout.count(b"\n"))
        return [
            self.accepted(command_id),
            self.started(command_id),
            *output,
            self.finished(command_id, exit_code=exit_code, stdout_summary=summary),
        ]


@pytest.fixture(scope="session")
def frames() -> Frames:
    return Frames()


class ScriptedExecutor:
    """One Connect stream that says what the test wants."""

    def __init__(self, channel: grpc.aio.Channel, *, token: str | None, frames: Frames) -> None:
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self.call = ExecutorServiceStub(channel).Connect(metadata=metadata)
        self._say = frames
        self._received: list[wire.BrokerFrame] = []
        self.welcome = wire.Welcome()
        # Activity and Credit come when they do, and are kept apart from what answers the test.
        self.activities: list[wire.Activity] = []
        self.credits: list[wire.Credit] = []

    async def send(self, *frames: wire.ExecutorFrame) -> None:
        await self.call.write(wire.ConnectRequest(frames=frames))

    async def next(self) -> wire.BrokerFrame:
        """The next frame. Raises OpenlineError when the stream has ended with a status instead."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._received:
                try:
                    message = await self.call.read()
                except grpc.aio.AioRpcError as failure:
                    raise from_rpc_error(failure) from failure
                if message is grpc.aio.EOF:
                    raise EOFError(await self.call.code())
                for frame in message.frames:
                    match frame.WhichOneof("frame"):
                        case "activity":
                            self.activities.append(frame.activity)
                        case "credit":
                            self.credits.append(frame.credit)
                        case _:
                            self._received.append(frame)
        return self._received.pop(0)

    async def sync(self) -> None:
        """Waits until the broker has handled what was sent before, and says nothing else meanwhile."""
        await self.send(wire.ExecutorFrame(heartbeat=wire.Heartbeat(seq=1 << 40)))
        assert (await self.expect("heartbeat_ack")).seq == 1 << 40

    async def begin_one(self) -> str:
        """Takes the next Execute, and says that its process runs, until the broker has heard it; the command's id."""
        command_id: str = (await self._execute()).command_id
        heard = 1 << 41
        heartbeat = wire.ExecutorFrame(heartbeat=wire.Heartbeat(seq=heard))
        await self.send(self._say.accepted(command_id), self._say.started(command_id), heartbeat)
        meanwhile: list[wire.BrokerFrame] = []
        while (frame := await self.next()).heartbeat_ack.seq != heard:
            meanwhile.append(frame)
        self._received[:0] = meanwhile
        return command_id

    async def _execute(self) -> wire.Execute:
        """The next one. Results of before are acknowledged when Redis has them, which may be sooner or later."""
        while (frame := await self.next()).WhichOneof("frame") == "result_ack":
            pass
        assert frame.WhichOneof("frame") == "execute", frame
        return frame.execute

    async def expect(self, kind: str) -> Any:
        """The content of the next frame, which must be of this kind."""
        frame = await self.next()
        assert frame.WhichOneof("frame") == kind, frame
        return getattr(frame, kind)

    async def hello(self, **fields: Any) -> wire.Welcome:
        """Says Hello, as cluster `prod` unless told otherwise, and waits for Welcome."""
        usual = {
            "protocol_version": limits.PROTOCOL_VERSION,
            "cluster_id": "prod",
            "executor_id": "exec-1",
            "instance_id": "instance-1",
            "max_concurrency": 4,
        }
        await self.send(wire.ExecutorFrame(hello=wire.Hello(**(usual | fields))))
        self.welcome = await self.expect("welcome")
        return self.welcome

    async def run_one(self, stdout: bytes = b"", *, exit_code: int = 0) -> wire.Execute:
        """Takes the next Execute, and says that it ran."""
        execute = await self._execute()
        await self.send(*self._say.ran(execute.command_id, stdout, exit_code=exit_code))
        return execute

    async def status(self) -> OpenlineError:
        """How the stream ends, which must be with an error; what still arrives before is dropped."""
        try:
            while True:
                await self.next()
        except OpenlineError as ended:
            return ended


class ScriptedPipe:
    """One Pipe that says what the test wants."""

    def __init__(self, channel: grpc.aio.Channel, *, key: str | None) -> None:
        metadata = () if key is None else (("x-api-key", key),)
        self.call = CommandServiceStub(channel).Pipe(metadata=metadata)
        self._received: list[command_service_pb2.ReplyFrame] = []

    async def send(self, *frames: command_service_pb2.CallerFrame) -> None:
        await self.call.write(command_service_pb2.PipeRequest(frames=frames))

    async def next(self) -> command_service_pb2.ReplyFrame:
        """The next frame. Raises OpenlineError when the stream has ended with a status instead."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._received:
                try:
                    message = await self.call.read()
                except grpc.aio.AioRpcError as failure:
                    raise from_rpc_error(failure) from failure
                if message is grpc.aio.EOF:
                    raise EOFError(await self.call.code())
                self._received += message.frames
        return self._received.pop(0)

    async def hello(self, *, version: int = limits.PROTOCOL_VERSION, client: str = "test") -> None:
        hello = command_service_pb2.PipeHello(protocol_version=version, client=client)
        await self.send(command_service_pb2.CallerFrame(hello=hello))
        assert (await self.next()).HasField("welcome")

    async def status(self) -> OpenlineError:
        """How the pipe ends, which must be with an error; what still arrives before is dropped."""
        try:
            while True:
                await self.next()
        except OpenlineError as ended:
            return ended


class ScriptedWatcher:
    """One ExecuteStream or WatchCommand call that is read when the test wants."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def next(self) -> command_pb2.CommandEvent:
        """The next event. Raises OpenlineError when the call has ended with a status, EOFError when it has ended."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                message = await self.call.read()
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from failure
        if message is grpc.aio.EOF:
            raise EOFError(await self.call.code())
        return message.event

    async def rest(self) -> list[command_pb2.CommandEvent]:
        """All events up to the end, of which the last must be the result."""
        events: list[command_pb2.CommandEvent] = []
        try:
            while True:
                events.append(await self.next())
        except EOFError:
            assert [event.HasField("result") for event in events] == [False] * (len(events) - 1) + [True]
            return events

    async def output(self, size: int) -> bytes:
        """The next output, at least so many bytes; states are passed over, anything else is not expected."""
        data = b""
        while len(data) < size:
            event = await self.next()
            assert event.WhichOneof("event") in ("output", "state"), event
            data += event.output.data
        return data


class Inside:
    """The broker's tables, to see that nothing is left in them."""

    def __init__(self) -> None:
        self.parts: dict[str, list[Any]] = {}

    def remember(self, name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        """The same constructor, whose objects are found in `parts`."""

        def remembering(*arguments: Any, **named: Any) -> Any:
            made = make(*arguments, **named)
            self.parts.setdefault(name, []).append(made)
            return made

        return remembering

    @property
    def ledger(self) -> Any:
        [ledger] = self.parts["Ledger"]
        return ledger

    @property
    def dispatcher(self) -> Any:
        [dispatcher] = self.parts["Dispatcher"]
        return dispatcher

    async def presence_told(self) -> None:
        """Waits until Redis knows who has come and who has gone."""
        presence = self.dispatcher._presence
        async with asyncio.timeout(PATIENCE_S):
            while presence._changed or presence._gone:
                await asyncio.sleep(0.01)

    async def until_called(self, callers: int) -> None:
        """Waits until so many callers share the commands that there are."""
        async with asyncio.timeout(PATIENCE_S):
            while sum(command.callers for command in self.ledger.commands.values()) != callers:
                await asyncio.sleep(0.01)

    def left(self) -> dict[str, int]:
        """What every table holds, of those that hold anything."""
        [executions] = self.parts["Executions"]
        ledger, dispatcher = self.ledger, self.dispatcher
        account = ledger._account
        tables = {
            "commands": ledger.commands,
            "away": account.away,
            "queues": account.queues,
            "deadlines": account.deadlines,
            "graces": account.graces,
            "waiting": dispatcher.audience._waiting,
            "watches": dispatcher.audience._watches,
            "forwarding": dispatcher._forwarding,
            "tasks of executions": executions.waiting,
            "open calls": [call for calls in self.parts.get("Calls", ()) for call in calls._open],
            "spans of calls": [call for calls in self.parts.get("Calls", ()) for call in calls._spans._open],
            "spans of commands": dispatcher.streams.dispatches,
            "tasks of calls": [call for calls in self.parts.get("Calls", ()) for call in calls._tasks],
            "on connections": [
                name
                for cluster_id in ledger.connections.clusters()
                for connection in ledger.connections.of_cluster(cluster_id)
                for name in connection.commands
            ],
        }
        return {name: len(table) for name, table in tables.items() if len(table)}

    async def nothing_left(self) -> None:
        """Waits until every table is empty."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while self.left():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"left behind: {self.left()}") from None


class RunningBroker:
    """The broker's address, and peers that dial it."""

    def __init__(self, address: str, store: Store, frames: Frames, inside: Inside) -> None:
        self.address = address
        self.store = store
        self.inside = inside
        self._frames = frames
        self._channels: list[grpc.aio.Channel] = []
        self._names = itertools.count()

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own."""
        channel = grpc.aio.insecure_channel(self.address, options=CLIENT_OPTIONS)
        self._channels.append(channel)
        return channel

    def dial(self, *, token: str | None = TOKEN) -> ScriptedExecutor:
        """An executor that has not said anything yet."""
        return ScriptedExecutor(self.channel(), token=token, frames=self._frames)

    async def executor(self, **hello: Any) -> ScriptedExecutor:
        """An executor that is connected."""
        executor = self.dial()
        await executor.hello(**hello)
        return executor

    def open_pipe(self, *, key: str | None = KEY) -> ScriptedPipe:
        """A pipe that has not said anything yet."""
        return ScriptedPipe(self.channel(), key=key)

    async def pipe(self, *, key: str | None = KEY) -> ScriptedPipe:
        pipe = self.open_pipe(key=key)
        await pipe.hello()
        return pipe

    def execute(self, *, key: str | None = KEY, **fields: Any) -> "asyncio.Task[command_service_pb2.ExecuteResponse]":
        """Begins a unary Execute; its task raises OpenlineError for a status."""
        usual: dict[str, Any] = {"cluster_id": "prod", "argv": ["get", "pods"], "timeout_s": 20}
        request = command_service_pb2.ExecuteRequest(**(usual | fields))
        metadata = () if key is None else (("x-api-key", key),)
        call = CommandServiceStub(self.channel()).Execute(request, metadata=metadata, timeout=PATIENCE_S)

        async def answer() -> command_service_pb2.ExecuteResponse:
            try:
                return await call
            except grpc.aio.AioRpcError as failure:
                raise from_rpc_error(failure) from failure

        return asyncio.create_task(answer())

    def stream(self, *, key: str = KEY, **fields: Any) -> ScriptedWatcher:
        """Begins an ExecuteStream."""
        usual: dict[str, Any] = {"cluster_id": "prod", "argv": ["logs", "-f", "x"], "timeout_s": 20}
        request = command_service_pb2.ExecuteRequest(**(usual | fields))
        stub = CommandServiceStub(self.channel())
        message = command_service_pb2.ExecuteStreamRequest(execute=request)
        return ScriptedWatcher(stub.ExecuteStream(message, metadata=(("x-api-key", key),)))

    def watch(self, command_id: str, *, from_seq: int = 0, key: str = KEY) -> ScriptedWatcher:
        """Begins a WatchCommand."""
        stub = CommandServiceStub(self.channel())
        request = command_service_pb2.WatchCommandRequest(command_id=command_id, from_seq=from_seq)
        return ScriptedWatcher(stub.WatchCommand(request, metadata=(("x-api-key", key),)))

    async def get(self, command_id: str, *, wait_s: float = 0.0, key: str = KEY) -> command_pb2.Command:
        """GetCommand; raises OpenlineError for a status."""
        request = command_service_pb2.GetCommandRequest(command_id=command_id, wait_s=wait_s)
        try:
            call = CommandServiceStub(self.channel()).GetCommand(request, metadata=(("x-api-key", key),))
            return (await call).command
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from failure

    async def cancel(self, command_id: str, *, why: str = "", key: str = KEY) -> str:
        """CancelCommand; the state that the command was in. Raises OpenlineError for a status."""
        request = command_service_pb2.CancelCommandRequest(command_id=command_id, why=why)
        try:
            call = CommandServiceStub(self.channel()).CancelCommand(request, metadata=(("x-api-key", key),))
            return command_pb2.CommandState.Name((await call).state).removeprefix("COMMAND_STATE_")
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from failure

    async def refused(self, **fields: Any) -> OpenlineError:
        """The error that a unary Execute ends with."""
        with pytest.raises(OpenlineError) as refusal:
            await self.execute(**fields)
        return refusal.value

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


Start = Callable[..., "contextlib.AbstractAsyncContextManager[RunningBroker]"]


@pytest.fixture
def start_broker(store: Store, frames: Frames, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts brokers on this test's store, or on another one, and with more keys; the other arguments are settings."""

    @contextlib.asynccontextmanager
    async def start(
        store: Store = store, *, extra_keys: Sequence[str] = (), **fields: Any
    ) -> AsyncIterator[RunningBroker]:
        # Tests say the same command many times, and count on each: whoever shares says so.
        usual = {"listen": "127.0.0.1:0", "replica_id": "replica-1", "share_within": 0.0}
        settings = BrokerSettings(**(usual | fields))
        credentials = Credentials(
            api_keys=[
                f"alice:{KEY}:execute+session+read",
                "bob:the-key-of-bob:execute+session+read",
                "carol:the-key-of-carol:read",
                "root:the-key-of-root:execute+read+admin",
                "auditor:the-key-of-the-auditor:audit",
                "chief:the-key-of-the-chief:execute+session+read+admin+audit",
                *extra_keys,
            ],
            executor_tokens=[f"prod:{TOKEN}", "prod:the-second-token-of-prod", "staging:the-token-of-staging"],
        )
        inside = Inside()
        async with contextlib.AsyncExitStack() as stack:
            with monkeypatch.context() as patch:
                # Only while this one is made: another replica has tables of its own.
                for name in (
                    "Ledger", "Dispatcher", "Executions", "Hearing", "Opening", "Presence", "Refusals", "Survey",
                    "Views",
                ):  # fmt: skip
                    patch.setattr(replica, name, inside.remember(name, getattr(replica, name)))
                address = await stack.enter_async_context(serve(settings, store, credentials))
            monkeypatch.setattr(pipe, "Calls", inside.remember("Calls", pipe.Calls))
            running = RunningBroker(address, store, frames, inside)
            try:
                yield running
            finally:
                await running.close()

    return start


@pytest.fixture
async def broker(start_broker: Start) -> AsyncIterator[RunningBroker]:
    """The broker, with clusters `prod` and `staging`; callers alice, bob, carol (may only read) and root (an admin)."""
    async with start_broker() as running:
        yield running


@pytest.fixture
def command_id() -> str:
    return ids.new_id()
