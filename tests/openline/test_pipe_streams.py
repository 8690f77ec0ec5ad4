"""Live output and cancelling over Pipe and Pipes, against brokers that do what a test tells them to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from time import monotonic
from typing import Any

import grpc
import pytest

from openline import trail, watching
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
from tests.programs import free_port

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
        # Not one that the system chooses: it could give that to somebody else between two starts.
        bound = self._server.add_insecure_port(f"127.0.0.1:{port or free_port()}")
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
        welcome = pb.PipeWelcome(protocol_version=1, heartbeat_interval_s=10.0, heartbeat_timeout_s=30.0)
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


async def seen(events: watching.CommandEvents, told: list[str] | None = None) -> list[str]:
    """Every event in a word; whoever gives `told` finds them there as they come."""
    told = [] if told is None else told
    async with aclosing(events), asyncio.timeout(30):
        async for event in events:
            told.append(_word(event))
    return told


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


async def test_whatever_is_forwarded_says_for_whom() -> None:
    """Streams, watchers and cancels of a peer as well, without a key."""

    async def script(frame: pb.CallerFrame, say: Say) -> None:
        if frame.HasField("cancel"):
            await say.reply(cancelled=pb.CancelCommandResponse(state=RUNNING))
        else:
            await say.result()

    broker = StreamingBroker(script)
    forwarded = pb.Forwarded(origin_replica_id="a")
    async with open_pipe(broker) as pipe:
        await seen(pipe.execute_stream(request(), forwarded=forwarded, timeout_s=10))
        await seen(pipe.watch(pb.WatchCommandRequest(command_id="c"), forwarded=forwarded, timeout_s=10))
        await pipe.cancel(pb.CancelCommandRequest(command_id="c"), forwarded=forwarded, timeout_s=10)
    assert [(frame.forwarded, frame.api_key) for frame in broker.asked] == [(forwarded, "")] * 3


# Over several streams


async def test_a_stream_that_breaks_is_attached_again() -> None:
    """The broker dies in mid-command and comes back: every output once, none skipped, then the result."""
    told: list[str] = []

    async def script(frame: pb.CallerFrame, say: Say) -> None:
        if frame.HasField("watch"):
            await healthy(frame, say)
            return
        await say.event(state=RUNNING)
        await say.output(0)
        await say.output(1)
        await asyncio.sleep(30)

    broker = StreamingBroker(script)
    async with pipes_to(broker) as pipes:
        port = pipes.replicas[0].address.port
        asked = request()
        watched = asyncio.create_task(seen(watching.execute_stream(pipes, asked, api_key="k", timeout_s=30), told))
        await until(lambda: "1" in told)
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
    told: list[str] = []
    async with pipes_to(first, second) as pipes:
        watched = asyncio.create_task(seen(watching.execute_stream(pipes, request(), api_key="k", timeout_s=30), told))
        await until(lambda: "0" in told)
        await first.die()
        assert await watched == ["0", "running", "1", "2", "result"]
    assert [frame.WhichOneof("frame") for frame in second.asked] == ["watch"] * 3


async def test_a_command_that_nobody_finds_again_may_have_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without any replica that knows it, the caller is told the truth: executed=unknown."""
    monkeypatch.setattr(trail, "FIND_AGAIN_S", 0.3)
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


async def test_a_command_that_never_arrived_is_run_by_the_replica_that_does_not_know_it() -> None:
    """It is looked for first, and then asked for with `attach`: the replica makes sure that it was not run."""

    async def script(frame: pb.CallerFrame, say: Say) -> None:
        await (healthy if frame.HasField("execute_stream") else unknown)(frame, say)

    async def queued(_frame: pb.CallerFrame, say: Say) -> None:
        await say.event(state=command_pb2.COMMAND_STATE_QUEUED)

    first, second = StreamingBroker(queued), StreamingBroker(script)
    asked = request()
    told: list[str] = []
    async with pipes_to(first, second) as pipes:
        watched = asyncio.create_task(seen(watching.execute_stream(pipes, asked, api_key="k", timeout_s=30), told))
        await until(lambda: "queued" in told)
        await first.die()
        assert await watched == ["queued", "running", "0", "1", "2", "result"]
    [looked, ran] = second.asked
    assert looked.watch.command_id == ran.execute_stream.command_id == asked.command_id
    assert (ran.execute_stream.attach, ran.api_key) == (True, "k")


async def test_a_key_that_may_not_look_at_commands_attaches_to_its_own() -> None:
    """A scope that was enough to run a command is enough to go on with it; what was shown is not shown again."""

    async def script(frame: pb.CallerFrame, say: Say) -> None:
        if frame.HasField("watch"):
            await say.refuse(error(Reason.SCOPE_MISSING, "read"))
        else:
            await healthy(frame, say)

    first, second = StreamingBroker(endless), StreamingBroker(script)
    async with pipes_to(first, second) as pipes:
        watched = asyncio.create_task(seen(watching.execute_stream(pipes, request(), api_key="k", timeout_s=30)))
        await until(lambda: bool(first.asked))
        await asyncio.sleep(0.015)
        await first.die()
        told = await watched
    assert [word for word in told if word.isdigit()][:3] == ["0", "1", "2"]
    assert told[-1] == "result"
    assert [frame.execute_stream.attach for frame in second.asked if frame.HasField("execute_stream")] == [True]


async def test_what_an_executor_was_seen_to_have_is_only_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However sure a replica may be that it does not know such a command, it is not asked to run it."""
    first, second = StreamingBroker(endless), StreamingBroker(unknown)
    async with pipes_to(first, second) as pipes:
        events = watching.execute_stream(pipes, request(), api_key="k", timeout_s=30)
        async with aclosing(events):
            assert (await anext(events)).output.seq == 0
            await first.die()
            watched = asyncio.create_task(failure_of(events))
            await until(lambda: len(second.asked) > 1)
            monkeypatch.setattr(trail, "monotonic", lambda: monotonic() + trail.FIND_AGAIN_S)
            failure = await watched
    assert (failure.reason, failure.error.executed) == (Reason.BROKER_UNAVAILABLE, UNKNOWN)
    assert {frame.WhichOneof("frame") for frame in second.asked} == {"watch"}


@pytest.mark.parametrize("is_result", [False, True])
async def test_a_replica_may_have_lost_the_one_that_has_the_executor(is_result: bool) -> None:
    """BROKER_UNAVAILABLE in mid-stream, as an error or as a result, is as good as a broken stream."""

    async def losing(_frame: pb.CallerFrame, say: Say) -> None:
        await say.output(0)
        lost = error(Reason.BROKER_UNAVAILABLE, "the peer is gone")
        if is_result:
            await say.event(result=command_pb2.CommandResult(outcome=command_pb2.OUTCOME_LOST, error=lost))
        else:
            await say.refuse(lost)

    first, second = StreamingBroker(losing), StreamingBroker(healthy)
    async with pipes_to(first, second) as pipes:
        told = await seen(watching.execute_stream(pipes, request(), api_key="k", timeout_s=10))
    assert told == ["0", "running", "1", "2", "result"]
    assert [frame.watch.from_seq for frame in second.asked] == [1]


@pytest.mark.parametrize("is_result", [False, True])
async def test_an_absent_cluster_is_absent_everywhere(is_result: bool) -> None:
    """One replica's answer is enough, whichever way it says so."""

    async def offline(_frame: pb.CallerFrame, say: Say) -> None:
        failure = error(Reason.CLUSTER_OFFLINE, "not connected")
        if is_result:
            await say.event(result=command_pb2.CommandResult(outcome=command_pb2.OUTCOME_REJECTED, error=failure))
        else:
            await say.refuse(failure)

    second = StreamingBroker(healthy)
    async with pipes_to(StreamingBroker(offline), second) as pipes:
        events = watching.execute_stream(pipes, request(), api_key="k", timeout_s=10)
        if is_result:
            assert await seen(events) == ["result"]
        else:
            assert (await failure_of(events)).reason is Reason.CLUSTER_OFFLINE
    assert second.asked == []


async def test_the_first_replica_waits_for_the_cluster() -> None:
    """It knows of every executor that connects, wherever: nobody else could know better."""
    brokers = StreamingBroker(healthy), StreamingBroker(healthy)
    async with pipes_to(*brokers) as pipes:
        await seen(watching.execute_stream(pipes, request(wait_for_cluster_s=30), api_key="k", timeout_s=60))
    assert [frame.execute_stream.wait_for_cluster_s for frame in brokers[0].asked] == [30]
    assert brokers[1].asked == []


async def test_watching_begins_where_it_is_asked_to() -> None:
    """From a seq on, at whichever replica there is."""
    broker = StreamingBroker(healthy)
    async with pipes_to(broker) as pipes:
        told = await seen(watching.watch(pipes, new_id(), from_seq=2, api_key="k", timeout_s=10))
    assert told == ["running", "2", "result"]


async def test_a_watcher_is_attached_again() -> None:
    """From the next seq on, also where the command is not known there for a while."""

    async def hesitant(frame: pb.CallerFrame, say: Say) -> None:
        await (unknown if len(second.asked) < 3 else healthy)(frame, say)

    async def dying(_frame: pb.CallerFrame, say: Say) -> None:
        await say.output(0)
        await asyncio.sleep(30)

    first, second = StreamingBroker(dying), StreamingBroker(hesitant)
    told: list[str] = []
    async with pipes_to(first, second) as pipes:
        events = watching.watch(pipes, new_id(), from_seq=0, api_key="k", timeout_s=30)
        watched = asyncio.create_task(seen(events, told))
        await until(lambda: "0" in told)
        await first.die()
        assert await watched == ["0", "running", "1", "2", "result"]
    assert [frame.watch.from_seq for frame in second.asked] == [1, 1, 1]


async def test_what_one_replica_does_not_know_is_unknown() -> None:
    """At once, and without asking another one."""
    first, second = StreamingBroker(unknown), StreamingBroker(healthy)
    async with pipes_to(first, second) as pipes:
        failure = await failure_of(watching.watch(pipes, new_id(), from_seq=0, api_key="k", timeout_s=10))
        assert failure.reason is Reason.COMMAND_UNKNOWN
        with pytest.raises(OpenlineError) as caught:
            await pipes.cancel(pb.CancelCommandRequest(command_id=new_id()), api_key="k", timeout_s=10)
        assert caught.value.reason is Reason.COMMAND_UNKNOWN
    assert second.asked == []


async def test_a_watcher_waits_for_a_replica_but_not_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may watch for an hour hears much sooner that nobody can be asked; one that comes in time is asked."""
    monkeypatch.setattr(trail, "FIND_FIRST_S", 0.5)
    broker = StreamingBroker(healthy)
    address = await broker.start()
    await broker.die()
    async with Pipes([address], client="test") as pipes:
        failure = await failure_of(watching.watch(pipes, new_id(), from_seq=0, api_key="k", timeout_s=3600))
        assert (failure.reason, failure.error.executed) == (Reason.BROKER_UNAVAILABLE, UNKNOWN)
        monkeypatch.setattr(trail, "FIND_FIRST_S", 30)
        watched = asyncio.create_task(seen(watching.watch(pipes, new_id(), from_seq=0, api_key="k", timeout_s=3600)))
        await broker.start(address.port)
        assert (await watched)[-1] == "result"
    await broker.die()


@pytest.mark.parametrize("how", ["leaves", "is killed", "is frozen"])
async def test_a_cancel_reaches_another_replica(how: str) -> None:
    """One that refuses, is killed or says nothing is not the last one to be asked, within the caller's time."""

    async def script(_frame: pb.CallerFrame, say: Say) -> None:
        match how:
            case "leaves":
                await say.refuse(error(Reason.BROKER_UNAVAILABLE, "leaving", executed=NO))
            case "is killed":
                killing.append(asyncio.create_task(first.die()))

    async def cancelled(_frame: pb.CallerFrame, say: Say) -> None:
        await say.reply(cancelled=pb.CancelCommandResponse(state=RUNNING))

    killing: list[asyncio.Task[None]] = []
    first, second = StreamingBroker(script), StreamingBroker(cancelled)
    wish = pb.CancelCommandRequest(command_id=new_id(), why="enough")
    async with pipes_to(first, second) as pipes, asyncio.timeout(20):
        assert (await pipes.cancel(wish, api_key="k", timeout_s=4)).state == RUNNING
    assert [frame.cancel for frame in second.asked] == [wish]
    await asyncio.gather(*killing)


async def test_a_cancel_that_nobody_answers_ends_in_time() -> None:
    """As BROKER_UNAVAILABLE: whether it has arrived is not known."""

    async def mute(_frame: pb.CallerFrame, _say: Say) -> None:
        return

    async with pipes_to(StreamingBroker(mute), StreamingBroker(mute)) as pipes, asyncio.timeout(20):
        with pytest.raises(OpenlineError) as caught:
            await pipes.cancel(pb.CancelCommandRequest(command_id=new_id()), api_key="k", timeout_s=0.5)
    assert (caught.value.reason, caught.value.error.executed) == (Reason.BROKER_UNAVAILABLE, UNKNOWN)


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
