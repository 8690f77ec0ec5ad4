"""Both streams of the broker against peers that send anything: a status or silence, and nothing left behind.

While they do, an executor and a caller who behave are served on the same broker.
"""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import structlog
from hypothesis import note
from prometheus_client.parser import text_string_to_metric_families

from broker import readings, replica, server
from broker.core.credentials import Credentials
from broker.core.patterns import EVERY
from broker.core.told import MAX_TOTAL_BYTES
from broker.opening import Opening
from broker.refusals import Refusals
from broker.rpc import pipe, service
from broker.settings import BrokerSettings
from broker.store.embedded import embedded_valkey
from broker.store.store import open_store
from openline import ids, limits
from openline.channels import CLIENT_OPTIONS, MAX_MESSAGE_BYTES
from openline.exposition import Exposition
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as wire
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.executor_service_pb2_grpc import ExecutorServiceStub

PATIENCE_S = 20.0
pytestmark = pytest.mark.timeout(3600)
KEY = "the-key-of-alice"
WORDS = {
    "cluster_id": ["prod", "slow", "slow", "fuzzed", "nowhere"],
    "executor_id": ["e1", "e2"],
    "instance_id": ["i1", "i2"],
    "api_key": [KEY, KEY, "", "wrong"],
    "token": ["the-token-of-fuzzed", "wrong"],
    "argv": ["get", "pods", "-n", "shop"],
    "idempotency_key": ["", "", "k1", "k2"],
    "session_id": ["", "", "", "s1"],
    "correlation_id": ["", "x"],
    "traceparent": [""],
    "reason": ["POLICY_DENIED", "CANCELLED", "NONSENSE"],
}
# Of a session. Each has its own: what is asked for again under an id that is done is not run.
COMMANDS = 6
# Those who behave are looked after so often: it costs more than the session itself.
CHECK_EVERY = 10
# A hundred thousand lies, each of two streams with as much as is believed.
MOST_COUNTED = 1e5 * 2 * MAX_TOTAL_BYTES


@dataclass
class Inside:
    """The parts of a broker that is served, as they were made."""

    made: dict[str, list[Any]] = field(default_factory=dict)
    store: Any = None
    address: str = ""

    def part(self, name: str) -> Any:
        return self.made[name][-1]

    def left(self) -> list[str]:
        """What is left in any table, but for the connections of the executors that behave."""
        ledger, dispatcher, calls = self.part("Ledger"), self.part("Dispatcher"), self.made.get("Calls", [])
        account = ledger._account
        tables = {
            "commands": account.commands,
            "away": account.away,
            "queues": account.queues,
            "deadlines": account.deadlines,
            "graces": account.graces,
            "connections": [c for c in account.connections.of_cluster("fuzzed")],
            "streams": [c for c in dispatcher.streams._streams if c.cluster_id == "fuzzed"],
            "waiting": dispatcher.audience._waiting,
            "watches": dispatcher.audience._watches,
            "pipes": self.part("Pipes")._streams,
            "executions": self.part("Executions").waiting,
            "open calls": [c for one in calls for c in one._open],
            "tasks of calls": [c for one in calls for c in one._tasks],
        }
        return [f"{name}: {table}" for name, table in tables.items() if len(table)]


@contextlib.asynccontextmanager
async def serving(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Inside]:
    """A broker whose parts can be looked at."""
    inside = Inside()

    def keep(kind: Any) -> Callable[..., Any]:
        def make(*arguments: Any, **named: Any) -> Any:
            inside.made.setdefault(kind.__name__, []).append(made := kind(*arguments, **named))
            return made

        return make

    for module, names in (
        (replica, ("Ledger", "Dispatcher", "Executions")),
        (server, ("Pipes", "ExecutorService", "Replica")),
        (pipe, ("Calls",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, keep(getattr(module, name)))
    credentials = Credentials(
        api_keys=[f"alice:{KEY}:execute+session+read"],
        executor_tokens=[f"{name}:the-token-of-{name}" for name in ("prod", "slow", "fuzzed")],
    )
    chosen: dict[str, Any] = {"listen": "127.0.0.1:0", "replica_id": "r1", "reconnect_grace": 0.05}
    async with (
        embedded_valkey(None) as url,
        open_store(url, result_ttl_s=60) as inside.store,
        server.serve(BrokerSettings(**chosen), inside.store, credentials) as inside.address,
    ):
        yield inside


class WellBehaved:
    """An executor that does what it should: accepts every command, and ends it after a while."""

    def __init__(self, channel: grpc.aio.Channel, cluster_id: str, *, takes_s: float) -> None:
        self._cluster_id = cluster_id
        self._takes_s = takes_s
        token = f"Bearer the-token-of-{cluster_id}"
        self._call: Any = ExecutorServiceStub(channel).Connect(metadata=(("authorization", token),))
        self._waiting: deque[tuple[float, str]] = deque()
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._speak())]

    async def _listen(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            due = asyncio.get_running_loop().time() + self._takes_s
            self._waiting.extend(
                (due, frame.execute.command_id) for frame in message.frames if frame.HasField("execute")
            )

    async def _speak(self) -> None:
        hello = wire.Hello(
            protocol_version=1, cluster_id=self._cluster_id, executor_id="good", instance_id="good", max_concurrency=64
        )
        frames = [wire.ExecutorFrame(hello=hello)]
        taken: deque[tuple[float, str]] = deque()
        for turn in itertools.count(1):
            if turn % 1000 == 0:
                frames.append(wire.ExecutorFrame(heartbeat=wire.Heartbeat(seq=turn)))
            if frames:
                await self._call.write(wire.ConnectRequest(frames=frames))
            await asyncio.sleep(0.002)
            frames = []
            while self._waiting:
                taken.append(self._waiting.popleft())
                frames.append(wire.ExecutorFrame(accepted=wire.Accepted(command_id=taken[-1][1])))
            while taken and taken[0][0] <= asyncio.get_running_loop().time():
                finished = wire.Finished(command_id=taken.popleft()[1], outcome=command_pb2.OUTCOME_EXITED)
                frames.append(wire.ExecutorFrame(finished=finished))

    def check(self) -> None:
        """It has never lost its connection."""
        assert not [task for task in self._tasks if task.done()]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass
class Theatre:
    """One broker for all sessions of a test, and the loop that it runs on."""

    runner: asyncio.Runner
    inside: Inside
    channel: grpc.aio.Channel
    executors: list[WellBehaved]
    lines: list[Any]

    async def check_others(self) -> None:
        """Those who behave are served: a command goes through."""
        for executor in self.executors:
            executor.check()
        request = pb.ExecuteRequest(cluster_id="prod", argv=["get", "pods"])
        async with asyncio.timeout(PATIENCE_S):
            answer = await CommandServiceStub(self.channel).Execute(request, metadata=(("x-api-key", KEY),))
        assert answer.result.outcome == command_pb2.OUTCOME_EXITED

    async def check_shown(self) -> None:
        """What is shown to everybody can be read and sent, and no sum of it is out of all proportion."""
        replica, pipes, store = self.inside.part("Replica"), self.inside.part("Pipes"), self.inside.store
        shown = await replica.survey.gather(EVERY, timeout_s=1.0)
        clusters = await replica.overview.get(["fuzzed", "prod", "slow"])
        for message in (shown, *clusters):
            assert len(message.SerializeToString()) < MAX_MESSAGE_BYTES / 2
        families = text_string_to_metric_families(
            Exposition(lambda: readings.read(replica, store, pipes)).text().decode()
        )
        for family in families:
            assert [sample for sample in family.samples if not abs(sample.value) < MOST_COUNTED] == []

    async def until_nothing_is_left(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.inside.left():
                await asyncio.sleep(0.02)

    def check_the_end(self) -> None:
        try:
            self.runner.run(self.until_nothing_is_left())
        except TimeoutError:
            raise AssertionError(self.inside.left()) from None
        self.runner.run(self.check_others())
        self.check_log()

    def check_log(self) -> None:
        """Nobody's garbage is a defect of ours. Each line is looked at once: there will be a hundred thousand."""
        wrong = [line for line in self.lines if line["log_level"] == "error"]
        self.lines.clear()
        assert not wrong


@pytest.fixture
def theatre(monkeypatch: pytest.MonkeyPatch, runner: asyncio.Runner) -> Iterator[Theatre]:
    # A defect is one line and an INTERNAL for the peer; its traceback is wanted here.
    capture = structlog.testing.capture_logs(processors=[structlog.processors.format_exc_info])
    with capture as lines:
        stack = contextlib.AsyncExitStack()

        async def start() -> tuple[Inside, grpc.aio.Channel, list[WellBehaved]]:
            inside = await stack.enter_async_context(serving(monkeypatch))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(inside.address, options=CLIENT_OPTIONS))
            executors = [WellBehaved(channel, "prod", takes_s=0), WellBehaved(channel, "slow", takes_s=0.1)]
            for executor in executors:
                stack.push_async_callback(executor.close)
            async with asyncio.timeout(PATIENCE_S):
                while len(inside.part("Dispatcher").streams._streams) < len(executors):
                    await asyncio.sleep(0.01)
            return inside, channel, executors

        yield Theatre(runner, *runner.run(start()), lines)
        runner.run(stack.aclose())


# What a session sends


def words(command_ids: Sequence[str]) -> dict[str, Sequence[str]]:
    return WORDS | dict.fromkeys(("command_id", "in_flight_ids", "unacked_ids"), command_ids)


def executor_session(made: Any, length: int, command_ids: Sequence[str]) -> list[Any]:
    """Messages of an executor: most often a Hello that will do first, then anything."""
    dice = made.dice
    hello = wire.ExecutorFrame(hello=made.message(wire.Hello))
    hello.hello.protocol_version = limits.PROTOCOL_VERSION
    for name, value in (("cluster_id", "fuzzed"), ("executor_id", "e1"), ("instance_id", dice.choice(["i1", "i2"]))):
        setattr(hello.hello, name, value)
    first = [wire.ConnectRequest(frames=[hello])] if dice.random() < 0.9 else []
    messages = first + [_message(made, wire.ConnectRequest, _about_commands) for _ in range(length)]
    if dice.random() < 0.5:  # so that what follows is about commands that run
        taken = [wire.ExecutorFrame(accepted=wire.Accepted(command_id=command_id)) for command_id in command_ids]
        begun = [wire.ExecutorFrame(started=wire.Started(command_id=command_id)) for command_id in command_ids]
        messages.insert(min(3, len(messages)), wire.ConnectRequest(frames=taken + begun[::2]))
    return messages


def pipe_session(made: Any, length: int, _command_ids: Sequence[str]) -> list[Any]:
    """Messages of a caller: most often PipeHello, then anything."""
    hello = pb.CallerFrame(hello=pb.PipeHello(protocol_version=limits.PROTOCOL_VERSION, client="fuzz"))
    first = [pb.PipeRequest(frames=[hello])] if made.dice.random() < 0.9 else []
    return first + [_message(made, pb.PipeRequest, _not_hello) for _ in range(length)]


def _message(made: Any, kind: Any, keep: Callable[[Any], bool]) -> Any:
    """Now and then what ends a stream; else a message whose frames are worth reading."""
    chance = made.dice.random()
    if chance < 0.01:
        return None
    message = made.message(kind)
    if chance < 0.9:
        kept = [frame for frame in message.frames if keep(frame)]
        del message.frames[:]
        message.frames.extend(kept)
    if chance > 0.995:
        message.frames.extend([message.frames[0]] * 5000 if message.frames else [])
    return message


def _about_commands(frame: Any) -> bool:
    return str(frame.WhichOneof("frame")) not in ("hello", "credential", "draining")


def _not_hello(frame: Any) -> bool:
    return str(frame.WhichOneof("frame")) != "hello"


def ask_for_commands(inside: Inside, cluster_id: str, command_ids: Sequence[str]) -> None:
    """Commands under the ids that the peer may speak of."""
    executions = inside.part("Executions")
    for command_id, live in zip(command_ids, itertools.cycle([False, True]), strict=False):
        request = pb.ExecuteRequest(cluster_id=cluster_id, argv=["get"], command_id=command_id, timeout_s=1)
        begun = (lambda _source: None) if live else None
        executions.start(request, KEY, lambda _answer: None, begun=begun)


METHODS = {
    "Connect": wire.DESCRIPTOR.services_by_name["ExecutorService"].methods_by_name["Connect"],
    "Pipe": pb.DESCRIPTOR.services_by_name["CommandService"].methods_by_name["Pipe"],
}


@pytest.mark.parametrize("method", ["Connect", "Pipe"])
def test_frames(theatre: Theatre, method: str, arbitrary: Any, loopback: Any, fuzz: Callable[..., None]) -> None:
    """At the frames: whole services, but for grpc."""
    inside = theatre.inside
    if method == "Connect":
        service_of, compose = inside.part("ExecutorService").Connect, executor_session
    else:
        service_of, compose = None, pipe_session

    async def carry(_request: Any, context: Any) -> None:
        await inside.part("Pipes").carry(context)

    guarded = service._guarded(METHODS[method], service_of or carry, Opening(), Refusals())

    async def play(seed: int, length: int) -> None:
        command_ids = [ids.new_id() for _ in range(COMMANDS)]
        made = arbitrary(seed, words=words(command_ids))
        context = loopback(serves=True)
        serving_it = asyncio.ensure_future(guarded(None, context))
        messages = compose(made, length, command_ids)
        for number, message in enumerate(messages):
            context.put(message)
            if number in (1, 4):
                ask_for_commands(inside, "fuzzed" if method == "Connect" else "slow", command_ids)
            await asyncio.sleep(0)
        if seed % CHECK_EVERY == 0:
            await theatre.check_shown()
        # The peer ends its stream or is lost; in either case the broker is done with it soon.
        if made.dice.random() < 0.5:
            context.put(grpc.aio.EOF)
        else:
            context.lose()
        done, _ = await asyncio.wait([serving_it], timeout=PATIENCE_S)
        assert done, "the stream has not ended"
        await asyncio.sleep(0)  # a call that was cancelled at the end is over now
        assert not [task for task in asyncio.all_tasks() if "Calls." in repr(task.get_coro())], "a call goes on"
        # Looked at now and let go: with every message that their stream has written they would fill gigabytes.
        assert not [calls for calls in inside.made.pop("Calls", ()) if calls._open or calls._tasks], "a call is left"
        if not serving_it.cancelled():
            assert isinstance(serving_it.exception(), grpc.aio.AbortError | None)
        theatre.check_log()
        if seed % CHECK_EVERY == 0:
            await theatre.check_others()

    def session(seed: int, length: int) -> None:
        note(f"{compose.__name__}(Arbitrary({seed}, words=words(command_ids)), {length}, command_ids)")
        theatre.runner.run(play(seed, length))

    fuzz(session)
    theatre.check_the_end()


PATHS = {"Connect": "/openline.v1.ExecutorService/Connect", "Pipe": "/openline.v1.CommandService/Pipe"}
FINE = {None, grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED}
FINE |= {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED}
FINE |= {grpc.StatusCode.RESOURCE_EXHAUSTED}


@pytest.mark.parametrize("method", ["Connect", "Pipe"])
def test_bytes(theatre: Theatre, method: str, arbitrary: Any, fuzz: Callable[..., None]) -> None:
    """Over grpc, as bytes: garbage and messages that are too large as well."""
    compose = executor_session if method == "Connect" else pipe_session

    async def play(seed: int, length: int) -> None:
        command_ids = [ids.new_id() for _ in range(COMMANDS)]
        made = arbitrary(seed, words=words(command_ids))
        dice = made.dice
        async with grpc.aio.insecure_channel(theatre.inside.address, options=[]) as channel:
            call = channel.stream_stream(PATHS[method], request_serializer=bytes, response_deserializer=bytes)(
                metadata=(("authorization", "Bearer the-token-of-fuzzed"), ("x-api-key", KEY))
            )
            messages = [
                m.SerializeToString() if m is not None else made.garbage() for m in compose(made, length, command_ids)
            ]
            if dice.random() < 0.05:
                messages.insert(dice.randrange(len(messages) + 1), b"\x12" + bytes(9 << 20))
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                for number, content in enumerate(messages):
                    await call.write(content)
                    if number == 1:
                        ask_for_commands(theatre.inside, "fuzzed" if method == "Connect" else "slow", command_ids)
                if dice.random() < 0.5:
                    await call.done_writing()
                    async with asyncio.timeout(PATIENCE_S):
                        while await call.read() is not grpc.aio.EOF:
                            pass
            code = await call.code() if call.done() else None
            call.cancel()
        # UNKNOWN and INTERNAL are how grpc masks a status while the client writes; a defect would be in the log.
        assert code in FINE | {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}, code
        if seed % CHECK_EVERY == 0:
            await theatre.check_others()

    def session(seed: int, length: int) -> None:
        note(f"{compose.__name__}(Arbitrary({seed}, words=words(command_ids)), {length}, command_ids)")
        theatre.runner.run(play(seed, length))

    fuzz(session, share=10)
    theatre.check_the_end()
