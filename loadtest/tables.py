"""A report as tables on a terminal."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from loadtest.figures import PERCENTILES, Figures
from loadtest.report import Measured, Report

# Less CPU than this a command is the kernel's rounding, or a heartbeat.
SHOWN_US = 1.0


@dataclass(frozen=True, slots=True)
class Rows:
    """A table as text, for the terminal and for the page alike; the first column is the name of the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def show(report: Report, console: Console) -> None:
    for rows in tables(report):
        table = Table(title=rows.title, title_justify="left", title_style="bold")
        for number, column in enumerate(rows.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=not number)
        for row in rows.rows:
            table.add_row(*row)
        console.print(table)
    for note in report.notes:
        console.print(note, highlight=False)
    for failure in report.failures:
        console.print(f"failed: {failure}", style="red", highlight=False)


def tables(report: Report) -> Iterator[Rows]:
    """The tables that there is something in."""
    if report.measured:
        yield _latencies(report.measured)
        processes = list(dict.fromkeys(name for each in report.measured for name in _using(each)))
        yield Rows(
            "CPU per command, µs",
            ("", *processes),
            tuple(
                (each.name, *(_number(_using(each).get(name, 0.0)) for name in processes)) for each in report.measured
            ),
        )
    if report.facts:
        yield Rows("Figures", ("", "value", "unit"), tuple((f.name, _plain(f.value), f.unit) for f in report.facts))
    if report.ratios:
        yield Rows("Ratios", ("", "ratio"), tuple((key, ratio(value)) for key, value in report.ratios.items()))


def ratio(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def ends(figures: Figures) -> str:
    """How the commands ended, the most frequent first."""
    return ", ".join(f"{end}: {count:,}" for end, count in figures.ends.most_common())


def _latencies(measured: Sequence[Measured]) -> Rows:
    columns = ("callers", "commands/s", *("max ms" if p == 100 else f"p{p} ms" for p in PERCENTILES), "ended")
    rows = tuple(
        (
            each.name,
            str(each.callers),
            f"{each.figures.rate:,.0f}",
            *(_milliseconds(each.figures.percentile_ms(percent)) for percent in PERCENTILES),
            ends(each.figures),
        )
        for each in measured
    )
    return Rows("Latency and throughput", ("", *columns), rows)


def _using(measured: Measured) -> dict[str, float]:
    return {name: us for name, us in measured.cpu_us.items() if us >= SHOWN_US}


def _milliseconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.2f}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value else "–"
