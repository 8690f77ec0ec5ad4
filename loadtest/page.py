"""A report as one HTML page: nothing is loaded and nothing runs in it, so it can be kept and opened anywhere."""

import time
from collections.abc import Iterator
from html import escape

from loadtest import pictures
from loadtest.report import Measured, Report
from loadtest.tables import WORDS, Rows, ends, tables

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --faint: #667085; --rule: #e2e6ec; --paper: #fff; --card: #f7f8fa;
  --bar: #3b6fd4; --mark: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ec; --faint: #98a2b3; --rule: #2f3744; --paper: #12161d;
  --card: #1a202a; --bar: #6d9bf1; --mark: #fb923c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 66rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 2.25rem 0 .5rem; }
h3 { font-size: .95rem; margin: 0; }
p { margin: .25rem 0; }
.faint, .faint code { color: var(--faint); font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
.words { text-align: left; }
th { font-weight: 600; color: var(--faint); }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .9rem 1rem;
  margin: 1rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; font-size: .9rem; }
dt { color: var(--faint); } dd { margin: 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; margin-top: .5rem; }
svg { width: 100%; max-width: 34rem; height: auto; overflow: visible; }
svg text { fill: var(--faint); font: 10px system-ui, sans-serif; }
svg .name { fill: var(--mark); }
.axis { stroke: var(--faint); } .grid { stroke: var(--rule); }
.bar { fill: var(--bar); } .area { fill: var(--bar); opacity: .18; }
.curve { fill: none; stroke: var(--bar); stroke-width: 1.5; }
.mark { stroke: var(--mark); stroke-dasharray: 3 2; }
.failed { color: var(--mark); }
"""


def page(report: Report) -> str:
    """The whole document."""
    title = f"openline-loadtest {report.command}"
    begun = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(report.begun_at))
    parts = [
        f"<h1>{escape(title)}</h1><p class='faint'>{begun}</p>",
        *(f"<p class='failed'>Failed: {escape(failure)}</p>" for failure in report.failures),
        *(f"<p>{escape(note)}</p>" for note in report.notes),
        *map(_table, tables(report)),
        *(["<h2>Pictures</h2>"] if report.measured else []),
        *(part for each in report.measured for part in _pictures(each)),
        "<h2>Where it was measured</h2>",
        "<dl>",
        *_machine(report),
        "</dl>",
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _pictures(measured: Measured) -> Iterator[str]:
    figures = measured.figures
    yield f"<section><h3>{escape(measured.name)}</h3>"
    yield f"<p class='faint'>{figures.seconds:.1f} s, callers: {measured.callers}; {escape(ends(figures))}</p>"
    if figures.latencies.count:
        marks = {f"p{percent}": figures.latencies.percentile_s(percent) for percent in (50, 90, 99)}
        yield f"<div class='pictures'>{pictures.histogram(figures.latencies.bars(), marks)}"
        if rates := figures.timeline.rates(figures.seconds):
            yield pictures.throughput(rates)
        yield "</div>"
    yield "</section>"


def _table(rows: Rows) -> str:
    words = [' class="words"' if column in WORDS else "" for column in rows.columns]

    def row(tag: str, cells: tuple[str, ...]) -> str:
        made = (f"<{tag}{word}>{escape(cell)}</{tag}>" for cell, word in zip(cells, words, strict=True))
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(row("td", each) for each in rows.rows)
    table = f"<table><thead>{row('th', rows.columns)}</thead><tbody>{body}</tbody></table>"
    return f"<h2>{escape(rows.title)}</h2><div class='scroll'>{table}</div>"


def _machine(report: Report) -> Iterator[str]:
    for name, value in report.machine.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        yield f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(text)}</dd>"
