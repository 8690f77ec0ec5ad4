"""Server-Sent Events over HTTP, for as long as there are some and somebody who takes them.

What is told is for whoever makes such an answer to say; here is when the client is pinged, and that it is noticed when
it leaves.
"""

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.event_text import PING
from gateway.exchange import Exchange
from gateway.leaving import CallerGone, while_there

# Below the half minute after which some proxies close a silent connection.
PING_S = 15.0


class EventStream(Response):
    """The answer to whoever accepts text/event-stream. It ends when `tell` does, or when the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, *, ping_s: float) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._ping_s = ping_s
        self._sending = False

    async def tell(self, scope: Scope, send: Send) -> None:
        """Says everything there is to say, each by `say`; cancelled when the client leaves."""
        raise NotImplementedError

    async def close(self) -> None:
        """Lets go of what the answer was made from; always called, also when nothing was told."""

    async def say(self, send: Send, text: bytes) -> None:
        self._sending = True
        await send({"type": "http.response.body", "body": text, "more_body": True})
        self._sending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pinging: asyncio.Task[None] | None = None
        try:
            async with while_there(receive):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                pinging = asyncio.create_task(self._ping(send), name="events-ping")
                await self.tell(scope, send)
                pinging.cancel()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except CallerGone:
            Exchange.of(scope).facts["caller_gone"] = True
        finally:
            if pinging is not None:
                pinging.cancel()
                await asyncio.gather(pinging, return_exceptions=True)
            await self.close()

    async def _ping(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._ping_s)
            # Whoever does not take what is being sent needs no sign of life.
            if not self._sending:
                await send({"type": "http.response.body", "body": PING, "more_body": True})
