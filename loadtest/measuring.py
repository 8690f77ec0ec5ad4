"""Asking again and again, in a closed loop: how long each answer took, how many came in a second."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

Ask = Callable[[], Awaitable[object]]


async def one_by_one(ask: Ask, *, seconds: float) -> list[float]:
    """Asks, waits for the answer, asks again, for so long; gives how long each took, in seconds."""
    latencies: list[float] = []
    until = perf_counter() + seconds
    while (began := perf_counter()) < until:
        await ask()
        latencies.append(perf_counter() - began)
    return latencies


async def at_a_time(ask: Ask, *, callers: int, seconds: float) -> float:
    """So many callers do the same at once; gives the answers in a second, without those that came too late."""
    answered = 0
    began = perf_counter()
    until = began + seconds

    async def call() -> None:
        nonlocal answered
        while perf_counter() < until:
            await ask()
            answered += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(call())
    return answered / (perf_counter() - began)
