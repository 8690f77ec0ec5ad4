"""`Prefer: respond-async`: a command that is answered before its end, and runs on.

It is followed like an event stream, but for its output, for as long as its caller waits, and then left. So it may
follow a log as well, and whoever wants its output before the end attaches to its events.
"""

import asyncio
from contextlib import aclosing

from fastapi import Request

from gateway.answers import stopped_early
from gateway.callers import Caller
from gateway.command_answers import NO_NEWS
from gateway.executing import run_live
from gateway.leaving import while_there
from openline.errors import OpenlineError
from openline.events import CommandEvents
from openline.pipes import Pipes
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest, ExecuteResponse

# Beyond the caller's wait: for the executor to take the command, so that what is refused is told at once.
NEWS_WAIT_S = 1.0


async def run_or_leave(
    pipes: Pipes, request: ExecuteRequest, caller: Caller, http: Request, *, wait_s: float
) -> ExecuteResponse | command_pb2.Command:
    """The result, or the command as far as it is known when the caller does not wait any longer. It runs on then.

    Raises OpenlineError for a command that is known not to run, and CallerGone.
    """
    # Nobody is shown what it writes before the end, and the end has it.
    request.without_output = True
    following = _Following()
    async with aclosing(run_live(pipes, request, caller)) as events:
        reading = asyncio.create_task(following.read(events), name="deferred-read")
        try:
            async with while_there(http.receive):
                await asyncio.wait({reading}, timeout=wait_s)
                await following.settled(reading)
                if not reading.done() and request.idempotency_key and not following.command_id:
                    # An earlier request may have the command, under an id that a broker of before does not say.
                    await asyncio.wait({reading})
            if not reading.done():
                return command_pb2.Command(
                    command_id=following.command_id or request.command_id,
                    cluster_id=request.cluster_id,
                    session_id=request.session_id,
                    correlation_id=request.correlation_id,
                    argv=request.argv,
                    state=following.state,
                )
            try:
                result = reading.result()
            except OpenlineError as failure:
                result = stopped_early(failure)
            return ExecuteResponse(result=result, replayed=result.command_id not in ("", request.command_id))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class _Following:
    """How far a command has come."""

    def __init__(self) -> None:
        self.state: command_pb2.CommandState.ValueType = command_pb2.COMMAND_STATE_UNSPECIFIED
        # As the broker says it.
        self.command_id = ""
        # A broker has answered: it has the command.
        self._is_known = asyncio.Event()
        self._is_taken = asyncio.Event()

    async def read(self, events: CommandEvents) -> command_pb2.CommandResult:
        result = command_pb2.CommandResult()
        async for event in events:
            self._is_known.set()
            if event.HasField("state"):
                self.state = event.state
                self.command_id = event.command_id
            if event.HasField("result"):
                result = event.result
            if self.state not in NO_NEWS:
                self._is_taken.set()
        return result

    async def settled(self, reading: "asyncio.Task[command_pb2.CommandResult]") -> None:
        """Returns when it is known who has the command: an executor, or at least a broker; or when it has ended."""
        for event, timeout_s in ((self._is_taken, NEWS_WAIT_S), (self._is_known, None)):
            waiting = asyncio.create_task(event.wait(), name="deferred-wait")
            try:
                await asyncio.wait({reading, waiting}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
