"""A command's events as an answer.

Until it is known that the command goes to an executor, a failure is an ordinary problem with its own status; after that
it is an `error` event.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, Self

from fastapi import Request
from pydantic import BaseModel
from starlette.types import Scope, Send

from gateway.answers import check_answerable
from gateway.command_answers import NO_NEWS
from gateway.event_text import TIME_IS_UP, EventText, said
from gateway.exchange import Exchange
from gateway.executing import REPLAYED
from gateway.leaving import while_there
from gateway.problems import problem_of
from gateway.sse import EventStream
from openline.errors import OpenlineError
from openline.events import CommandEvents
from openline.reasons import OUTCOME_TEXT
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest

# So long the answer's head waits for news of the command.
HEAD_WAIT_S = 1.0

# The body for a result; raises OpenlineError for one that is not an answer.
End = Callable[[command_pb2.CommandResult], Awaitable[BaseModel]]


class Shown(Protocol):
    """What a command's events look like in this protocol."""

    async def event(self, event: command_pb2.CommandEvent, scope: Scope) -> bytes:
        """Raises OpenlineError for a result that is not an answer."""

    async def failure(self, failure: OpenlineError, scope: Scope) -> bytes:
        """The last one, in place of a result."""


class CommandStream(EventStream):
    """Made by `open`. It owns `events` and closes them."""

    def __init__(
        self, events: CommandEvents, *, shown: Shown, ping_s: float, for_s: float | None, opening: bytes
    ) -> None:
        super().__init__(ping_s=ping_s)
        self._events = events
        self._shown = shown
        self._for_s = for_s
        self._opening = opening
        # What came before the head was sent.
        self._first: deque[command_pb2.CommandEvent] = deque()
        self._heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head_waits = True
        self._beginning = asyncio.create_task(self._begin(), name="events-begin")

    @classmethod
    async def open(
        cls,
        events: CommandEvents,
        http: Request,
        *,
        shown: Shown,
        ping_s: float,
        for_s: float | None = None,
        request: ExecuteRequest | None = None,
        opening: bytes = b"",
    ) -> Self:
        """Waits for news, for a moment. Raises OpenlineError for a command that does not get as far, and CallerGone.

        `for_s` ends the stream early, without an end of the command. Of a `request` with an idempotency key it is known
        from its first event on whether the command is an earlier one's; the head says so, and waits for that. `opening`
        follows the head, whether anything is heard of the command or not.
        """
        stream = cls(events, shown=shown, ping_s=ping_s, for_s=for_s, opening=opening)
        try:
            async with while_there(http.receive):
                await asyncio.wait({stream._beginning}, timeout=HEAD_WAIT_S)
                if request is not None and request.idempotency_key:
                    await asyncio.wait({stream._beginning, stream._heard}, return_when=asyncio.FIRST_COMPLETED)
            if stream._beginning.done():
                stream._beginning.result()
                if stream._first and stream._first[-1].HasField("result"):
                    check_answerable(stream._first[-1].result)
        except BaseException:
            await stream.close()
            raise
        stream._head_waits = False
        if request is not None and (earlier := stream._earlier_than(request)):
            Exchange.of(http.scope).facts["command_id"] = earlier
            stream.headers.update(REPLAYED)
        return stream

    async def tell(self, scope: Scope, send: Send) -> None:
        try:
            async with asyncio.timeout(self._for_s), aclosing(self._all()) as events:
                if self._opening:
                    await self.say(send, self._opening)
                async for event in events:
                    await self.say(send, await self._shown.event(event, scope))
        except OpenlineError as failure:
            await self.say(send, await self._shown.failure(failure, scope))
        except TimeoutError:
            await self.say(send, TIME_IS_UP)

    async def close(self) -> None:
        self._beginning.cancel()
        await asyncio.gather(self._beginning, return_exceptions=True)
        await self._events.aclose()

    async def _begin(self) -> None:
        """Fetches events until there is news, or nobody waits for it any more."""
        async for event in self._events:
            self._first.append(event)
            if not self._heard.done():
                self._heard.set_result(None)
            if not self._head_waits or event.WhichOneof("event") != "state" or event.state not in NO_NEWS:
                return

    def _earlier_than(self, request: ExecuteRequest) -> str:
        """The id of the command that is shown, if it is not this request's; else empty."""
        for event in self._first:
            for command_id in (event.command_id, event.output.command_id, event.result.command_id):
                if command_id not in ("", request.command_id):
                    return command_id
        return ""

    async def _all(self) -> CommandEvents:
        while self._first:
            yield self._first.popleft()
        await self._beginning
        while self._first:
            yield self._first.popleft()
        async for event in self._events:
            yield event


@dataclass(frozen=True, slots=True)
class CommandShown:
    """As REST has them."""

    text: EventText
    end: End

    async def event(self, event: command_pb2.CommandEvent, scope: Scope) -> bytes:
        match event.WhichOneof("event"):
            case "output":
                return self.text.output(event.output)
            case "gap":
                return self.text.gap(event.gap)
            case "result":
                end = (await self.end(event.result)).model_dump_json().encode()
                tell_end(event.result, scope)
                return self.text.rest() + said("result", end)
            case "state":
                return self.text.status(event)
            case _:
                return b""  # of a newer version of the contract

    async def failure(self, failure: OpenlineError, scope: Scope) -> bytes:
        return self.text.rest() + said("error", bytes(problem_of(scope, failure).body))


def tell_end(result: command_pb2.CommandResult, scope: Scope) -> None:
    """For the request's log line."""
    exchange = Exchange.of(scope)
    exchange.concerns(result.command_id, result.correlation_id)
    exchange.facts["outcome"] = OUTCOME_TEXT.get(result.outcome, "unknown")
