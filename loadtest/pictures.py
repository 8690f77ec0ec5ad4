"""Two pictures as SVG: a histogram of latencies over a logarithmic axis, and throughput over time.

Colours are classes, which the page's style gives for light and dark.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape

WIDTH, HEIGHT = 460, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 42, 24
INNER_WIDTH, INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
BASE = TOP + INNER_HEIGHT
MAX_TICKS = 9


def histogram(bars: Sequence[tuple[float, float, int]], marks_s: dict[str, float]) -> str:
    """Bars `(from_s, to_s, count)` as high as their counts, and vertical marks with their names, as of percentiles."""
    ticks = _ticks_s(bars[0][0], bars[-1][1])
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    most = max(count for *_, count in bars)

    def across(seconds: float) -> float:
        return LEFT + INNER_WIDTH * (math.log10(seconds) - low) / (high - low)

    parts = [*_grid_up(most, "commands")]
    for seconds in ticks:
        parts += _tick(across(seconds), _duration(seconds))
    for begins, ends, count in bars:
        if count:
            tall = INNER_HEIGHT * count / most
            parts.append(
                f'<rect class="bar" x="{across(begins):.1f}" y="{BASE - tall:.1f}" '
                f'width="{max(1.0, across(ends) - across(begins) - 0.6):.1f}" height="{tall:.1f}">'
                f"<title>{_duration(begins)} to {_duration(ends)}: {count:,}</title></rect>"
            )
    for number, (name, seconds) in enumerate(marks_s.items()):
        # Each begins at its own height above the bars, so that no line goes through another one's name.
        x, y = across(seconds), 8 + 12 * number
        anchor, shift = ("end", -3) if x > WIDTH - 90 else ("start", 3)
        parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" y2="{BASE}"/>'
            f'<text class="name" x="{x + shift:.1f}" y="{y}" text-anchor="{anchor}">'
            f"{escape(name)} {_duration(seconds)}</text>"
        )
    return _picture("Latency: how many commands took how long", parts)


def throughput(rates: Sequence[tuple[float, float]]) -> str:
    """Commands in a second over the seconds since the beginning, `(at_s, per_second)` for steps of equal width."""
    most = max((rate for _, rate in rates), default=0.0) or 1.0
    width_s = rates[1][0] - rates[0][0] if len(rates) > 1 else 1.0
    until_s = rates[-1][0] + width_s
    parts = [*_grid_up(most, "commands/s")]
    for step in _round_steps(until_s, 6):
        parts += _tick(LEFT + INNER_WIDTH * step / until_s, f"{step:g} s")
    points: list[str] = []
    for at_s, rate in rates:
        y = BASE - INNER_HEIGHT * rate / most
        points += [f"{LEFT + INNER_WIDTH * x / until_s:.1f},{y:.1f}" for x in (at_s, at_s + width_s)]
    area = " ".join([f"{LEFT},{BASE}", *points, f"{LEFT + INNER_WIDTH},{BASE}"])
    parts.append(f'<polygon class="area" points="{area}"/><polyline class="curve" points="{" ".join(points)}"/>')
    return _picture("Throughput over time", parts)


def _picture(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{BASE}" y2="{BASE}"/>{"".join(parts)}</svg>'
    )


def _grid_up(most: float, unit: str) -> Iterator[str]:
    for step in _round_steps(most, 4):
        y = BASE - INNER_HEIGHT * step / most
        if step:
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_short(step)}</text>'
    yield f'<text transform="translate(10 {TOP + INNER_HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">{unit}</text>'


def _tick(x: float, text: str) -> Iterator[str]:
    yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{BASE}" y2="{BASE + 4}"/>'
    yield f'<text x="{x:.1f}" y="{BASE + 16}" text-anchor="middle">{text}</text>'


def _ticks_s(smallest: float, largest: float) -> list[float]:
    """From below to above both: 1, 2 and 5 times powers of ten, or powers of ten alone where those would be many."""
    fine, coarse = (_steps_around(smallest, largest, factors) for factors in ((1, 2, 5), (1,)))
    return fine if len(fine) <= MAX_TICKS else coarse


def _steps_around(smallest: float, largest: float, factors: Sequence[int]) -> list[float]:
    powers = range(math.floor(math.log10(smallest)) - 1, math.ceil(math.log10(largest)) + 2)
    steps = [factor * 10.0**power for power in powers for factor in factors]
    first = max(index for index, step in enumerate(steps) if step <= smallest * 1.001)
    last = min(index for index, step in enumerate(steps) if step >= largest * 0.999)
    return steps[first : last + 1]


def _round_steps(most: float, about: int) -> list[float]:
    """From 0 up to `most`, in steps of 1, 2 or 5 times a power of ten."""
    rough = most / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [step * number for number in range(int(most / step + 1e-9) + 1)]


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size * 0.9999:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _short(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
