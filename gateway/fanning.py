"""Asking many clusters, some at a time: each by itself, so that what becomes of one is nothing to the others."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.answers import check_answerable, stopped_early
from gateway.callers import Caller
from gateway.command_answers import Wish, done
from gateway.command_models import CommandAnswer
from gateway.executing import patience_s
from gateway.showing import show
from openline.errors import OpenlineError
from openline.pipes import Pipes
from openline.v1.command_service_pb2 import ExecuteRequest, ExecuteResponse

# Of one fan-out. The others wait their turn, and their time begins with it.
AT_A_TIME = 50


@dataclass(frozen=True, slots=True)
class Answered:
    """The command ended in this cluster, or was stopped."""

    request: ExecuteRequest
    response: ExecuteResponse
    answer: CommandAnswer


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not run, or that is not known."""

    request: ExecuteRequest
    failure: OpenlineError


Ended = Answered | Failed


async def ask(pipes: Pipes, caller: Caller, wish: Wish, request: ExecuteRequest) -> Ended:
    """Runs the command in its cluster. Raises nothing that is the cluster's own."""
    try:
        try:
            response = await pipes.execute(request, api_key=caller.api_key, timeout_s=patience_s(request))
        except OpenlineError as failure:
            response = ExecuteResponse(result=stopped_early(failure))
        check_answerable(response.result)
    except OpenlineError as failure:
        return Failed(request, failure)
    return Answered(request, response, await show(done(response.result, request), wish))


async def ask_all(
    requests: Sequence[ExecuteRequest],
    ask_one: Callable[[ExecuteRequest], Awaitable[Ended]],
    tell: Callable[[Ended], Awaitable[None]],
) -> None:
    """Tells how each ended as it does. Whoever takes it slowly slows down the asking, and nothing piles up."""
    waiting = deque(requests)

    async def work() -> None:
        while waiting:
            await tell(await ask_one(waiting.popleft()))

    async with asyncio.TaskGroup() as working:
        for _ in range(min(AT_A_TIME, len(requests))):
            working.create_task(work(), name="fanout")
