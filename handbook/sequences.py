"""Draws a sequence diagram of a page as SVG while the site is built.

The text is Mermaid's, so GitHub draws it too. It is a small part of Mermaid, and what is not in it is refused: a title
(`accTitle`), `participant … as …`, messages (`->>` asked, `-->>` answered, `-x` lost), and `Note over`. The site has no
script for it, and the colours are those of the page, light or dark.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from pymdownx.superfences import SuperFencesException

PARTICIPANT = re.compile(r"participant (\w+) as (.+)")
MESSAGE = re.compile(r"(\w+)(->>|-->>|-x)(\w+): (.+)")
NOTE = re.compile(r"Note over (\w+)(?:,(\w+))?: (.+)")
TITLE = re.compile(r"accTitle: (.+)")
BREAK = "<br/>"
# In Mermaid these end a line, or begin an entity.
NOT_IN_TEXT = re.compile("[;#]")

# Pixels. A character is as wide as it may get in the fonts that are around, so words never meet.
CHARACTER = 7.0
LINE = 17
PADDING = 12
HEAD = 32
LEAST_BETWEEN = 110
LOOP = 24
# A wider diagram may be drawn as small as this, where there is not the room.
READABLE = 620


class NotASequence(ValueError):
    """The text is not a diagram that is drawn here."""


@dataclass(frozen=True, slots=True)
class Message:
    """An arrow from one participant to another, or back to the same."""

    source: int
    target: int
    arrow: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """Words over one participant, or over all from the first to the last."""

    first: int
    last: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Diagram:
    """A diagram as it is read: who takes part, from left to right, and what happens, from top to bottom."""

    title: str
    names: tuple[str, ...]
    steps: tuple[Message | Note, ...]


def fence(source: str, language: str, css_class: str, options: Mapping[str, Any], md: Any, **_: Any) -> str:
    """As SuperFences asks for it; a diagram that cannot be drawn ends the build."""
    try:
        return draw(read(source))
    except NotASequence as problem:
        raise SuperFencesException(f"{problem}") from problem


def read(source: str) -> Diagram:
    """Raises NotASequence."""
    head, *rest = [line.strip() for line in source.strip().splitlines() if line.strip()] or [""]
    if head != "sequenceDiagram":
        raise NotASequence(f"a diagram begins with 'sequenceDiagram', not with {head!r}")
    title = ""
    names: dict[str, str] = {}
    steps: list[Message | Note] = []

    def place(name: str) -> int:
        if name not in names:
            raise NotASequence(f"no participant is called {name!r}")
        return list(names).index(name)

    for line in rest:
        if NOT_IN_TEXT.search(line):
            raise NotASequence(f"';' and '#' mean something else in Mermaid: {line!r}")
        if found := TITLE.fullmatch(line):
            title = found[1]
        elif found := PARTICIPANT.fullmatch(line):
            names[found[1]] = found[2]
        elif found := MESSAGE.fullmatch(line):
            steps.append(Message(place(found[1]), place(found[3]), found[2], tuple(found[4].split(BREAK))))
        elif found := NOTE.fullmatch(line):
            ends = sorted((place(found[1]), place(found[2] or found[1])))
            steps.append(Note(ends[0], ends[1], tuple(found[3].split(BREAK))))
        else:
            raise NotASequence(f"not understood: {line!r}")
    if not title or not steps:
        raise NotASequence("a diagram has an accTitle, for those who cannot see it, and a message")
    return Diagram(title, tuple(names.values()), tuple(steps))


def draw(diagram: Diagram) -> str:
    """The diagram as an SVG element. Its classes are coloured by `docs/assets/site.css`."""
    places, width = _columns(diagram)
    parts: list[str] = []
    y = HEAD + PADDING
    for step in diagram.steps:
        if isinstance(step, Note):
            parts += _note(step, places, y)
            y += LINE * len(step.lines) + 2 * PADDING
        else:
            y += LINE * len(step.lines)
            parts += _message(step, places, y)
            y += LOOP if step.source == step.target else PADDING
    height = y + PADDING
    heads: list[str] = []
    for name, x in zip(diagram.names, places, strict=True):
        half = _width((name,)) / 2 + PADDING
        heads.append(f'<line class="life" x1="{x:g}" y1="{HEAD}" x2="{x:g}" y2="{height}"/>')
        heads.append(f'<rect class="head" x="{x - half:g}" y="1" width="{2 * half:g}" height="{HEAD - 2}" rx="4"/>')
        heads += _words((name,), x, HEAD / 2 + 5, anchor="middle")
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return (
        f'<div class="sequence"><svg role="img" {size} style="min-width: {min(width, READABLE):g}px">'
        f"<title>{escape(diagram.title)}</title>{''.join(heads)}{''.join(parts)}</svg></div>"
    )


def _columns(diagram: Diagram) -> tuple[list[float], float]:
    """Where each participant's line is, and how wide the whole is."""
    names = diagram.names
    halves = [_width((name,)) / 2 + PADDING for name in names]
    gaps = [max(LEAST_BETWEEN, a + b + PADDING) for a, b in pairwise(halves)]
    left, right = halves[0] + 1, halves[-1] + 1
    for first, last, needed in sorted(_needs(diagram), key=lambda need: need[1] - need[0]):
        if first < 0:
            left = max(left, needed)
        elif last >= len(names):
            right = max(right, needed)
        elif (missing := needed - sum(gaps[first:last])) > 0:
            gaps[last - 1] += missing
    places = [left]
    for gap in gaps:
        places.append(places[-1] + gap)
    return places, places[-1] + right


def _needs(diagram: Diagram) -> Iterator[tuple[int, int, float]]:
    """How far two lines must be from each other, or the outer ones from the edge (-1, and the number of lines)."""
    for step in diagram.steps:
        width = _width(step.lines) + 2 * PADDING
        if isinstance(step, Note):
            if step.first < step.last:
                yield step.first, step.last, width - 2 * PADDING
            else:
                yield step.first - 1, step.first, width / 2 + PADDING
                yield step.first, step.first + 1, width / 2 + PADDING
        elif step.source == step.target:
            yield step.source, step.source + 1, width + LOOP
        else:
            first, last = sorted((step.source, step.target))
            yield first, last, width


def _message(message: Message, places: list[float], y: float) -> list[str]:
    """The words end above `y`, where the arrow is."""
    source, target = places[message.source], places[message.target]
    kind = {"->>": "asked", "-->>": "answered", "-x": "lost"}[message.arrow]
    if message.source == message.target:
        loop = f"M{source:g} {y - 8:g} h{LOOP - 6} v{LINE} h{8 - LOOP}"
        return [
            f'<path class="{kind}" d="{loop}"/>',
            _tip(source, y - 8 + LINE, forward=False),
            *_words(message.lines, source + LOOP, y - LINE * (len(message.lines) - 1), anchor="start"),
        ]
    forward = target > source
    end = (source + target) / 2 if kind == "lost" else target
    middle = (source + target) / 2
    mark = _cross(end, y) if kind == "lost" else _tip(target, y, forward=forward)
    return [
        f'<line class="{kind}" x1="{source:g}" y1="{y:g}" x2="{end:g}" y2="{y:g}"/>',
        mark,
        *_words(message.lines, middle, y - 6 - LINE * (len(message.lines) - 1), anchor="middle"),
    ]


def _note(note: Note, places: list[float], y: float) -> list[str]:
    width = _width(note.lines) + 2 * PADDING
    start, end = places[note.first], places[note.last]
    middle = (start + end) / 2
    half = max(width, end - start + 2 * PADDING) / 2 if note.last > note.first else width / 2
    height = LINE * len(note.lines) + 8
    return [
        f'<rect class="note" x="{middle - half:g}" y="{y:g}" width="{2 * half:g}" height="{height:g}" rx="4"/>',
        *_words(note.lines, middle, y + LINE, anchor="middle"),
    ]


def _words(lines: tuple[str, ...], x: float, y: float, *, anchor: str) -> list[str]:
    return [
        f'<text x="{x:g}" y="{y + LINE * row:g}" text-anchor="{anchor}">{escape(line)}</text>'
        for row, line in enumerate(lines)
    ]


def _tip(x: float, y: float, *, forward: bool) -> str:
    back = -8 if forward else 8
    return f'<path class="tip" d="M{x:g} {y:g} l{back} -4 v8 z"/>'


def _cross(x: float, y: float) -> str:
    return f'<path class="lost" d="M{x - 5:g} {y - 5:g} l10 10 m0 -10 l-10 10"/>'


def _width(lines: tuple[str, ...]) -> float:
    return max(map(len, lines)) * CHARACTER
