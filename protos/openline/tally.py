"""Counting on a busy path: a histogram that costs one bisection a value. Pure; what shows it is in `exposition`."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

# From a frame on the loopback to a command that takes its longest usual time.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """How many values were at most each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def __repr__(self) -> str:
        return f"<Histogram n={sum(self._counts)} total={self.total:g}>"

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    @property
    def bounds(self) -> Sequence[float]:
        return self._bounds

    @property
    def counts(self) -> Sequence[int]:
        """How many values were at most each bound, and above the one before; the last is of those above all."""
        return self._counts

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Each bound and how many values were not above it; the last is `+Inf` and counts all."""
        return zip([*map(str, self._bounds), "+Inf"], accumulate(self._counts), strict=True)
