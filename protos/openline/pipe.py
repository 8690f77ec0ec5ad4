"""The caller's end of one Pipe: many calls over one stream to one broker replica, each answered, failed or given up.

Gateways, load tests, the client and peer replicas use it. Which replica to ask, and whether to ask another, is not
decided here but in `pipes` and `watching`.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from enum import Enum, auto
from time import monotonic
from typing import Self

import grpc

from openline.calls import Answer, Call, Calls, broker_unavailable, expire
from openline.errors import OpenlineError, from_rpc_error
from openline.events import Events, Space
from openline.limits import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S, HELLO_TIMEOUT_S, PROTOCOL_VERSION
from openline.outbox import Overflow
from openline.reasons import NO, UNKNOWN
from openline.stream import FrameStream, StreamFrozen, StreamGarbled
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.executor_service_pb2 import GoAway, Heartbeat

# Silent for so many of its own heartbeats, a replica may be frozen and is not asked while another one talks.
QUIET_AFTER_HEARTBEATS = 1.5

# How a stream ends when not by the peer's leave: the call's status, a write after that, FrameStream's own findings.
_BREAKS = (grpc.RpcError, asyncio.InvalidStateError, StreamFrozen, StreamGarbled, Overflow)


class PipeState(Enum):
    """Who may use a pipe now."""

    # Its opener: PipeHello is on its way. OPEN with the Welcome, ENDED without.
    OPENING = auto()
    # Everyone. LEAVING when the replica says GoAway, ENDED when the stream ends.
    OPEN = auto()
    # The calls that are open on it: the replica finishes them and takes no new ones. ENDED after the last.
    LEAVING = auto()
    # Nobody: every call has been answered or failed, and no call is taken.
    ENDED = auto()


_NEXT: dict[PipeState, frozenset[PipeState]] = {
    PipeState.OPENING: frozenset({PipeState.OPEN, PipeState.ENDED}),
    PipeState.OPEN: frozenset({PipeState.LEAVING, PipeState.ENDED}),
    PipeState.LEAVING: frozenset({PipeState.ENDED}),
    PipeState.ENDED: frozenset(),
}


class Pipe:
    """One stream, opened by `open`, then driven by `run` in one task of its owner until it ends; never reopened."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._rpc = CommandServiceStub(channel).Pipe()
        self._stream: FrameStream[pb.ReplyFrame, pb.CallerFrame] = FrameStream(
            read=self._rpc.read, write=self._rpc.write, pack=self._pack, unpack=lambda message: message.frames
        )
        self._loop = asyncio.get_running_loop()
        self._calls = Calls()
        self._space = Space()
        self._heartbeat_s = HEARTBEAT_INTERVAL_S
        self._silence_s = HEARTBEAT_TIMEOUT_S
        self._state = PipeState.OPENING
        self.replica_id = ""
        # What GoAway asked for, if it was said.
        self.reconnect_after_s = 0.0

    def __repr__(self) -> str:
        return f"<Pipe {self.replica_id or '?'} {self._state.name} calls={len(self._calls)} {self._stream!r}>"

    @property
    def state(self) -> PipeState:
        return self._state

    @property
    def ignored_frames(self) -> int:
        return self._calls.ignored_frames

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come from the replica for longer than its heartbeat answers take."""
        return monotonic() - self._stream.received_at > QUIET_AFTER_HEARTBEATS * self._heartbeat_s

    @classmethod
    async def open(cls, channel: grpc.aio.Channel, *, client: str) -> Self:
        """Says PipeHello and waits for PipeWelcome; `client` is for the broker's logs.

        Raises OpenlineError, with the broker's own reason where it gave one. The result must be given to `run`.
        """
        pipe = cls(channel)
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await pipe._shake_hands(client)
        except TimeoutError:
            raise broker_unavailable("the broker did not answer PipeHello", executed=NO) from None
        except _BREAKS as ended:
            raise _told(ended, executed=NO) from ended
        finally:
            if pipe._state is PipeState.OPENING:
                pipe._move(PipeState.ENDED)
                pipe._rpc.cancel()
        return pipe

    async def run(self) -> None:
        """Carries calls until the stream ends, and then fails those that are open.

        Returns when the replica ended the stream in an orderly way; raises OpenlineError when it broke.
        """
        heartbeat = self._loop.create_task(self._beat(), name="pipe-heartbeat")
        try:
            await self._stream.run(self._handle, silence_s=self._silence_s)
        except _BREAKS as ended:
            raise _told(ended, executed=UNKNOWN) from ended
        finally:
            self._move(PipeState.ENDED)
            self._calls.fail_all()
            self._rpc.cancel()
            heartbeat.cancel()
            await asyncio.gather(heartbeat, return_exceptions=True)

    async def execute(self, request: pb.ExecuteRequest, *, api_key: str, timeout_s: float) -> pb.ExecuteResponse:
        """Runs a command and waits up to `timeout_s` for its result.

        Raises OpenlineError: what the broker answered, or BROKER_UNAVAILABLE. The frame that tells the broker that
        nobody waits any more follows when the time is up or the caller is cancelled. So it is with the calls below.
        """
        frame = pb.CallerFrame(api_key=api_key, execute=request)
        return (await self._ask(frame, "response", timeout_s)).response

    async def cancel(
        self, request: pb.CancelCommandRequest, *, api_key: str, timeout_s: float
    ) -> pb.CancelCommandResponse:
        """Asks for a command to be stopped."""
        frame = pb.CallerFrame(api_key=api_key, cancel=request)
        return (await self._ask(frame, "cancelled", timeout_s)).cancelled

    def execute_stream(
        self, request: pb.ExecuteRequest, *, api_key: str, timeout_s: float
    ) -> AsyncGenerator[command_pb2.CommandEvent, None]:
        """Runs a command and gives its events as they come, at most for `timeout_s`; the result is the last.

        Whoever stops before the end closes the generator (`contextlib.aclosing`).
        """
        return self._events(pb.CallerFrame(api_key=api_key, execute_stream=request), timeout_s)

    def watch(
        self, request: pb.WatchCommandRequest, *, api_key: str, timeout_s: float
    ) -> AsyncGenerator[command_pb2.CommandEvent, None]:
        """Attaches to a command and gives its events, as above."""
        return self._events(pb.CallerFrame(api_key=api_key, watch=request), timeout_s)

    async def _ask(self, frame: pb.CallerFrame, kind: str, timeout_s: float) -> pb.ReplyFrame:
        call = Answer(kind)
        self._open_call(frame, call)
        expiry = self._loop.call_later(timeout_s, expire, call, timeout_s)
        try:
            return await call.frame
        finally:
            expiry.cancel()
            self._end_call(frame)

    async def _events(self, frame: pb.CallerFrame, timeout_s: float) -> AsyncGenerator[command_pb2.CommandEvent, None]:
        call = Events(self._space)
        self._open_call(frame, call)
        expiry = self._loop.call_later(timeout_s, expire, call, timeout_s)
        try:
            while (event := await call.fetch()) is not None:
                yield event
        finally:
            expiry.cancel()
            call.close()
            self._end_call(frame)

    def _open_call(self, frame: pb.CallerFrame, call: Call) -> None:
        if self._state is not PipeState.OPEN:
            raise broker_unavailable("the pipe takes no new calls", executed=NO)
        frame.call_id = self._calls.add(call)
        self._stream.send(frame)

    def _end_call(self, frame: pb.CallerFrame) -> None:
        if self._calls.remove(frame.call_id):
            self._stream.send(pb.CallerFrame(call_id=frame.call_id, api_key=frame.api_key, abandon=pb.Abandon()))
            self._close_if_done()

    async def _shake_hands(self, client: str) -> None:
        hello = pb.PipeHello(protocol_version=PROTOCOL_VERSION, client=client)
        self._stream.send(pb.CallerFrame(hello=hello))
        await self._stream.flush()
        frames = await self._stream.receive()
        if not frames or not frames[0].HasField("welcome"):
            raise StreamGarbled("the broker did not begin with PipeWelcome")
        welcome = frames[0].welcome
        self.replica_id = welcome.replica_id
        # Bounds, so that no welcome can make this end flood the broker or never notice that it is frozen.
        self._heartbeat_s = min(max(welcome.heartbeat_interval_s, 0.05), HEARTBEAT_INTERVAL_S)
        self._silence_s = min(max(welcome.heartbeat_timeout_s, 2 * self._heartbeat_s), HEARTBEAT_TIMEOUT_S)
        self._move(PipeState.OPEN)
        self._handle(frames[1:])

    async def _beat(self) -> None:
        seq = 0
        while True:
            await asyncio.sleep(self._heartbeat_s)
            seq += 1
            self._stream.send(pb.CallerFrame(heartbeat=Heartbeat(seq=seq, running=len(self._calls))))

    def _pack(self, frames: Sequence[pb.CallerFrame]) -> pb.PipeRequest:
        self._calls.written(frames)
        return pb.PipeRequest(frames=frames)

    def _handle(self, frames: Sequence[pb.ReplyFrame]) -> None:
        for frame in frames:
            match frame.WhichOneof("frame"):
                case "response" | "event" | "cancelled" | "error" as kind:
                    self._calls.take(kind, frame)
                case "heartbeat_ack":
                    pass
                case "go_away":
                    self._leave(frame.go_away)
                case _:
                    self._calls.ignored_frames += 1
        self._close_if_done()

    def _leave(self, go_away: GoAway) -> None:
        if self._state is PipeState.OPEN:
            self.reconnect_after_s = max(0.0, go_away.reconnect_after_s)
            self._move(PipeState.LEAVING)

    def _close_if_done(self) -> None:
        if self._state is PipeState.LEAVING and not self._calls:
            self._stream.close()

    def _move(self, to: PipeState) -> None:
        if to not in _NEXT[self._state]:
            raise AssertionError(f"a pipe that is {self._state.name} cannot become {to.name}")
        self._state = to


def _told(ended: Exception, *, executed: command_pb2.Executed.ValueType) -> OpenlineError:
    """How a stream ended, as an OpenlineError."""
    if isinstance(ended, grpc.RpcError):
        told = from_rpc_error(ended)
        told.error.executed = executed
        return told
    return broker_unavailable(f"{type(ended).__name__}: {ended}", executed=executed)
