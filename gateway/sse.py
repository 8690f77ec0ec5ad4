"""A command's events over HTTP, for as long as there are events and somebody who takes them.

Until it is known that the command goes to an executor, a failure is an ordinary problem with its own status; after that
it is an `error` event.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from typing import Self

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.event_text import PING, TIME_IS_UP, EventText, said
from gateway.exchange import Exchange
from gateway.leaving import CallerGone, while_there
from gateway.problems import problem_of
from openline.errors import OpenlineError
from openline.events import CommandEvents
from openline.v1 import command_pb2

# Below the half minute after which some proxies close a silent connection.
PING_S = 15.0
# So long the answer's head waits for news of the command.
HEAD_WAIT_S = 1.0

_NO_NEWS = frozenset(
    {command_pb2.COMMAND_STATE_QUEUED, command_pb2.COMMAND_STATE_WRITTEN, command_pb2.COMMAND_STATE_FORWARDED}
)

# The body for a result; raises OpenlineError for one that is not an answer.
End = Callable[[command_pb2.CommandResult], BaseModel]


class EventStream(Response):
    """The answer to whoever accepts text/event-stream; made by `open`. It owns `events` and closes them."""

    media_type = "text/event-stream"

    def __init__(self, events: CommandEvents, *, text: EventText, end: End, ping_s: float, for_s: float | None) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events
        self._text = text
        self._end = end
        self._ping_s = ping_s
        self._for_s = for_s
        # What came before the head was sent.
        self._first: deque[command_pb2.CommandEvent] = deque()
        self._head_waits = True
        self._beginning = asyncio.create_task(self._begin(), name="events-begin")
        self._sending = False

    @classmethod
    async def open(
        cls,
        events: CommandEvents,
        http: Request,
        *,
        text: EventText,
        end: End,
        ping_s: float,
        for_s: float | None = None,
    ) -> Self:
        """Waits for news, for a moment. Raises OpenlineError for a command that does not get as far, and CallerGone.

        `for_s` ends the stream early, without an end of the command.
        """
        stream = cls(events, text=text, end=end, ping_s=ping_s, for_s=for_s)
        try:
            async with while_there(http.receive):
                await asyncio.wait({stream._beginning}, timeout=HEAD_WAIT_S)
            if stream._beginning.done():
                stream._beginning.result()
                if stream._first and stream._first[-1].HasField("result"):
                    end(stream._first[-1].result)
        except BaseException:
            await stream._close()
            raise
        stream._head_waits = False
        return stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pinging: asyncio.Task[None] | None = None
        try:
            async with while_there(receive):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                pinging = asyncio.create_task(self._ping(send), name="events-ping")
                await self._tell(scope, send)
                pinging.cancel()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except CallerGone:
            Exchange.of(scope).facts["caller_gone"] = True
        finally:
            if pinging is not None:
                pinging.cancel()
                await asyncio.gather(pinging, return_exceptions=True)
            await self._close()

    async def _begin(self) -> None:
        """Fetches events until there is news, or nobody waits for it any more."""
        async for event in self._events:
            self._first.append(event)
            if not self._head_waits or event.WhichOneof("event") != "state" or event.state not in _NO_NEWS:
                return

    async def _tell(self, scope: Scope, send: Send) -> None:
        try:
            async with asyncio.timeout(self._for_s), aclosing(self._all()) as events:
                async for event in events:
                    await self._say(send, self._rendered(event, scope))
        except OpenlineError as failure:
            problem = problem_of(scope, failure)
            await self._say(send, self._text.rest() + said("error", bytes(problem.body)))
        except TimeoutError:
            await self._say(send, TIME_IS_UP)

    async def _all(self) -> CommandEvents:
        while self._first:
            yield self._first.popleft()
        await self._beginning
        while self._first:
            yield self._first.popleft()
        async for event in self._events:
            yield event

    def _rendered(self, event: command_pb2.CommandEvent, scope: Scope) -> bytes:
        match event.WhichOneof("event"):
            case "output":
                return self._text.output(event.output)
            case "gap":
                return self._text.gap(event.gap)
            case "result":
                end = self._end(event.result).model_dump_json().encode()
                Exchange.of(scope).facts["outcome"] = command_pb2.Outcome.Name(event.result.outcome)
                return self._text.rest() + said("result", end)
            case "state":
                return self._text.status(event.state)
            case _:
                return b""  # of a newer version of the contract

    async def _say(self, send: Send, text: bytes) -> None:
        self._sending = True
        await send({"type": "http.response.body", "body": text, "more_body": True})
        self._sending = False

    async def _ping(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._ping_s)
            # Whoever does not take what is being sent needs no sign of life.
            if not self._sending:
                await send({"type": "http.response.body", "body": PING, "more_body": True})

    async def _close(self) -> None:
        self._beginning.cancel()
        await asyncio.gather(self._beginning, return_exceptions=True)
        await self._events.aclose()
