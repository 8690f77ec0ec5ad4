"""openline-loadtest: reads the settings, shows progress, prints a table.

`openline-loadtest spawn` measures what starting processes costs; without a word, commands through a broker.
"""

import json
import sys

import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtest.dispatch import Figures, measure
from loadtest.settings import LoadSettings, SpawnSettings
from loadtest.spawn import WAYS, Cost, as_json, machine
from loadtest.spawn import measure as measure_spawn
from openline.logs import set_up_logs
from openline.settings import load


def main() -> None:
    if sys.argv[1:2] == ["spawn"]:
        _spawn(sys.argv[2:])
    else:
        _dispatch()


def _spawn(arguments: list[str]) -> None:
    settings = load(SpawnSettings, program="openline-loadtest spawn", arguments=arguments)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("processes", total=settings.count * len(WAYS))
        costs = measure_spawn(list(settings.command), count=settings.count, progressed=lambda: progress.advance(bar))
    if settings.json_:
        print(json.dumps(as_json(costs), indent=2))
    else:
        Console().print(_spawn_table(costs))


def _spawn_table(costs: list[Cost]) -> Table:
    table = Table(title=f"starting {costs[0].program!r}", caption=", ".join(map(str, machine().values())))
    table.add_column("way")
    for column in ("start p50 ms", "start p99 ms", "loop p50 ms", "loop p99 ms"):
        table.add_column(column, justify="right")
    for cost in costs:
        figures = (cost.start_p50_ms, cost.start_p99_ms, cost.loop_p50_ms, cost.loop_p99_ms)
        table.add_row(cost.way, *(f"{figure:.2f}" for figure in figures))
    return table


def _dispatch() -> None:
    settings = load(LoadSettings, program="openline-loadtest")
    set_up_logs("warning", settings.log_format)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("commands", total=settings.count)
        figures = uvloop.run(measure(settings, progressed=lambda: progress.advance(bar)))
    Console().print(_table(settings, figures))
    if set(figures.ends) != {"exit code 0"}:
        raise SystemExit(1)


def _table(settings: LoadSettings, figures: Figures) -> Table:
    table = Table(title=f"{settings.count} × {' '.join(settings.command)!r}, {settings.concurrency} at a time")
    for column in ("commands/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "ended"):
        table.add_column(column, justify="right")
    table.add_row(
        f"{settings.count / figures.seconds:,.1f}",
        *(f"{figures.percentile_ms(percent):.1f}" for percent in (50, 90, 99, 100)),
        ", ".join(f"{end}: {count}" for end, count in figures.ends.most_common()),
    )
    return table


if __name__ == "__main__":
    main()
