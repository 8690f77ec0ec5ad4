"""Asking many clusters, some at a time: each by itself, so that what becomes of one is nothing to the others."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.answers import check_answerable
from gateway.callers import Caller
from gateway.calling_off import Commands, cancel_all
from gateway.command_answers import Wish, done
from gateway.command_models import CommandAnswer
from gateway.executing import execute
from gateway.showing import show
from openline.errors import OpenlineError, why_of_all
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
        response = await execute(pipes, request, caller)
        check_answerable(response.result)
    except OpenlineError as failure:
        return Failed(request, failure)
    return Answered(request, response, await show(done(response.result, request), wish))


class FanOut:
    """One command in many clusters, until all have answered. Once it is called off, the others are told so.

    `commands` is where it is called off, for whoever knows of it before it begins.
    """

    def __init__(
        self,
        pipes: Pipes,
        caller: Caller,
        wish: Wish,
        requests: Sequence[ExecuteRequest],
        *,
        commands: Commands | None = None,
    ) -> None:
        self._commands = commands or Commands()
        self._pipes = pipes
        self._caller = caller
        self._wish = wish
        self._requests = requests

    async def run(self, tell: Callable[[Ended], Awaitable[None]]) -> None:
        """Tells how each ended as it does. Whoever takes it slowly slows down the asking, and nothing piles up."""
        waiting = deque(self._requests)

        async def work() -> None:
            while waiting:
                await tell(await self._ask(waiting.popleft()))

        async with asyncio.TaskGroup() as working:
            for _ in range(min(AT_A_TIME, len(self._requests))):
                working.create_task(work(), name="fanout")

    async def _ask(self, request: ExecuteRequest) -> Ended:
        commands = self._commands
        try:
            commands.begin(request)
        except OpenlineError as failure:
            return Failed(request, failure)
        ended = await ask(self._pipes, self._caller, self._wish, request)
        why = why_of_all(ended.failure.error if isinstance(ended, Failed) else ended.response.result.error)
        if why is not None and commands.called_off is None:
            # Elsewhere, where not all was seen that has been begun here.
            others = commands.call_off(why)
            others.pop(request.command_id, None)
            await cancel_all(self._pipes, others, why=f"with its fan-out: {why}", api_key=self._caller.api_key)
        commands.running.pop(request.command_id, None)
        return ended
