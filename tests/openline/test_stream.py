"""One end of a stream of batched frames, against a real grpc.aio server on loopback."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from openline import stream as streams
from openline.outbox import MAX_WAITING_BYTES, Overflow
from openline.stream import FrameStream, StreamFrozen
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as ex
from openline.v1.command_service_pb2_grpc import CommandServiceStub

Serve = Callable[[Any], Awaitable[None]]
Stream = FrameStream[pb.ReplyFrame, pb.CallerFrame]


@asynccontextmanager
async def connected(serve: Serve) -> AsyncIterator[Stream]:
    """A caller's end of a Pipe whose other end is `serve(context)`."""

    async def handler(_requests: Any, context: Any) -> None:
        await serve(context)

    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(
        handler,
        request_deserializer=pb.PipeRequest.FromString,
        response_serializer=pb.PipeResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler("openline.v1.CommandService", {"Pipe": method})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = CommandServiceStub(channel).Pipe()
            yield FrameStream(
                read=call.read,
                write=call.write,
                done_writing=call.done_writing,
                pack=lambda frames: pb.PipeRequest(frames=frames),
                unpack=lambda message: message.frames,
            )
            call.cancel()
    finally:
        await server.stop(0)


def heartbeat(seq: int) -> pb.CallerFrame:
    return pb.CallerFrame(heartbeat=ex.Heartbeat(seq=seq))


async def test_frames_arrive_once_and_in_order() -> None:
    """Ten thousand frames, put in bursts, come back in the order they were put."""
    sizes: list[int] = []

    async def echo(context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            sizes.append(len(message.frames))
            acks = [pb.ReplyFrame(heartbeat_ack=ex.HeartbeatAck(seq=f.heartbeat.seq)) for f in message.frames]
            await context.write(pb.PipeResponse(frames=acks))

    async with connected(echo) as stream:
        seen: list[int] = []

        def handle(frames: Sequence[pb.ReplyFrame]) -> None:
            seen.extend(frame.heartbeat_ack.seq for frame in frames)
            if len(seen) == 10_000:
                stream.close()

        async def put() -> None:
            for seq in range(10_000):
                stream.send(heartbeat(seq))
                if seq % 100 == 0:
                    await asyncio.sleep(0)

        await asyncio.gather(stream.run(handle, silence_s=30), put())
    assert seen == list(range(10_000))
    # Batched: far fewer messages than frames.
    assert len(sizes) < 5_000


async def test_close_writes_what_is_queued_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was put before the end arrives."""
    monkeypatch.setattr(streams, "GOODBYE_S", 10.0)
    got: list[int] = []
    ended = asyncio.Event()

    async def collect(context: Any) -> None:
        try:
            while len(got) < 50 and (message := await context.read()) is not grpc.aio.EOF:
                got.extend(frame.heartbeat.seq for frame in message.frames)
        finally:
            ended.set()

    async with connected(collect) as stream:
        for seq in range(50):
            stream.send(heartbeat(seq))
        stream.close()
        stream.send(heartbeat(99))
        await stream.run(lambda _frames: None, silence_s=30)
        await asyncio.wait_for(ended.wait(), 10)
    assert got == list(range(50))


async def test_a_peer_that_says_nothing_is_frozen() -> None:
    """Whether or not it takes what is sent to it."""

    async def sleep(_context: Any) -> None:
        await asyncio.sleep(30)

    async with connected(sleep) as stream:
        with pytest.raises(StreamFrozen):
            await asyncio.wait_for(stream.run(lambda _frames: None, silence_s=0.3), 10)


async def test_a_process_that_stood_still_itself_does_not_blame_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that fires late gives the peer's waiting frames a chance to be read."""
    monkeypatch.setattr(streams, "OVERSLEPT_S", 0.0)

    async def talk(context: Any) -> None:
        while True:
            await context.write(pb.PipeResponse(frames=[pb.ReplyFrame(heartbeat_ack=ex.HeartbeatAck(seq=1))]))
            await asyncio.sleep(0.05)

    async with connected(talk) as stream:
        running = asyncio.create_task(stream.run(lambda _frames: None, silence_s=0.5))
        await asyncio.sleep(0.2)
        time.sleep(1.0)  # noqa: ASYNC251  (this process stands still)
        await asyncio.sleep(0.2)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_peer_that_never_reads_costs_bounded_memory() -> None:
    """The stream is given up with Overflow."""

    async def ignore(_context: Any) -> None:
        await asyncio.sleep(30)

    async with connected(ignore) as stream:
        running = asyncio.create_task(stream.run(lambda _frames: None, silence_s=30))
        big = pb.CallerFrame(api_key="x" * 1_000_000)
        for _ in range(2 * MAX_WAITING_BYTES // 1_000_000):
            stream.send(big)
            await asyncio.sleep(0)
        with pytest.raises(Overflow):
            await asyncio.wait_for(running, 10)


async def test_what_the_handler_raises_ends_the_run() -> None:
    """A defect in a handler is its owner's to deal with, and leaves no task behind."""

    async def talk(context: Any) -> None:
        await context.write(pb.PipeResponse(frames=[pb.ReplyFrame(call_id=1)]))
        await asyncio.sleep(30)

    def fail(_frames: Sequence[pb.ReplyFrame]) -> None:
        raise LookupError("defect")

    before = asyncio.all_tasks()
    async with connected(talk) as stream:
        with pytest.raises(LookupError):
            await asyncio.wait_for(stream.run(fail, silence_s=30), 10)
        left = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not left & {"stream-reader", "stream-writer", "stream-watch"}


class Sized(str):
    """A frame that has no content but a name."""

    def ByteSize(self) -> int:  # noqa: N802
        return len(self)


async def test_a_stream_that_was_answered_is_idle_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait that was begun for a frame before holds back no other one."""
    monkeypatch.setattr("openline.outbox.LINGER_S", 60.0)
    answers: asyncio.Queue[list[Sized]] = asyncio.Queue()
    written: asyncio.Queue[list[Sized]] = asyncio.Queue()
    stream: FrameStream[Sized, Sized] = FrameStream(read=answers.get, write=written.put, pack=list, unpack=list)
    running = asyncio.create_task(stream.run(lambda _: None, silence_s=60))
    async with asyncio.timeout(10):
        stream.send(Sized("a"))
        assert await written.get() == ["a"]
        stream.send(Sized("b"))
        await asyncio.sleep(0.01)
        assert written.empty()
        for answer, frame in (("to a", "b"), ("to b", "c")):
            answers.put_nowait([Sized(answer)])
            if frame == "c":
                await asyncio.sleep(0.01)  # until nothing is unanswered
                stream.send(Sized(frame))
            assert await written.get() == [frame]
        stream.close()
        await running
