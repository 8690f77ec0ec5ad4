"""Latencies in bounded memory: counts in buckets of one percent, however many are recorded and for however long."""

import math
from collections import Counter

GROWTH = 1.01
# Below a microsecond nothing is told apart; the buckets from there to a day are 2,500.
SMALLEST_S = 1e-6
LARGEST_S = 86_400.0
_SCALE = 1 / math.log(GROWTH)


class Histogram:
    """How often which duration was seen. Smallest and largest are exact, percentiles within half a percent."""

    def __init__(self) -> None:
        self.count = 0
        self.smallest_s = math.inf
        self.largest_s = 0.0
        self._counts: Counter[int] = Counter()

    def record(self, seconds: float) -> None:
        self.count += 1
        self.smallest_s = min(self.smallest_s, seconds)
        self.largest_s = max(self.largest_s, seconds)
        bounded = min(max(seconds, SMALLEST_S), LARGEST_S)
        self._counts[int(math.log(bounded / SMALLEST_S) * _SCALE)] += 1

    def percentile_s(self, percent: float) -> float:
        """Nearest rank, 0 < percent ≤ 100; NaN when nothing was recorded."""
        if not self.count:
            return math.nan
        rank = max(1, math.ceil(self.count * percent / 100))
        if rank == self.count:
            return self.largest_s
        seen = 0
        for index, count in sorted(self._counts.items()):
            seen += count
            if seen >= rank:
                middle = SMALLEST_S * math.pow(GROWTH, index + 0.5)
                return min(max(middle, self.smallest_s), self.largest_s)
        raise AssertionError("the counts add up to `count`")

    def merge(self, other: "Histogram") -> None:
        """Adds what another one has recorded."""
        self.count += other.count
        self.smallest_s = min(self.smallest_s, other.smallest_s)
        self.largest_s = max(self.largest_s, other.largest_s)
        self._counts.update(other._counts)

    def bars(self, per_decade: int = 20) -> list[tuple[float, float, int]]:
        """Coarser buckets to draw, `(from_s, to_s, count)`, without gaps from the first to the last that has any."""
        if not self.count:
            return []
        coarse: Counter[int] = Counter()
        for index, count in self._counts.items():
            coarse[math.floor(math.log10(GROWTH ** (index + 0.5)) * per_decade)] += count
        return [
            (SMALLEST_S * 10 ** (step / per_decade), SMALLEST_S * 10 ** ((step + 1) / per_decade), coarse[step])
            for step in range(min(coarse), max(coarse) + 1)
        ]
