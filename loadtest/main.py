"""openline-loadtest: reads the settings, shows progress, prints a table."""

import uvloop
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtest.dispatch import Figures, measure
from loadtest.settings import LoadSettings
from openline.logs import set_up_logs
from openline.settings import load


def main() -> None:
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
