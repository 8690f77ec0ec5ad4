"""The Pipe of CommandService: many calls of many callers over one stream, each answered on its own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import grpc
import structlog

from broker.core.credentials import Credentials
from broker.dispatcher import Dispatcher
from broker.execution import Answer, Execution, Source
from broker.executions import Executions
from broker.lookups import Lookups
from broker.rpc.handshake import accept, first_frames, violation
from broker.rpc.service import abort_stream, credential
from openline import errors, limits
from openline.outbox import Overflow
from openline.reasons import NO, UNKNOWN, Reason
from openline.stream import FrameStream, StreamFrozen, StreamGarbled
from openline.v1 import command_pb2, executor_service_pb2
from openline.v1 import command_service_pb2 as pb

Stream = FrameStream[pb.CallerFrame, pb.ReplyFrame]

# Calls that are open at one time on one pipe; those that stream cost a task each.
MAX_OPEN_CALLS = 20_000
MAX_STREAMING_CALLS = 2_000
# Streaming calls add nothing while so much waits to be written: what a slow reader misses is a gap, not memory.
MAX_WAITING_BYTES = 2 << 20
LOOK_AGAIN_S = 0.01
# It is for the logs.
MAX_CLIENT_CHARACTERS = 200

log = structlog.get_logger()


class Pipes:
    """Every pipe of this replica."""

    def __init__(
        self,
        executions: Executions,
        dispatcher: Dispatcher,
        lookups: Lookups,
        credentials: Credentials,
        *,
        replica_id: str,
    ) -> None:
        self.executions = executions
        self.dispatcher = dispatcher
        self.lookups = lookups
        self.credentials = credentials
        self._replica_id = replica_id
        self._streams: set[Stream] = set()

    async def carry(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Carries the calls of one gateway, script or replica until it leaves."""
        stream: Stream = FrameStream(
            read=context.read,
            write=context.write,
            pack=lambda frames: pb.PipeResponse(frames=frames),
            unpack=lambda message: message.frames,
        )
        first, *rest = await first_frames(stream, name="PipeHello")
        if len(client := first.hello.client) > MAX_CLIENT_CHARACTERS or not (client.isascii() and client.isprintable()):
            raise violation(f"client must have at most {MAX_CLIENT_CHARACTERS} characters, of printable ASCII")
        await accept(context)
        stream.send(pb.ReplyFrame(welcome=self._welcome()))
        calls = Calls(self, stream, credential(context))
        lines = log.bind(client=client, peer=context.peer())
        lines.info("pipe.opened")
        self._streams.add(stream)
        why = "the connection was lost"
        try:
            calls.handle(rest)
            await stream.run(calls.handle, silence_s=limits.HEARTBEAT_TIMEOUT_S)
            why = "ended"
            return
        except (StreamFrozen, Overflow) as end:
            why = str(end)
        except StreamGarbled as garbled:
            why = str(garbled)
            raise
        finally:
            self._streams.discard(stream)
            await calls.close()
            lines.info("pipe.closed", why=why)
        await abort_stream(context, why)

    def go_away(self, reason: str) -> None:
        """Tells every pipe's caller to move. What runs is answered while the stream is open."""
        for stream in self._streams:
            stream.send(pb.ReplyFrame(go_away=executor_service_pb2.GoAway(reason=reason)))

    def close(self) -> None:
        """Ends every pipe when what is queued has been written."""
        for stream in self._streams:
            stream.close()

    def _welcome(self) -> pb.PipeWelcome:
        return pb.PipeWelcome(
            protocol_version=limits.PROTOCOL_VERSION,
            replica_id=self._replica_id,
            heartbeat_interval_s=limits.HEARTBEAT_INTERVAL_S,
            heartbeat_timeout_s=limits.HEARTBEAT_TIMEOUT_S,
        )


class Calls:
    """The open calls of one pipe."""

    def __init__(self, pipes: Pipes, stream: Stream, pipe_key: str | None) -> None:
        self._pipes = pipes
        self._stream = stream
        self._pipe_key = pipe_key
        self._open: dict[int, Execution] = {}
        # Calls that take more than one answer, or a look into Redis; and every task until it has ended.
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        # Events wait in line for room on the stream, so that one call looks for it and not two thousand.
        self._turn = asyncio.Lock()

    def handle(self, frames: Sequence[pb.CallerFrame]) -> None:
        for frame in frames:
            match frame.WhichOneof("frame"):
                case "execute":
                    if self._admit(frame, streaming=False):
                        self._execute(frame)
                case "execute_stream":
                    if self._admit(frame, streaming=True):
                        self._execute_stream(frame)
                case "watch":
                    if self._admit(frame, streaming=True):
                        self._run(frame.call_id, partial(self._watch, frame))
                case "cancel":
                    if self._admit(frame, streaming=False):
                        self._run(frame.call_id, partial(self._cancel, frame))
                case "abandon":
                    self._abandon(frame.call_id)
                case "heartbeat":
                    ack = executor_service_pb2.HeartbeatAck(seq=frame.heartbeat.seq)
                    self._stream.send(pb.ReplyFrame(heartbeat_ack=ack))
                case "hello":
                    self._refuse(frame.call_id, Reason.PROTOCOL_VIOLATION, "a second hello")
                case _:
                    pass  # of a newer version of the contract, or credit, which events do not need

    async def close(self) -> None:
        """The pipe is gone, and with it everyone who waited on it."""
        for call_id in [*self._open, *self._tasks]:
            self._abandon(call_id)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _admit(self, frame: pb.CallerFrame, *, streaming: bool) -> bool:
        call_id = frame.call_id
        if call_id in self._open or call_id in self._tasks or call_id == 0:
            # Whoever has the id will take this for the end of the first call, which may well have run.
            executed = UNKNOWN if call_id else NO
            self._refuse(call_id, Reason.PROTOCOL_VIOLATION, f"call_id {call_id} is in use", executed=executed)
        elif (streaming and len(self._tasks) >= MAX_STREAMING_CALLS) or (
            max(len(self._open), len(self._tasks)) >= MAX_OPEN_CALLS
        ):
            self._refuse(call_id, Reason.QUOTA_EXCEEDED, "too many open calls on this pipe")
        else:
            return True
        return False

    def _execute(self, frame: pb.CallerFrame) -> None:
        call_id = frame.call_id
        execution = self._pipes.executions.start(
            frame.execute, frame.api_key or self._pipe_key, lambda answer: self._answer(call_id, answer)
        )
        if not execution.over:
            self._open[call_id] = execution

    def _execute_stream(self, frame: pb.CallerFrame) -> None:
        call_id = frame.call_id
        execution = self._pipes.executions.start(
            frame.execute_stream,
            frame.api_key or self._pipe_key,
            lambda answer: self._answer(call_id, answer),
            begun=lambda source: self._run(call_id, partial(self._show, call_id, source, from_seq=0)),
        )
        if not execution.over:
            self._open[call_id] = execution

    async def _watch(self, frame: pb.CallerFrame) -> None:
        caller = self._pipes.credentials.caller(frame.api_key or self._pipe_key)
        caller.require("read")
        source = await self._pipes.lookups.find(frame.watch.command_id, caller)
        await self._show(frame.call_id, source, from_seq=frame.watch.from_seq)

    async def _cancel(self, frame: pb.CallerFrame) -> None:
        caller = self._pipes.credentials.caller(frame.api_key or self._pipe_key)
        caller.require("execute")
        state = await self._pipes.lookups.cancel(frame.cancel.command_id, caller, why=frame.cancel.why)
        cancelled = pb.CancelCommandResponse(state=state)
        self._stream.send(pb.ReplyFrame(call_id=frame.call_id, cancelled=cancelled))

    async def _show(self, call_id: int, source: Source, *, from_seq: int) -> None:
        """Sends a command's events as they come, as fast as the pipe takes them."""
        with self._pipes.dispatcher.watch(source, from_seq=from_seq) as events:
            async for event in events:
                async with self._turn:
                    while self._stream.waiting_bytes > MAX_WAITING_BYTES:
                        await asyncio.sleep(LOOK_AGAIN_S)
                    # Behind each other, all of them: the result must not overtake output.
                    self._stream.send(pb.ReplyFrame(call_id=call_id, event=event), output=True)
        if (execution := self._open.pop(call_id, None)) is not None:
            execution.abandon()

    def _run(self, call_id: int, call: Callable[[], Awaitable[None]]) -> None:
        """Runs a call in a task of its own, until it ends, is abandoned, or the pipe is gone."""

        async def run() -> None:
            try:
                await call()
            except errors.OpenlineError as refusal:
                self._stream.send(pb.ReplyFrame(call_id=call_id, error=refusal.error))
            except Exception:
                log.exception("pipe.call_failed")
                self._refuse(call_id, Reason.INTERNAL, "internal error; see the broker's log", executed=UNKNOWN)
            finally:
                # Its id may have been abandoned and be another call's by now.
                if self._tasks.get(call_id) is task:
                    del self._tasks[call_id]

        self._tasks[call_id] = task = asyncio.get_running_loop().create_task(run())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _abandon(self, call_id: int) -> None:
        if (task := self._tasks.pop(call_id, None)) is not None:
            task.cancel()
        if (execution := self._open.pop(call_id, None)) is not None:
            execution.abandon()

    def _answer(self, call_id: int, answer: Answer) -> None:
        self._open.pop(call_id, None)
        if isinstance(answer, command_pb2.Error):
            self._stream.send(pb.ReplyFrame(call_id=call_id, error=answer))
        else:
            self._stream.send(pb.ReplyFrame(call_id=call_id, response=answer))

    def _refuse(
        self, call_id: int, reason: Reason, message: str, *, executed: command_pb2.Executed.ValueType = NO
    ) -> None:
        self._stream.send(pb.ReplyFrame(call_id=call_id, error=errors.error(reason, message, executed=executed)))
