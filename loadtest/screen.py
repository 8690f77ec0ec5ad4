"""What is on the terminal while the load runs: a progress bar with the figures so far. It goes to stderr."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from loadtest.figures import OK, Figures

REFRESH_S = 0.2


class Screen:
    """A bar for each thing that is measured, gone when it is over."""

    def __init__(self, console: Console | None = None) -> None:
        # Drawn by us, in our own loop: a thread that draws would take its time from what is measured.
        console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            auto_refresh=False,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    @contextlib.asynccontextmanager
    async def following(
        self, name: str, figures: Figures, *, seconds: float, count: int | None = None
    ) -> AsyncIterator[None]:
        """Shows what is measured in the block while it grows."""
        showing = asyncio.create_task(self._follow(name, figures, seconds, count))
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)

    async def wait(self, name: str, seconds: float) -> None:
        """Lets time pass, and shows how much."""
        bar = self._progress.add_task(name, total=seconds, said="")
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while (passed := loop.time() - began) < seconds:
                self._progress.update(bar, completed=passed)
                self._progress.refresh()
                await asyncio.sleep(min(REFRESH_S, seconds - passed))
        finally:
            self._progress.remove_task(bar)

    async def _follow(self, name: str, figures: Figures, seconds: float, count: int | None) -> None:
        bar = self._progress.add_task(name, total=1.0, said="")
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while True:
                await asyncio.sleep(REFRESH_S)
                passed = loop.time() - began
                done = max(passed / seconds, figures.count / count if count else 0.0)
                self._progress.update(bar, completed=min(done, 1.0), said=_said(figures, passed))
                self._progress.refresh()
        finally:
            self._progress.remove_task(bar)


def _said(figures: Figures, passed_s: float) -> str:
    failed = figures.count - figures.ends[OK]
    return (
        f"{figures.latencies.count / passed_s:,.0f}/s  p50 {figures.percentile_ms(50):.2f} ms"
        f"  p99 {figures.percentile_ms(99):.2f} ms" + (f"  [red]{failed:,} failed" if failed else "")
    )
