"""Measures one thing after the other, shows it while it runs, and writes it down."""

import asyncio
import os
from collections.abc import Mapping

from loadtest.measuring import Ask, Think, measure, until_answered
from loadtest.processes import Processes, used_us
from loadtest.report import Measured, Report
from loadtest.screen import Screen

CALLER = "caller"
# So many are asked before anything counts: caches fill, and the first command of a cluster wakes it up.
WARM_UP = 20


async def warm_up(ask: Ask) -> None:
    """Raises NoAnswer when even the first command does not end well."""
    await until_answered(ask)
    for _ in range(WARM_UP):
        await ask()


class Bench:
    """What a command of the load test measures with."""

    def __init__(self, report: Report, screen: Screen) -> None:
        self.report = report
        self.screen = screen

    async def measure(
        self,
        name: str,
        ask: Ask,
        *,
        pids: Mapping[str, int],
        callers: int,
        seconds: float,
        count: int | None = None,
        think: Think | None = None,
        allowed: frozenset[str] = frozenset(),
        warm: Ask | None = None,
        over: asyncio.Event | None = None,
    ) -> Measured:
        """Warms up, measures, and adds it to the report.

        `pids` are the processes whose CPU time is wanted, `allowed` is how commands may end besides `OK`, `warm` is
        what to warm up with, where that is something else, and `over` ends it before its time.

        Raises NoAnswer when even the first command does not end well.
        """
        await warm_up(warm or ask)
        measured = Measured(name, callers, allowed=allowed)
        self.report.measured.append(measured)
        processes = Processes({**pids, CALLER: os.getpid()})
        before = processes.cpu_s()
        try:
            async with self.screen.following(name, measured.figures, seconds=seconds, count=count):
                await measure(
                    ask, measured.figures, callers=callers, seconds=seconds, count=count, think=think, over=over
                )
        finally:
            measured.cpu_us = used_us(before, processes.cpu_s(), measured.figures.count)
        return measured
