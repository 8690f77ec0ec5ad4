"""Going on after `Last-Event-ID`: the events after the one that was seen, with the text going on where it stopped.

What was seen may have ended with half a character, which was held back for the other half. So that output is fetched
once more, and not shown.
"""

from contextlib import aclosing

from gateway.callers import Caller
from gateway.event_text import EventText
from openline import watching
from openline.events import CommandEvents
from openline.pipes import Pipes
from openline.tracing.calls import calling
from openline.v1.command_service_pb2 import WatchCommandRequest


async def resume(
    pipes: Pipes, command_id: str, caller: Caller, *, text: EventText, seen: int, timeout_s: float
) -> CommandEvents:
    """The events after the output `seen` (-1 for none), until the result. `text` is what renders them."""
    began = False
    if seen >= 0:
        async with aclosing(_watch(pipes, command_id, caller, seen, timeout_s)) as events:
            async for event in events:
                if event.HasField("output") and event.output.seq == seen:
                    text.skip(event.output)
                    began = True
                elif event.HasField("gap") and not began:
                    # It is not kept any more, and the gap counts it as missed: ask for what follows it alone.
                    break
                else:
                    yield event
            else:
                return
    async with aclosing(_watch(pipes, command_id, caller, seen + 1, timeout_s)) as events:
        async for event in events:
            yield event


async def _watch(pipes: Pipes, command_id: str, caller: Caller, from_seq: int, timeout_s: float) -> CommandEvents:
    request = WatchCommandRequest(command_id=command_id, traceparent=caller.exchange.traceparent)
    with calling("CommandService/WatchCommand", request, server=pipes.addresses) as call:
        watched = watching.watch(
            pipes,
            command_id,
            from_seq=from_seq,
            api_key=caller.api_key,
            timeout_s=timeout_s,
            traceparent=request.traceparent,
        )
        async with aclosing(watched) as events:
            async for event in events:
                if event.HasField("result"):
                    call.result(event.result)
                yield event
