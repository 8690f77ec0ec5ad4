"""Commands over a Pipe, a bounded number at a time, and what came of them."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

from loadtest.settings import LoadSettings
from openline.errors import OpenlineError
from openline.ids import new_id
from openline.pipes import Pipes
from openline.v1 import command_pb2, command_service_pb2


@dataclass(slots=True)
class Figures:
    """What was measured: latencies of those answered, and how each ended."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)

    def percentile_ms(self, percent: float) -> float:
        """Nearest rank; NaN when nothing was answered."""
        ordered = sorted(self.latencies_s)
        if not ordered:
            return float("nan")
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


async def measure(settings: LoadSettings, *, progressed: Callable[[], None]) -> Figures:
    """Runs the load; `progressed` is called after each command."""
    figures = Figures()
    left = settings.count

    async def ask_in_turn(pipes: Pipes) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            started = perf_counter()
            figures.ends[await _ask(pipes, settings)] += 1
            figures.latencies_s.append(perf_counter() - started)
            progressed()

    async with Pipes(settings.broker, client="openline-loadtest") as pipes:
        # The first one opens the pipe and warms the executor up; it is not counted.
        await _ask(pipes, settings)
        started = perf_counter()
        async with asyncio.TaskGroup() as callers:
            for _ in range(min(settings.concurrency, settings.count)):
                callers.create_task(ask_in_turn(pipes))
        figures.seconds = perf_counter() - started
    return figures


async def _ask(pipes: Pipes, settings: LoadSettings) -> str:
    """How one command ended: its exit code, its outcome, or the reason why it did not run."""
    request = command_service_pb2.ExecuteRequest(
        cluster_id=settings.cluster_id,
        argv=settings.command,
        timeout_s=settings.timeout,
        command_id=new_id(),
        correlation_id="openline-loadtest",
    )
    try:
        answer = await pipes.execute(
            request, api_key=settings.api_key.get_secret_value(), timeout_s=settings.timeout + 1
        )
    except OpenlineError as failure:
        return failure.reason
    if answer.result.outcome == command_pb2.OUTCOME_EXITED:
        return f"exit code {answer.result.exit_code}"
    return answer.result.error.reason
