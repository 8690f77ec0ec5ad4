"""Callers that go away: whatever runs for one of them is cancelled, which abandons its call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive


class CallerGone(Exception):
    """The caller left before its answer."""


@asynccontextmanager
async def while_there(receive: Receive) -> AsyncIterator[None]:
    """Cancels what runs inside when the client closes its connection, and raises CallerGone then.

    `receive` is the request's own, after its body has been read.
    """
    scope = asyncio.timeout(None)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.reschedule(asyncio.get_running_loop().time())

    watching: asyncio.Task[None] | None = None
    try:
        async with scope:
            watching = asyncio.create_task(watch(), name="caller-watch")
            yield
    except TimeoutError:
        if scope.expired():
            raise CallerGone from None
        raise
    finally:
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
