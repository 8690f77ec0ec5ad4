"""One command's events, over as many streams as it takes: run it, and when the stream breaks, attach to it again.

Whichever replica knows the command is asked, from the next output seq on, until the result or the caller's deadline.
Whoever stops before the end closes the generator (`contextlib.aclosing`).
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic

from openline.asking import attach_elsewhere, find_elsewhere, more_telling, run_elsewhere
from openline.calls import broker_unavailable
from openline.cursor import Cursor
from openline.errors import OpenlineError
from openline.pipes import Pipes
from openline.reasons import NO, UNKNOWN, Reason
from openline.v1.command_pb2 import CommandEvent
from openline.v1.command_service_pb2 import ExecuteRequest, WatchCommandRequest

# After a stream broke, no replica may know the command for a while: its executor reconnects within the grace of 10 s.
FIND_AGAIN_S = 15.0
# Between two rounds of asking, up to so long.
PAUSE_S = 0.5

CommandEvents = AsyncGenerator[CommandEvent, None]


async def execute_stream(pipes: Pipes, request: ExecuteRequest, *, api_key: str, timeout_s: float) -> CommandEvents:
    """Runs a command on whichever replica can, and gives its events; the result is the last. At most for `timeout_s`.

    The request must bring its command id. Raises OpenlineError: of several replicas' answers the most telling one.
    A command that is to be cancelled with its caller is cancelled when its stream breaks as well: the broker cannot
    tell one from the other. Its end is shown all the same.
    """
    started_at = asyncio.get_running_loop().time()
    deadline = monotonic() + timeout_s
    cursor = Cursor(request.command_id)
    told: OpenlineError | None = None
    await pipes.wait_for_a_pipe(timeout_s)
    for pipe, asked, left_s in pipes.tries(request, started_at=started_at, timeout_s=timeout_s):
        try:
            async with aclosing(pipe.execute_stream(asked, api_key=api_key, timeout_s=left_s)) as events:
                async for event in events:
                    _check_ran(event)
                    for shown in cursor.show(event):
                        yield shown
            return
        except OpenlineError as failure:
            if failure.reason is Reason.BROKER_UNAVAILABLE and failure.error.executed != NO:
                break
            if not (run_elsewhere(failure) or attach_elsewhere(failure)):
                raise
            told = more_telling(told, failure)
    else:
        raise told or broker_unavailable("no broker replica can be reached", executed=NO)
    async with aclosing(_attached(pipes, cursor, api_key=api_key, deadline=deadline, is_known=True)) as events:
        async for event in events:
            yield event


async def watch(pipes: Pipes, command_id: str, *, from_seq: int, api_key: str, timeout_s: float) -> CommandEvents:
    """Attaches to a command, running or done, and gives its events from an output seq on, as above."""
    deadline = monotonic() + timeout_s
    await pipes.wait_for_a_pipe(timeout_s)
    cursor = Cursor(command_id, next_seq=from_seq)
    async with aclosing(_attached(pipes, cursor, api_key=api_key, deadline=deadline, is_known=False)) as events:
        async for event in events:
            yield event


async def _attached(pipes: Pipes, cursor: Cursor, *, api_key: str, deadline: float, is_known: bool) -> CommandEvents:
    """The events that the cursor has not shown; `is_known`: the command was there, and is to be found again."""
    given_up_at = monotonic() + FIND_AGAIN_S
    while True:
        told: OpenlineError | None = None
        for pipe in pipes.open_pipes():
            if (left_s := deadline - monotonic()) <= 0:
                break
            request = WatchCommandRequest(command_id=cursor.command_id, from_seq=cursor.next_seq)
            try:
                async with aclosing(pipe.watch(request, api_key=api_key, timeout_s=left_s)) as events:
                    async for event in events:
                        is_known, given_up_at = True, monotonic() + FIND_AGAIN_S
                        for shown in cursor.show(event):
                            yield shown
                return
            except OpenlineError as failure:
                if not find_elsewhere(failure):
                    raise
                told = more_telling(told, failure)
        now = monotonic()
        if now >= deadline:
            raise broker_unavailable("no result until the caller's deadline", executed=UNKNOWN)
        if not is_known:
            raise pipes.not_found(told)
        if told is not None and told.reason is not Reason.BROKER_UNAVAILABLE and now >= given_up_at:
            raise broker_unavailable("the stream broke, and no replica knows the command any more", executed=UNKNOWN)
        await asyncio.sleep(min(deadline - now, random.uniform(0, PAUSE_S)))  # noqa: S311


def _check_ran(event: CommandEvent) -> None:
    """Raises what a broker says of a command that did not run here and may elsewhere, as a result or as an error."""
    if event.HasField("result") and event.result.HasField("error"):
        failure = OpenlineError(event.result.error)
        if run_elsewhere(failure):
            raise failure
