"""Live output and cancelling over Pipe and Pipes, against brokers that do what a test tells them to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest

from openline import watching
from openline.asking import CLAIMED
from openline.channels import SERVER_OPTIONS, open_channel
from openline.errors import OpenlineError, error
from openline.ids import new_id
from openline.pipe import Pipe
from openline.pipes import Pipes
from openline.reasons import NO, UNKNOWN, Reason
from openline.settings import Address
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.command_service_pb2_grpc import CommandServiceServicer, add_CommandServiceServicer_to_server
from openline.v1.executor_service_pb2 import HeartbeatAck

RUNNING = command_pb2.COMMAND_STATE_RUNNING


class Say:
    """What a script may do with its call."""

    def __init__(self, broker: "StreamingBroker", frame: pb.CallerFrame) -> None:
        self._broker = broker
        self._call_id = frame.call_id

    async def event(self, **event: Any) -> None:
        await self.reply(event=command_pb2.CommandEvent(**event))

    async def output(self, seq: int, data: bytes = b"x") -> None:
        source = command_pb2.OUTPUT_SOURCE_STDOUT
        await self.event(output=command_pb2.Output(seq=seq, source=source, data=data))

    async def result(self) -> None:
        await self.event(result=command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED))

    async def refuse(self, failure: command_pb2.Error) -> None:
        await self.reply(error=failure)

    async def reply(self, **frame: Any) -> None:
        await self._broker.write(pb.ReplyFrame(call_id=self._call_id, **frame))


Script = Callable[[pb.CallerFrame, Say], Awaitable[None]]


class StreamingBroker(CommandServiceServicer):
    """Speaks the handshake and heartbeats; each call is its script's, as a task of its own."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[pb.CallerFrame] = []
        self.abandoned: list[int] = []
        self._writing = asyncio.Lock()
        self._context: Any = None
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int = 0) -> Address:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        add_CommandServiceServicer_to_server(self, self._server)
        bound = self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()
        return Address(f"127.0.0.1:{bound}")

    async def die(self) -> None:
        assert self._server is not None
        await self._server.stop(0)

    async def write(self, *frames: pb.ReplyFrame) -> None:
        async with self._writing:
            await self._context.write(pb.PipeResponse(frames=frames))

    async def Pipe(self, _requests: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        self._context = context
        await context.read()
        await self.write(pb.ReplyFrame(welcome=pb.PipeWelcome(heartbeat_interval_s=0.1, heartbeat_timeout_s=5.0)))
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

    async def _play(self, frame: pb.CallerFrame) -> None:
        await self.script(frame, Say(self, frame))


@asynccontextmanager
async def open_pipe(broker: StreamingBroker) -> AsyncIterator[Pipe]:
    channel = open_channel(await broker.start())
    pipe = await Pipe.open(channel, client="test")
    running = asyncio.create_task(pipe.run())
    try:
        yield pipe
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await channel.close()
        await broker.die()


@asynccontextmanager
async def pipes_to(*brokers: StreamingBroker) -> AsyncIterator[Pipes]:
    async with Pipes([await broker.start() for broker in brokers], client="test") as pipes:
        await until(lambda: all(replica.is_connected for replica in pipes.replicas))
        try:
            yield pipes
        finally:
            for broker in brokers:
                await broker.die()


async def until(condition: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def request(**fields: Any) -> pb.ExecuteRequest:
    return pb.ExecuteRequest(cluster_id="local", argv=["get"], timeout_s=10, command_id=new_id(), **fields)


async def seen(events: watching.CommandEvents) -> list[str]:
    """Every event in a word."""
    async with aclosing(events), asyncio.timeout(30):
        return [_word(event) async for event in events]


def _word(event: command_pb2.CommandEvent) -> str:
    match event.WhichOneof("event"):
        case "output":
            return f"{event.output.seq}"
        case "gap":
            return f"gap {event.gap.missed_bytes} to {event.gap.next_seq}"
        case "state":
            return command_pb2.CommandState.Name(event.state).removeprefix("COMMAND_STATE_").lower()
        case kind:
            return str(kind)


async def failure_of(events: watching.CommandEvents) -> OpenlineError:
    with pytest.raises(OpenlineError) as caught:
        await seen(events)
    return caught.value


async def healthy(frame: pb.CallerFrame, say: Say) -> None:
    """Three pieces of output, from the one that is asked for on."""
    await say.event(state=RUNNING)
    for seq in range(frame.watch.from_seq, 3):
        await say.output(seq)
    await say.result()


async def endless(_frame: pb.CallerFrame, say: Say) -> None:
    seq = 0
    while True:
        await say.output(seq)
        seq += 1
        await asyncio.sleep(0.01)


async def unknown(_frame: pb.CallerFrame, say: Say) -> None:
    await say.refuse(error(Reason.COMMAND_UNKNOWN, "no such command"))


# One pipe


async def test_events_come_as_they_happen() -> None:
    """State, output in order, result; beside unary calls on the same stream."""

    async def script(frame: pb.CallerFrame, say: Say) -> None:
        if frame.HasField("execute"):
            await say.reply(response=pb.ExecuteResponse())
        else:
            await healthy(frame, say)

    broker = StreamingBroker(script)
    async with open_pipe(broker) as pipe:
        streams = (seen(pipe.execute_stream(request(), api_key="k", timeout_s=10)) for _ in range(50))
        answers = (pipe.execute(request(), api_key="k", timeout_s=10) for _ in range(50))
        told = await asyncio.gather(*streams, *answers)
        assert told[:50] == [["running", "0", "1", "2", "result"]] * 50
        assert "calls=0" in repr(pipe)
    assert broker.abandoned == []


async def test_a_refusal_is_raised() -> None:
    """An Error frame ends a stream as it ends a unary call."""
    async with open_pipe(StreamingBroker(unknown)) as pipe:
        failure = await failure_of(pipe.watch(pb.WatchCommandRequest(command_id="c"), api_key="k", timeout_s=10))
    assert failure.reason is Reason.COMMAND_UNKNOWN


async def test_whoever_stops_early_leaves_nothing_behind() -> None:
    """Closed in the middle, the broker is told, and the call is no longer in the table."""
    broker = StreamingBroker(endless)
    async with open_pipe(broker) as pipe:
        async with aclosing(pipe.execute_stream(request(), api_key="k", timeout_s=10)) as events:
            async for event in events:
                if event.output.seq == 3:
                    break
        await until(lambda: bool(broker.abandoned))
        assert broker.abandoned == [broker.asked[0].call_id]
        assert "calls=0" in repr(pipe)


async def test_a_stream_ends_with_its_time() -> None:
    """Without a result in time it fails, and the broker is told even though it goes on sending."""
    broker = StreamingBroker(endless)
    async with open_pipe(broker) as pipe:
        failure = await failure_of(pipe.execute_stream(request(), api_key="k", timeout_s=0.2))
        await until(lambda: bool(broker.abandoned))
    assert (failure.reason, failure.error.executed) == (Reason.BROKER_UNAVAILABLE, UNKNOWN)


async def test_a_caller_that_does_not_fetch_holds_nobody_up() -> None:
    """32 MiB for somebody who sleeps: other calls are answered meanwhile, and the sleeper is told what it missed."""

    async def script(frame: pb.CallerFrame, say: Say) -> None:
        if frame.HasField("execute"):
            await say.reply(response=pb.ExecuteResponse())
            return
        for seq in range(512):
            await say.output(seq, b"x" * (64 << 10))
        await say.result()

    broker = StreamingBroker(script)
    async with (
        open_pipe(broker) as pipe,
        aclosing(pipe.execute_stream(request(), api_key="k", timeout_s=60)) as events,
    ):
        first = await anext(events)
        assert first.output.seq == 0
        for _ in range(20):
            await pipe.execute(request(), api_key="k", timeout_s=10)
        await until(lambda: "calls=0" in repr(pipe), timeout_s=60)
        rest = [event async for event in events]
    shown = sum(len(event.output.data) for event in [first, *rest])
    [missed] = [event.gap for event in rest if event.HasField("gap")]
    assert shown + missed.missed_bytes == 32 << 20
    assert shown <= (2 << 20) + (128 << 10)
    assert (missed.next_seq, rest[-1].WhichOneof("event")) == (512, "result")


async def test_cancel_is_answered_with_the_state() -> None:
    """CancelCommand goes over the same pipe."""

    async def script(frame: pb.CallerFrame, say: Say) -> None:
        assert frame.cancel == pb.CancelCommandRequest(command_id="c", why="enough")
        await say.reply(cancelled=pb.CancelCommandResponse(state=RUNNING))

    async with open_pipe(StreamingBroker(script)) as pipe:
        wish = pb.CancelCommandRequest(command_id="c", why="enough")
        assert (await pipe.cancel(wish, api_key="k", timeout_s=10)).state == RUNNING


# Over several streams


async def test_a_stream_that_breaks_is_attached_again() -> None:
    """The broker dies in mid-command and comes back: every output once, none skipped, then the result."""
    broken = asyncio.Event()

    async def script(frame: pb.CallerFrame, say: Say) -> None:
        if frame.HasField("watch"):
            await healthy(frame, say)
            return
        await say.event(state=RUNNING)
        await say.output(0)
        await say.output(1)
        broken.set()
        await asyncio.sleep(30)

    broker = StreamingBroker(script)
    async with pipes_to(broker) as pipes:
        port = pipes.replicas[0].address.port
        asked = request()
        watched = asyncio.create_task(seen(watching.execute_stream(pipes, asked, api_key="k", timeout_s=30)))
        await broken.wait()
        await asyncio.sleep(0.05)
        await broker.die()
        await broker.start(port)
        assert await watched == ["running", "0", "1", "2", "result"]
    assert broker.asked[-1].watch == pb.WatchCommandRequest(command_id=asked.command_id, from_seq=2)
    assert sum(frame.HasField("execute_stream") for frame in broker.asked) == 1, "never run twice"


async def test_another_replica_may_know_the_command() -> None:
    """When the replica dies the other one is asked, also where it does not know the command at first."""

    async def dying(_frame: pb.CallerFrame, say: Say) -> None:
        await say.output(0)
        await asyncio.sleep(30)

    async def hesitant(frame: pb.CallerFrame, say: Say) -> None:
        await (unknown if len(second.asked) < 3 else healthy)(frame, say)

    first, second = StreamingBroker(dying), StreamingBroker(hesitant)
    async with pipes_to(first, second) as pipes:
        watched = asyncio.create_task(seen(watching.execute_stream(pipes, request(), api_key="k", timeout_s=30)))
        await until(lambda: bool(first.asked))
        await asyncio.sleep(0.05)
        await first.die()
        assert await watched == ["0", "running", "1", "2", "result"]
    assert [frame.WhichOneof("frame") for frame in second.asked] == ["watch"] * 3


async def test_a_command_that_nobody_finds_again_may_have_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without any replica that knows it, the caller is told the truth: executed=unknown."""
    monkeypatch.setattr(watching, "FIND_AGAIN_S", 0.3)
    first, second = StreamingBroker(endless), StreamingBroker(unknown)
    async with pipes_to(first, second) as pipes:
        watched = asyncio.create_task(failure_of(watching.execute_stream(pipes, request(), api_key="k", timeout_s=30)))
        await until(lambda: bool(first.asked))
        await first.die()
        failure = await watched
    assert (failure.reason, failure.error.executed) == (Reason.BROKER_UNAVAILABLE, UNKNOWN)


async def test_without_any_broker_it_is_looked_for_until_the_deadline() -> None:
    """The caller's deadline ends the search."""
    broker = StreamingBroker(endless)
    async with pipes_to(broker) as pipes:
        watched = asyncio.create_task(failure_of(watching.execute_stream(pipes, request(), api_key="k", timeout_s=1)))
        await until(lambda: bool(broker.asked))
        await broker.die()
        failure = await watched
    assert (failure.reason, failure.error.executed) == (Reason.BROKER_UNAVAILABLE, UNKNOWN)


@pytest.mark.parametrize("is_result", [False, True])
async def test_an_absent_cluster_may_be_at_another_replica(is_result: bool) -> None:
    """A stream too is asked of the next replica where nothing has run, whichever way the first one says so."""

    async def offline(_frame: pb.CallerFrame, say: Say) -> None:
        await say.event(state=command_pb2.COMMAND_STATE_QUEUED)
        failure = error(Reason.CLUSTER_OFFLINE, "not connected")
        if is_result:
            await say.event(result=command_pb2.CommandResult(outcome=command_pb2.OUTCOME_REJECTED, error=failure))
        else:
            await say.refuse(failure)

    async with pipes_to(StreamingBroker(offline), StreamingBroker(healthy)) as pipes:
        told = await seen(watching.execute_stream(pipes, request(), api_key="k", timeout_s=10))
    assert told == ["queued", "running", "0", "1", "2", "result"]


async def test_the_command_of_a_key_may_be_watched_at_another_replica() -> None:
    """A stream with an idempotency key attaches to it there."""

    async def claimed(_frame: pb.CallerFrame, say: Say) -> None:
        await say.refuse(error(Reason.EXECUTOR_LOST, "?", metadata={CLAIMED: new_id()}))

    async with pipes_to(StreamingBroker(claimed), StreamingBroker(healthy)) as pipes:
        told = await seen(watching.execute_stream(pipes, request(), api_key="k", timeout_s=10))
    assert told == ["running", "0", "1", "2", "result"]


async def test_several_replicas_wait_for_a_cluster_in_turns() -> None:
    """Each is asked at once; after that they wait by the second, so that the one it connects to is not the last."""

    async def waiting(frame: pb.CallerFrame, say: Say) -> None:
        asked = frame.execute_stream
        if asked.wait_for_cluster_s and len(second.asked) >= 2:
            await healthy(frame, say)
            return
        await asyncio.sleep(asked.wait_for_cluster_s)
        await say.refuse(error(Reason.CLUSTER_OFFLINE, "not connected"))

    first, second = StreamingBroker(waiting), StreamingBroker(waiting)
    async with pipes_to(first, second) as pipes:
        asked = request(wait_for_cluster_s=30)
        told = await seen(watching.execute_stream(pipes, asked, api_key="k", timeout_s=60))
    assert told[-1] == "result"
    waits = [frame.execute_stream.wait_for_cluster_s for frame in [*first.asked, *second.asked]]
    assert sorted(waits) == [0, 0, 1, 1]
    assert {frame.execute_stream.timeout_s for frame in first.asked} == {10.0}, "waiting takes nothing off the run"


async def test_one_replica_waits_for_a_cluster_as_long_as_it_was_asked_to() -> None:
    """Nobody else could know better."""
    broker = StreamingBroker(healthy)
    async with pipes_to(broker) as pipes:
        await seen(watching.execute_stream(pipes, request(wait_for_cluster_s=30), api_key="k", timeout_s=60))
    assert broker.asked[0].execute_stream.wait_for_cluster_s == 30


async def test_watching_begins_where_it_is_asked_to() -> None:
    """From a seq on, at the replica that knows the command."""
    first, second = StreamingBroker(unknown), StreamingBroker(healthy)
    async with pipes_to(first, second) as pipes:
        told = await seen(watching.watch(pipes, new_id(), from_seq=2, api_key="k", timeout_s=10))
    assert told == ["running", "2", "result"]


async def test_what_nobody_knows_is_unknown() -> None:
    """At once, where every replica was asked; where one is away it might know."""
    first, second = StreamingBroker(unknown), StreamingBroker(unknown)
    wish = pb.CancelCommandRequest(command_id=new_id())
    async with pipes_to(first, second) as pipes:
        for expected in (Reason.COMMAND_UNKNOWN, Reason.BROKER_UNAVAILABLE):
            failure = await failure_of(watching.watch(pipes, new_id(), from_seq=0, api_key="k", timeout_s=10))
            assert failure.reason is expected
            with pytest.raises(OpenlineError) as caught:
                await pipes.cancel(wish, api_key="k", timeout_s=10)
            assert caught.value.reason is expected
            await first.die()
            await until(lambda: not pipes.replicas[0].is_connected)


async def test_a_caller_that_leaves_while_it_is_looked_for_leaves_nothing() -> None:
    """Cancelled between two rounds or in a stream, no call stays open."""
    broker = StreamingBroker(endless)
    async with pipes_to(broker) as pipes:
        tasks = [
            asyncio.create_task(seen(watching.execute_stream(pipes, request(), api_key="k", timeout_s=30)))
            for _ in range(20)
        ]
        await until(lambda: len(broker.asked) == 20)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: len(broker.abandoned) == 20)
        assert "calls=0" in repr(pipes)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)


async def test_what_never_left_is_run_elsewhere() -> None:
    """A replica that refuses because it leaves costs nothing."""

    async def leaving(_frame: pb.CallerFrame, say: Say) -> None:
        await say.refuse(error(Reason.BROKER_UNAVAILABLE, "leaving", executed=NO))

    async with pipes_to(StreamingBroker(leaving), StreamingBroker(healthy)) as pipes:
        assert (await seen(watching.execute_stream(pipes, request(), api_key="k", timeout_s=10)))[-1] == "result"
