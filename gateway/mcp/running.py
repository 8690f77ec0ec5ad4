"""Running a command for a call: until its end, or as long as a client waits for an answer; then it runs on."""

import asyncio
from collections.abc import Awaitable
from contextlib import aclosing

from gateway.answers import check_answerable, stopped_early
from gateway.command_answers import done, state_name
from gateway.executing import patience_s, run_live
from gateway.mcp.call import Call, ended
from openline.calls import broker_unavailable
from openline.errors import OpenlineError
from openline.reasons import NO, UNKNOWN
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest


async def run(request: ExecuteRequest, call: Call) -> command_pb2.Command:
    """The command with its result, or as far as it is known when the time for an answer is up.

    Raises OpenlineError for one that did not run, or of which that is not known; CANCELLED if the call was taken back.
    """
    following = _Following()
    call.commands.begin(request)
    if not (wait_s := call.left_s()):
        # Nobody would have been asked by then, and what was not begun does not run on.
        raise broker_unavailable("the time for an answer was up before a broker was asked", executed=NO)
    reading = asyncio.create_task(_result(request, call, following), name="mcp-run")
    async with ended(reading), call.running():
        if not await call.wait(reading, wait_s=wait_s, describe=following.describe):
            if not (following.state or any(replica.is_connected for replica in call.pipes.replicas)):
                raise broker_unavailable("no broker could be reached in the time for an answer", executed=UNKNOWN)
            return _so_far(request, following)
    result = reading.result()
    check_answerable(result)
    return done(result, request)


class _Following:
    """How far a command has come."""

    def __init__(self) -> None:
        self.state: command_pb2.CommandState.ValueType = command_pb2.COMMAND_STATE_UNSPECIFIED
        self._bytes = 0

    def take(self, event: command_pb2.CommandEvent) -> None:
        if event.HasField("state"):
            self.state = event.state
        elif event.HasField("output"):
            self._bytes += len(event.output.data)

    def describe(self) -> str:
        written = f", {self._bytes} bytes so far" if self._bytes else ""
        return f"{state_name(self.state)}{written}"


async def _result(request: ExecuteRequest, call: Call, following: _Following) -> command_pb2.CommandResult:
    answering: Awaitable[command_pb2.CommandResult]
    # Only whoever hears of the output as it comes pays for that.
    answering = _at_once(request, call) if call.report is None else _as_it_comes(request, call, following)
    try:
        return await answering
    except OpenlineError as failure:
        return stopped_early(failure)


async def _at_once(request: ExecuteRequest, call: Call) -> command_pb2.CommandResult:
    response = await call.pipes.execute(request, api_key=call.caller.api_key, timeout_s=patience_s(request))
    return response.result


async def _as_it_comes(request: ExecuteRequest, call: Call, following: _Following) -> command_pb2.CommandResult:
    result = command_pb2.CommandResult()
    async with aclosing(run_live(call.pipes, request, call.caller)) as events:
        async for event in events:
            following.take(event)
            if event.HasField("result"):
                result = event.result
    return result


def _so_far(request: ExecuteRequest, following: _Following) -> command_pb2.Command:
    return command_pb2.Command(
        command_id=request.command_id,
        cluster_id=request.cluster_id,
        correlation_id=request.correlation_id,
        argv=request.argv,
        # Whoever did not ask was not told more than that nothing is wrong with it.
        state=following.state or command_pb2.COMMAND_STATE_RUNNING,
    )
