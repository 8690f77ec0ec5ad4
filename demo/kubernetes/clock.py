"""Moves the world along in real time, and wakes whoever waits for it to change."""

import asyncio
import time
from contextlib import suppress

from demo.kubernetes.world import World

# The world is looked at this often at most, and at least.
_SHORTEST_S, _LONGEST_S = 0.05, 1.0


class Clock:
    """The only place that knows the time. `run` is awaited by whoever owns the application."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._changed = asyncio.Event()

    def now(self) -> float:
        return time.time()

    async def run(self) -> None:
        """Lets the world go on until cancelled."""
        while True:
            revision = self._world.store.revision
            due = self._world.advance(self.now())
            if self._world.store.revision != revision:
                # Those who wait now are woken; those who come later wait for the next change.
                self._changed.set()
                self._changed = asyncio.Event()
            await asyncio.sleep(min(max(due - self.now(), _SHORTEST_S), _LONGEST_S))

    async def change(self, *, timeout_s: float) -> None:
        """Returns when the world has changed, or after that long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)
