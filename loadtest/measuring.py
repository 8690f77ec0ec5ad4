"""Asking again and again, in a closed loop: each caller asks, waits for the answer, and asks again."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

from loadtest.figures import OK, Figures
from openline.reasons import Reason

# Asks for one thing and gives how that ended: `OK`, or the reason why not. Raises only what is a defect.
Ask = Callable[[], Awaitable[str]]
# How long a caller waits before it asks again, seconds.
Think = Callable[[], float]

# After a failure nobody asks again at once: a broker that refuses would only be asked to refuse faster.
PAUSE_S = 0.05
# What passes while programs get to know each other.
NOT_YET = frozenset({Reason.CLUSTER_OFFLINE, Reason.CLUSTER_UNKNOWN, Reason.BROKER_UNAVAILABLE})


class NoAnswer(Exception):
    """What was to be measured does not answer at all."""


async def measure(
    ask: Ask,
    figures: Figures,
    *,
    callers: int,
    seconds: float,
    count: int | None = None,
    think: Think | None = None,
    over: asyncio.Event | None = None,
) -> None:
    """So many callers ask for so long, and `count` times at most, or until it is `over`; what is under way then is
    waited for, since what takes longest says most.

    The figures grow meanwhile, so they are there also when this is cancelled.
    """
    began = perf_counter()
    until = began + seconds
    left = count

    async def call() -> None:
        nonlocal left
        if think is not None:  # people do not begin all at once either
            await asyncio.sleep(min(think(), seconds))
        while (asked := perf_counter()) < until and not (over is not None and over.is_set()):
            if left is not None:
                if left == 0:
                    return
                left -= 1
            end = await ask()
            answered = perf_counter()
            figures.record(end, latency_s=answered - asked, at_s=answered - began)
            if end != OK:
                await asyncio.sleep(PAUSE_S)
            if think is not None:
                await asyncio.sleep(max(0.0, min(think(), until - perf_counter())))

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(call())
    finally:
        figures.seconds = perf_counter() - began


async def until_answered(ask: Ask, *, patience_s: float = 15.0) -> None:
    """Asks until the answer is good, so that everything on the way is there and warm. Raises NoAnswer."""
    give_up = perf_counter() + patience_s
    while (end := await ask()) != OK:
        if end not in NOT_YET or perf_counter() > give_up:
            raise NoAnswer(f"the first command did not end well: {end}")
        await asyncio.sleep(PAUSE_S)
