"""`openline-broker top`: the overview in a terminal, again and again, or once."""

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic

from rich.console import Console
from rich.live import Live

from broker.cli_commands import Shown, record
from broker.cli_settings import TopSettings
from broker.rates import History
from broker.rpc.operator import Operator
from broker.screen import screen
from openline.errors import OpenlineError
from openline.reasons import Reason
from openline.v1 import overview_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub

# A broker that says nothing for so long beyond an interval is frozen, or gone.
SILENCE_S = 5.0
# Each ends it with the terminal as it was before.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Lines of what is shown where nobody could scroll.
HEIGHT_ONCE = 60


async def run(given: TopSettings, operator: Operator) -> Shown | None:
    """Until Ctrl-C; once where there is no terminal, or that is asked for. Raises OpenlineError."""
    if given.as_json:
        request = pb.GetOverviewRequest(clusters=given.clusters)
        answer = await operator.ask(lambda channel: AdminServiceStub(channel).GetOverview, request)
        return Shown(record(answer.overview))
    console = Console()
    if given.once or not sys.stdout.isatty():
        await _once(given, operator, console)
    else:
        await _until_interrupted(given, operator, console)
    return None


async def _once(given: TopSettings, operator: Operator, console: Console) -> None:
    """After two looks: one has totals alone."""
    history = History()
    looks = 0
    async with aclosing(_overviews(given, operator)) as overviews:
        async for overview in overviews:
            history.take(overview, seconds=given.interval)
            looks += 1
            if looks == 2:
                console.print(screen(overview, history, width=console.width, height=HEIGHT_ONCE))
                return


async def _until_interrupted(given: TopSettings, operator: Operator, console: Console) -> None:
    drawing = asyncio.current_task()
    assert drawing is not None  # noqa: S101  (a coroutine runs in a task)
    loop = asyncio.get_running_loop()
    for signum in ENDING:
        loop.add_signal_handler(signum, drawing.cancel)
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            await _draw(given, operator, console, live)
    except asyncio.CancelledError:
        pass  # as it was asked to
    finally:
        for signum in ENDING:
            loop.remove_signal_handler(signum)


async def _draw(given: TopSettings, operator: Operator, console: Console, live: Live) -> None:
    """Goes on when the broker is restarted; a refusal is for good."""
    history = History()
    overview: pb.Overview | None = None
    last = monotonic()
    while True:
        try:
            async with aclosing(_overviews(given, operator)) as overviews:
                async for overview in overviews:
                    now = monotonic()
                    history.take(overview, seconds=now - last)
                    last = now
                    size = console.size
                    live.update(screen(overview, history, width=size.width, height=size.height), refresh=True)
        except OpenlineError as failure:
            if failure.reason is not Reason.BROKER_UNAVAILABLE or overview is None:
                raise
            size = console.size
            old = screen(overview, history, width=size.width, height=size.height, lost=failure.error.message)
            live.update(old, refresh=True)
        await asyncio.sleep(given.interval)


async def _overviews(given: TopSettings, operator: Operator) -> AsyncGenerator[pb.Overview, None]:
    request = pb.WatchOverviewRequest(interval_s=given.interval, clusters=given.clusters)
    answers = operator.watch(
        lambda channel: AdminServiceStub(channel).WatchOverview, request, silence_s=given.interval + SILENCE_S
    )
    async with aclosing(answers) as messages:
        async for message in messages:
            yield message.overview
