"""The caller's end of one Pipe: many calls over one stream to one broker replica, each answered, failed or given up.

Gateways, load tests, the client and peer replicas use it. Which replica to ask, and whether to ask another, is not
decided here but in `pipes` and `watching`.
"""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any, Self

import grpc

from openline.calls import Answer, Call, Calls, broker_unavailable, expire
from openline.errors import OpenlineError, from_rpc_error
from openline.events import CommandEvents, Events, Space
from openline.greeting import Agreed, CheckWelcome, Metadata, greet
from openline.limits import HELLO_TIMEOUT_S
from openline.outbox import Overflow
from openline.pipe_state import NEXT, PipeState
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


class Pipe:
    """One stream, opened by `open`, then driven by `run` in one task of its owner until it ends; never reopened."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata = ()) -> None:
        self._rpc = CommandServiceStub(channel).Pipe(metadata=metadata)
        self._stream: FrameStream[pb.ReplyFrame, pb.CallerFrame] = FrameStream(
            read=self._rpc.read, write=self._rpc.write, pack=self._pack, unpack=lambda message: message.frames
        )
        self._loop = asyncio.get_running_loop()
        self._calls = Calls()
        self._space = Space()
        self.agreed = Agreed()
        self._state = PipeState.OPENING
        # No new call is taken any more: the replica said GoAway, or the stream has ended.
        self.left = asyncio.Event()
        self.is_degraded = False  # the replica keeps results in its memory, since Redis does not take them
        # What GoAway asked for, if it was said.
        self.reconnect_after_s: float | None = None

    def __repr__(self) -> str:
        return f"<Pipe {self.replica_id or '?'} {self._state.name} calls={len(self._calls)} {self._stream!r}>"

    @property
    def state(self) -> PipeState:
        return self._state

    @property
    def replica_id(self) -> str:
        return self.agreed.replica_id

    @property
    def ignored_frames(self) -> int:
        return self._calls.ignored_frames

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come from the replica for longer than its heartbeat answers take."""
        return monotonic() - self._stream.received_at > QUIET_AFTER_HEARTBEATS * self.agreed.heartbeat_s

    @classmethod
    async def open(
        cls,
        channel: grpc.aio.Channel,
        *,
        client: str,
        metadata: Metadata = (),
        check_welcome: CheckWelcome | None = None,
    ) -> Self:
        """Says PipeHello and waits for PipeWelcome; `client` is for the broker's logs.

        `metadata` goes along with the stream, and `check_welcome` may raise OpenlineError for a peer that is not to be
        trusted. Raises that, or the broker's own reason where it gave one. The result must be given to `run`.
        """
        pipe = cls(channel, metadata)
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                pipe.agreed, rest = await greet(pipe._stream, client=client, check_welcome=check_welcome)
            pipe._move(PipeState.OPEN)
            pipe._handle(rest)
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
            await self._stream.run(self._handle, silence_s=self.agreed.silence_s)
        except _BREAKS as ended:
            raise _told(ended, executed=UNKNOWN) from ended
        finally:
            self._move(PipeState.ENDED)
            self._calls.fail_all()
            self._rpc.cancel()
            heartbeat.cancel()
            await asyncio.gather(heartbeat, return_exceptions=True)

    async def execute(
        self, request: pb.ExecuteRequest, *, timeout_s: float, api_key: str = "", forwarded: pb.Forwarded | None = None
    ) -> pb.ExecuteResponse:
        """Runs a command and waits up to `timeout_s` for its result.

        A replica that forwards says for whom in `forwarded`, and no key is sent. Raises OpenlineError: what the broker
        answered, or BROKER_UNAVAILABLE. The frame that tells the broker that nobody waits any more follows when the
        time is up or the caller is cancelled. So it is with the calls below.
        """
        frame = _made_for(api_key, forwarded, execute=request)
        return (await self._ask(frame, "response", timeout_s)).response

    async def cancel(
        self,
        request: pb.CancelCommandRequest,
        *,
        timeout_s: float,
        api_key: str = "",
        forwarded: pb.Forwarded | None = None,
    ) -> pb.CancelCommandResponse:
        """Asks for a command to be stopped."""
        frame = _made_for(api_key, forwarded, cancel=request)
        return (await self._ask(frame, "cancelled", timeout_s)).cancelled

    def execute_stream(
        self, request: pb.ExecuteRequest, *, timeout_s: float, api_key: str = "", forwarded: pb.Forwarded | None = None
    ) -> CommandEvents:
        """Runs a command and gives its events as they come, at most for `timeout_s`; the result is the last.

        Whoever stops before the end closes the generator (`contextlib.aclosing`).
        """
        return self._events(_made_for(api_key, forwarded, execute_stream=request), timeout_s)

    def watch(
        self,
        request: pb.WatchCommandRequest,
        *,
        timeout_s: float,
        api_key: str = "",
        forwarded: pb.Forwarded | None = None,
    ) -> CommandEvents:
        """Attaches to a command and gives its events, as above."""
        return self._events(_made_for(api_key, forwarded, watch=request), timeout_s)

    async def _ask(self, frame: pb.CallerFrame, kind: str, timeout_s: float) -> pb.ReplyFrame:
        call = Answer(kind)
        self._open_call(frame, call)
        expiry = self._loop.call_later(timeout_s, expire, call, timeout_s)
        try:
            return await call.frame
        finally:
            expiry.cancel()
            self._end_call(frame)

    async def _events(self, frame: pb.CallerFrame, timeout_s: float) -> CommandEvents:
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

    async def _beat(self) -> None:
        seq = 0
        while True:
            await asyncio.sleep(self.agreed.heartbeat_s)
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
                    self.is_degraded = frame.heartbeat_ack.degraded
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
        if to not in NEXT[self._state]:
            raise AssertionError(f"a pipe that is {self._state.name} cannot become {to.name}")
        self._state = to
        if to is not PipeState.OPEN:
            self.left.set()


def _made_for(api_key: str, forwarded: pb.Forwarded | None, **asked: Any) -> pb.CallerFrame:
    """A frame that asks for something, and for whom."""
    who: dict[str, Any] = {"api_key": api_key} if forwarded is None else {"forwarded": forwarded}
    return pb.CallerFrame(**who, **asked)


def _told(ended: Exception, *, executed: command_pb2.Executed.ValueType) -> OpenlineError:
    """How a stream ended, as an OpenlineError."""
    if isinstance(ended, grpc.RpcError):
        told = from_rpc_error(ended)
        told.error.executed = executed
        return told
    return broker_unavailable(f"{type(ended).__name__}: {ended}", executed=executed)
