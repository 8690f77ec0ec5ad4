"""Tasks that ask Redis can be stopped, in whatever moment."""

import asyncio
from typing import Any

from broker.store.client import ask, open_redis
from broker.store.embedded import embedded_valkey


async def test_a_cancel_is_never_swallowed() -> None:
    """Also one that comes while the question is sent."""
    async with embedded_valkey(None) as url:
        client: Any = open_redis(url)
        await ask(client, ("PING",))
        swallowed = 0
        for turns in range(600):
            asking = asyncio.create_task(ask(client, ("PING",)))
            for _ in range(turns % 12):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            swallowed += asking.cancelling() > 0 and not asking.cancelled()
        await client.aclose()
    assert swallowed == 0
