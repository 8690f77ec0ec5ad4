"""CommandService: unary Execute, and the Pipe that carries many at a time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import structlog

from broker.executions import Answer, Execution, Executions
from broker.rpc.service import abort, abort_stream, check_version, credential
from openline import errors, limits
from openline.outbox import Overflow
from openline.reasons import NO, UNKNOWN, Reason
from openline.stream import FrameStream, StreamFrozen, StreamGarbled
from openline.v1 import command_pb2, command_service_pb2, executor_service_pb2

ReplyFrame = command_service_pb2.ReplyFrame
CallerFrame = command_service_pb2.CallerFrame
Stream = FrameStream[CallerFrame, ReplyFrame]

# Calls that are open at one time on one pipe.
MAX_OPEN_CALLS = 20_000
# It is for the logs.
MAX_CLIENT_CHARACTERS = 200

log = structlog.get_logger()


class CommandService:
    def __init__(self, executions: Executions, *, replica_id: str) -> None:
        self._executions = executions
        self._replica_id = replica_id
        self._pipes: set[Stream] = set()

    async def Execute(  # noqa: N802
        self,
        request: command_service_pb2.ExecuteRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> command_service_pb2.ExecuteResponse:
        """Answers with the result; a command without an exit code is an error, with the output so far."""
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answer_once(answer: Answer) -> None:
            # Cancelled already, but not told yet: the answer may come in between.
            if not answered.done():
                answered.set_result(answer)

        execution = self._executions.start(request, credential(context), answer_once)
        try:
            answer = await answered
        except asyncio.CancelledError:
            execution.abandon()
            raise
        if isinstance(answer, command_pb2.Error):
            await abort(context, answer)
        if answer.result.HasField("error"):
            await abort(context, answer.result.error, result=answer.result)
        return answer

    async def Pipe(self, _requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802
        """Carries the calls of one gateway, script or replica until it leaves."""
        stream: Stream = FrameStream(
            read=context.read,
            write=context.write,
            pack=lambda frames: command_service_pb2.PipeResponse(frames=frames),
            unpack=lambda message: message.frames,
        )
        hello, rest = await _hello(stream)
        stream.send(ReplyFrame(welcome=self._welcome()))
        calls = _Calls(self._executions, stream, credential(context))
        lines = log.bind(client=hello.client, peer=context.peer())
        lines.info("pipe.opened")
        self._pipes.add(stream)
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
            self._pipes.discard(stream)
            calls.abandon()
            lines.info("pipe.closed", why=why)
        await abort_stream(context, why)

    def go_away(self, reason: str) -> None:
        """Tells every pipe's caller to move. What runs is answered while the stream is open."""
        for stream in self._pipes:
            stream.send(ReplyFrame(go_away=executor_service_pb2.GoAway(reason=reason)))

    def close(self) -> None:
        """Ends every pipe when what is queued has been written."""
        for stream in self._pipes:
            stream.close()

    def _welcome(self) -> command_service_pb2.PipeWelcome:
        return command_service_pb2.PipeWelcome(
            protocol_version=limits.PROTOCOL_VERSION,
            replica_id=self._replica_id,
            heartbeat_interval_s=limits.HEARTBEAT_INTERVAL_S,
            heartbeat_timeout_s=limits.HEARTBEAT_TIMEOUT_S,
        )


class _Calls:
    """The open calls of one pipe."""

    def __init__(self, executions: Executions, stream: Stream, pipe_key: str | None) -> None:
        self._executions = executions
        self._stream = stream
        self._pipe_key = pipe_key
        self._open: dict[int, Execution] = {}

    def handle(self, frames: Sequence[CallerFrame]) -> None:
        for frame in frames:
            match frame.WhichOneof("frame"):
                case None:
                    pass  # of a newer version of the contract
                case "heartbeat":
                    ack = executor_service_pb2.HeartbeatAck(seq=frame.heartbeat.seq)
                    self._stream.send(ReplyFrame(heartbeat_ack=ack))
                case "execute":
                    self._execute(frame)
                case "abandon":
                    if (execution := self._open.pop(frame.call_id, None)) is not None:
                        execution.abandon()
                case "credit":
                    pass  # belongs to a call, and must not end it: nothing flows against credit in this version
                case "hello":
                    self._refuse(frame.call_id, Reason.PROTOCOL_VIOLATION, "a second hello")
                case kind:
                    self._refuse(frame.call_id, Reason.NOT_BUILT, f"{kind} is not built in this version")

    def abandon(self) -> None:
        """The pipe is gone, and with it everyone who waited on it."""
        for execution in self._open.values():
            execution.abandon()
        self._open.clear()

    def _execute(self, frame: CallerFrame) -> None:
        call_id = frame.call_id
        if call_id in self._open or call_id == 0:
            # Whoever has the id will take this for the end of the first call, which may well have run.
            executed = UNKNOWN if call_id else NO
            self._refuse(call_id, Reason.PROTOCOL_VIOLATION, f"call_id {call_id} is in use", executed=executed)
        elif len(self._open) >= MAX_OPEN_CALLS:
            self._refuse(call_id, Reason.QUOTA_EXCEEDED, "too many open calls on this pipe")
        else:
            execution = self._executions.start(
                frame.execute, frame.api_key or self._pipe_key, lambda answer: self._answer(call_id, answer)
            )
            if not execution.abandoned:
                self._open[call_id] = execution

    def _answer(self, call_id: int, answer: Answer) -> None:
        self._open.pop(call_id, None)
        if isinstance(answer, command_pb2.Error):
            self._stream.send(ReplyFrame(call_id=call_id, error=answer))
        else:
            self._stream.send(ReplyFrame(call_id=call_id, response=answer))

    def _refuse(
        self, call_id: int, reason: Reason, message: str, *, executed: command_pb2.Executed.ValueType = NO
    ) -> None:
        self._stream.send(ReplyFrame(call_id=call_id, error=errors.error(reason, message, executed=executed)))


async def _hello(stream: Stream) -> tuple[command_service_pb2.PipeHello, Sequence[CallerFrame]]:
    """The first frame, which must be a PipeHello, and those that came with it. Raises PROTOCOL_VIOLATION."""
    problem = "a pipe begins with PipeHello"
    try:
        async with asyncio.timeout(limits.HELLO_TIMEOUT_S):
            frames = await stream.receive()
    except TimeoutError:
        problem = f"no PipeHello within {limits.HELLO_TIMEOUT_S:g} s"
        frames = None
    if not frames or frames[0].WhichOneof("frame") != "hello":
        raise errors.OpenlineError(errors.error(Reason.PROTOCOL_VIOLATION, problem))
    hello = frames[0].hello
    check_version(hello.protocol_version)
    if len(hello.client) > MAX_CLIENT_CHARACTERS:
        problem = f"client must have at most {MAX_CLIENT_CHARACTERS} characters"
        raise errors.OpenlineError(errors.error(Reason.PROTOCOL_VIOLATION, problem))
    return hello, frames[1:]
