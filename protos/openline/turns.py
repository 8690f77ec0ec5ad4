"""Whom to ask next: each open pipe once a round, then a pause, until one has answered or the time is up."""

import asyncio
import random
from collections.abc import Callable, Iterator
from time import monotonic

from openline.pipe import Pipe

# A round is quickly over where every replica refuses; the pause after it is drawn from up to so long, twice as long
# after each, so that a command which every replica breaks under is not the end of them all.
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


class News:
    """Wakes whoever waits for the next pipe that opens."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Until there is news, or for so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return


class Turns:
    """The turns of one call. `open_pipes` looks them up anew, the one to prefer in front."""

    __slots__ = ("_asked", "_news", "_open_pipes", "_pause_s")

    def __init__(self, open_pipes: Callable[[], Iterator[Pipe]], news: News) -> None:
        self._open_pipes = open_pipes
        self._news = news
        # In this round.
        self._asked: list[Pipe] = []
        self._pause_s = FIRST_PAUSE_S

    async def next(self, ends_at: float) -> Pipe | None:
        """The pipe to ask now, as soon as there is one; None when it is `ends_at` of time.monotonic."""
        while (left_s := ends_at - monotonic()) > 0:
            is_any_open = False
            for pipe in self._open_pipes():
                if pipe not in self._asked:
                    self._asked.append(pipe)
                    return pipe
                is_any_open = True
            if is_any_open:
                # Cut short by a pipe that opens meanwhile: it has not been asked.
                await self._news.wait(min(left_s, random.uniform(0, self._pause_s)))  # noqa: S311  (jitter)
                self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
            else:
                await self._news.wait(left_s)
            self._asked.clear()
        return None
