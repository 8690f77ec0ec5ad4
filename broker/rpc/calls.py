"""The calls of one Pipe: many callers' requests, each answered on its own."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from broker.core import quotas
from broker.core.access import rule
from broker.core.credentials import PEER, Caller
from broker.core.suspicion import Kind
from broker.execution import Answer, Execution, Source
from broker.rpc.parties import Asker, Services
from broker.rpc.pipe_spans import PipeSpans
from broker.rpc.service import names
from broker.watching import NO_OUTPUT
from openline import errors
from openline.outbox import Overflow
from openline.reasons import NO, UNKNOWN, Reason
from openline.stream import FrameStream
from openline.v1 import command_pb2, executor_service_pb2
from openline.v1 import command_service_pb2 as pb

Stream = FrameStream[pb.CallerFrame, pb.ReplyFrame]

# Calls that are open at one time on one pipe; those that stream cost a task each.
MAX_OPEN_CALLS = 20_000
MAX_STREAMING_CALLS = 2_000
# Streaming calls add nothing while so much waits to be written: what a slow reader misses is a gap, not memory.
MAX_WAITING_BYTES = 2 << 20
LOOK_AGAIN_S = 0.01
# What may wait for a stranger, who is answered with nothing but heartbeats and refusals.
MAX_STRANGER_BYTES = 64 << 10

log = structlog.get_logger()


class Calls:
    """The open calls of one pipe."""

    def __init__(self, services: Services, stream: Stream, asker: Asker) -> None:
        self._services = services
        self._stream = stream
        self._asker = asker
        # A good key was shown on this pipe, or it is another replica's.
        self.is_trusted = asker.peer is not None
        self._open: dict[int, Execution] = {}
        # Calls that take more than one answer, or a look into Redis; and every task until it has ended.
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._spans = PipeSpans()
        # Events wait in line for room on the stream, so that one call looks for it and not two thousand.
        self._turn = asyncio.Lock()
        self.unknown_frames = 0

    def handle(self, frames: Sequence[pb.CallerFrame]) -> None:
        if not self.is_trusted and self._stream.waiting_bytes > MAX_STRANGER_BYTES:
            self._stream.break_off(Overflow("a pipe without a good key does not read its answers"))
            return
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
                        self._run(frame, partial(self._watch, frame))
                case "cancel":
                    if self._admit(frame, streaming=False):
                        self._run(frame, partial(self._cancel, frame))
                case "abandon":
                    self._abandon(frame.call_id)
                case "heartbeat":
                    seq, degraded = frame.heartbeat.seq, self._services.executions.degraded
                    ack = executor_service_pb2.HeartbeatAck(seq=seq, degraded=degraded)
                    self._stream.send(pb.ReplyFrame(heartbeat_ack=ack))
                case "hello":
                    self._refuse(frame.call_id, Reason.PROTOCOL_VIOLATION, "a second hello")
                case None:  # of a newer version of the contract
                    self.unknown_frames += 1

    async def close(self) -> None:
        """The pipe is gone, and with it everyone who waited on it."""
        for call_id in [*self._open, *self._tasks]:
            self._abandon(call_id)
        self._spans.close()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _admit(self, frame: pb.CallerFrame, *, streaming: bool) -> bool:
        call_id = frame.call_id
        if frame.HasField("forwarded") and self._asker.peer is None:
            self._refuse(call_id, Reason.UNAUTHENTICATED, "only replicas may forward")
        elif call_id in self._open or call_id in self._tasks or call_id == 0:
            # Whoever has the id will take this for the end of the first call, which may well have run.
            executed = UNKNOWN if call_id else NO
            self._refuse(call_id, Reason.PROTOCOL_VIOLATION, f"call_id {call_id} is in use", executed=executed)
        elif (streaming and len(self._tasks) >= MAX_STREAMING_CALLS) or (
            max(len(self._open), len(self._tasks)) >= MAX_OPEN_CALLS
        ):
            refusal = quotas.full(MAX_STREAMING_CALLS if streaming else MAX_OPEN_CALLS, "too many open calls here")
            self._reply(pb.ReplyFrame(call_id=call_id, error=refusal))
        else:
            self._spans.asked(frame)
            return True
        return False

    def _execute(self, frame: pb.CallerFrame) -> None:
        call_id = frame.call_id
        execution = self._services.executions.start(
            frame.execute,
            frame.api_key or self._asker.key,
            lambda answer: self._answer(call_id, answer),
            forwarded=_forwarded(frame),
        )
        if not execution.over:
            self.is_trusted = True
            self._open[call_id] = execution

    def _execute_stream(self, frame: pb.CallerFrame) -> None:
        call_id = frame.call_id
        from_seq = NO_OUTPUT if frame.execute_stream.without_output else 0
        execution = self._services.executions.start(
            frame.execute_stream,
            frame.api_key or self._asker.key,
            lambda answer: self._answer(call_id, answer),
            forwarded=_forwarded(frame),
            begun=lambda source: self._run(frame, partial(self._show_begun, call_id, source, from_seq=from_seq)),
        )
        if not execution.over:
            self.is_trusted = True
            self._open[call_id] = execution

    async def _watch(self, frame: pb.CallerFrame) -> None:
        caller = self._caller(frame, "CommandService.WatchCommand")
        source = await self._services.lookups.find(frame.watch.command_id, caller)
        await self._show(frame.call_id, source, caller, from_seq=frame.watch.from_seq)

    async def _cancel(self, frame: pb.CallerFrame) -> None:
        caller = self._caller(frame, "CommandService.CancelCommand")
        cancelled = await self._services.lookups.cancel(frame.cancel.command_id, caller, why=frame.cancel.why)
        self._reply(pb.ReplyFrame(call_id=frame.call_id, cancelled=cancelled))

    async def _show_begun(self, call_id: int, source: Source, *, from_seq: int) -> None:
        """Shows what an execution has begun, which is over when this is."""
        execution = self._open[call_id]
        try:
            await self._show(call_id, source, execution.caller, from_seq=from_seq)
        finally:
            # Its id may have been abandoned and be another call's by now.
            if self._open.get(call_id) is execution:
                del self._open[call_id]
            execution.abandon()

    async def _show(self, call_id: int, source: Source, caller: Caller, *, from_seq: int) -> None:
        """Sends a command's events as they come, as fast as the pipe takes them, for as long as the key is good."""
        async with self._services.lasting.of(caller):
            with self._services.lookups.watch(source, from_seq=from_seq) as events:
                async for event in events:
                    async with self._turn:
                        while self._stream.waiting_bytes > MAX_WAITING_BYTES:
                            await asyncio.sleep(LOOK_AGAIN_S)
                        # Behind each other, all of them: the result must not overtake output.
                        self._reply(pb.ReplyFrame(call_id=call_id, event=event), output=True)

    def _caller(self, frame: pb.CallerFrame, method: str) -> Caller:
        """Who asks. Raises UNAUTHENTICATED, SCOPE_MISSING."""
        if frame.HasField("forwarded"):
            return PEER
        caller = self._services.credentials.caller(frame.api_key or self._asker.key, clock_s=time.time())
        self.is_trusted = True
        rule(method).check(caller)
        return caller

    def _run(self, frame: pb.CallerFrame, call: Callable[[], Awaitable[None]]) -> None:
        """Runs a call in a task of its own, until it ends, is abandoned, or the pipe is gone."""
        call_id = frame.call_id

        async def run() -> None:
            try:
                await call()
            except errors.OpenlineError as refusal:
                self._fail(call_id, refusal.error)
            except Exception:
                log.exception("pipe.call_failed", **names(getattr(frame, str(frame.WhichOneof("frame")))))
                self._refuse(call_id, Reason.INTERNAL, "internal error; see the broker's log", executed=UNKNOWN)
            finally:
                # Its id may have been abandoned and be another call's by now.
                if self._tasks.get(call_id) is task:
                    del self._tasks[call_id]
                    self._spans.left(call_id)

        self._tasks[call_id] = task = asyncio.get_running_loop().create_task(run())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _abandon(self, call_id: int) -> None:
        if (task := self._tasks.pop(call_id, None)) is not None:
            task.cancel()
        if (execution := self._open.pop(call_id, None)) is not None:
            execution.abandon()
        self._spans.left(call_id)

    def _answer(self, call_id: int, answer: Answer) -> None:
        self._open.pop(call_id, None)
        if isinstance(answer, command_pb2.Error):
            self._fail(call_id, answer)
        else:
            self.is_trusted = True
            self._reply(pb.ReplyFrame(call_id=call_id, response=answer))

    def _fail(self, call_id: int, error: command_pb2.Error) -> None:
        """Answers with the error, late if it says that the key is wrong."""
        frame = pb.ReplyFrame(call_id=call_id, error=error)
        self._spans.told(frame)  # also if it is held back
        answer = partial(self._stream.send, frame)
        if error.reason == Reason.UNAUTHENTICATED:
            self._services.refusals.hold_back(answer, Kind.API_KEY, peer=self._asker.address)
        else:  # keys are looked at before anything else, but for that Redis has not told of any
            self.is_trusted = self.is_trusted or error.reason != Reason.STORE_UNAVAILABLE
            answer()

    def _reply(self, frame: pb.ReplyFrame, *, output: bool = False) -> None:
        self._spans.told(frame)
        self._stream.send(frame, output=output)

    def _refuse(
        self, call_id: int, reason: Reason, message: str, *, executed: command_pb2.Executed.ValueType = NO
    ) -> None:
        self._reply(pb.ReplyFrame(call_id=call_id, error=errors.error(reason, message, executed=executed)))


def _forwarded(frame: pb.CallerFrame) -> pb.Forwarded | None:
    return frame.forwarded if frame.HasField("forwarded") else None
