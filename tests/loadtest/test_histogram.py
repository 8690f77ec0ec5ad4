"""Latencies in buckets, held against the exact ones."""

import itertools
import math
import random

import pytest

from loadtest.histogram import Histogram


def recorded(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def exact(values: list[float], percent: float) -> float:
    """Nearest rank."""
    return sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]


@pytest.mark.parametrize("count", [1, 2, 3, 100, 5000])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_percentiles_are_within_half_a_percent_of_the_exact_ones(count: int, seed: int) -> None:
    """Whatever the durations are, from microseconds to minutes."""
    chance = random.Random(seed)
    values = [10 ** chance.uniform(-5.9, 2) for _ in range(count)]
    histogram = recorded(values)
    for percent in (1, 50, 90, 99, 99.9):
        assert histogram.percentile_s(percent) == pytest.approx(exact(values, percent), rel=0.0051)


def test_the_largest_and_the_smallest_are_exact() -> None:
    """Also where they are out of all bounds."""
    histogram = recorded([1e-9, 0.0123456, 1e6])
    assert (histogram.smallest_s, histogram.percentile_s(100)) == (1e-9, 1e6)


def test_a_single_value_is_every_percentile() -> None:
    """And exactly that."""
    assert {recorded([0.0123]).percentile_s(percent) for percent in (1, 50, 100)} == {0.0123}


def test_nothing_has_no_percentile() -> None:
    """It is not zero."""
    assert math.isnan(Histogram().percentile_s(50))
    assert Histogram().bars() == []


def test_memory_is_bounded() -> None:
    """A hundred thousand different durations are some hundreds of numbers."""
    chance = random.Random(1)
    histogram = recorded([10 ** chance.uniform(-9, 9) for _ in range(100_000)])
    assert len(histogram._counts) < 2600


def test_two_together_are_as_one_that_has_seen_all() -> None:
    """So turns can be added up."""
    chance = random.Random(1)
    first, second = ([chance.expovariate(100) for _ in range(500)] for _ in range(2))
    together = recorded(first)
    together.merge(recorded(second))
    alone = recorded(first + second)
    assert together.count == alone.count
    assert [together.percentile_s(p) for p in (1, 50, 99, 100)] == [alone.percentile_s(p) for p in (1, 50, 99, 100)]


def test_bars_lie_side_by_side_and_count_everything() -> None:
    """Also those in which there is nothing."""
    bars = recorded([0.001, 0.0011, 0.1]).bars()
    assert sum(count for *_, count in bars) == 3
    assert all(left[1] == pytest.approx(right[0]) for left, right in itertools.pairwise(bars))
    assert bars[0][0] <= 0.001 < bars[0][1]
    assert bars[-1][0] <= 0.1 < bars[-1][1] * 1.01
