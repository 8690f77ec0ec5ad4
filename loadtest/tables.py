"""A report as tables on a terminal."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from loadtest.figures import OK, PERCENTILES, Figures
from loadtest.report import Measured, Report

# Less CPU than this a command is the kernel's rounding, or a heartbeat.
SHOWN_US = 1.0
# Columns of text; the others are numbers.
WORDS = frozenset({"", "else", "of each process", "unit"})
# A file or a pipe has no width of its own.
WIDTH = 120


@dataclass(frozen=True, slots=True)
class Rows:
    """A table as text, for the terminal and for the page alike; the first column is the name of the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def show(report: Report) -> None:
    """Prints it to stdout."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    for rows in tables(report):
        table = Table(title=rows.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for number, column in enumerate(rows.columns):
            table.add_column(column, justify="right" if number and column not in WORDS else "left", no_wrap=not number)
        for row in rows.rows:
            table.add_row(*row)
        console.print(table)
    for note in report.notes:
        console.print(note, highlight=False, soft_wrap=True)
    for failure in report.failures:
        console.print(f"failed: {failure}", style="red", highlight=False, soft_wrap=True)


def tables(report: Report) -> Iterator[Rows]:
    """The tables that there is something in."""
    if report.measured:
        yield _latencies(report.measured)
        yield _cpu(report.measured)
    if report.facts:
        yield Rows("Figures", ("", "value", "unit"), tuple((f.name, _plain(f.value), f.unit) for f in report.facts))
    if report.ratios:
        yield _ratios(report.ratios, report.committed)


def _ratios(ratios: Mapping[str, float | None], committed: Mapping[str, float]) -> Rows:
    rows = tuple(
        (key, ratio(value), *([ratio(committed.get(key))] if committed else [])) for key, value in ratios.items()
    )
    return Rows("Ratios", ("", "now", "committed") if committed else ("", "ratio"), rows)


def ratio(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def ends(figures: Figures) -> str:
    """How the commands ended, the most frequent first."""
    return ", ".join(f"{end}: {count:,}" for end, count in figures.ends.most_common())


def _latencies(measured: Sequence[Measured]) -> Rows:
    columns = ("callers", "good", "per s", *("max ms" if p == 100 else f"p{p} ms" for p in PERCENTILES), "else")
    rows = tuple(
        (
            each.name,
            str(each.callers),
            f"{each.figures.ends[OK]:,}",
            f"{each.figures.rate:,.0f}",
            *(_milliseconds(each.figures.percentile_ms(percent)) for percent in PERCENTILES),
            ends(each.figures).replace(f"{OK}: {each.figures.ends[OK]:,}", "").strip(", "),
        )
        for each in measured
    )
    return Rows("Commands, and how long they took", ("", *columns), rows)


def _cpu(measured: Sequence[Measured]) -> Rows:
    """One column for all processes: which they are depends on the contender."""
    rows = []
    for each in measured:
        if not (used := {name: us for name, us in each.cpu_us.items() if us >= SHOWN_US}):
            continue
        parts = ", ".join(f"{name} {us:,.0f}" for name, us in used.items())
        rows.append((each.name, f"{sum(used.values()):,.0f}", parts))
    return Rows("CPU for each command, µs", ("", "together", "of each process"), tuple(rows))


def _milliseconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.2f}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
