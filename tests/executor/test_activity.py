"""Whether the cluster is in use, and the pace of heartbeats."""

import pytest

from executor.activity import LONGEST_ACTIVITY_S, Activity


def test_heartbeats_are_twice_as_fast_while_the_cluster_is_in_use() -> None:
    activity = Activity()
    assert activity.beat_s(5.0, silence_s=16.0, now=0.0) == 5.0
    assert activity.heard(60.0, 10.0)
    assert activity.beat_s(5.0, silence_s=16.0, now=69.0) == 2.5
    assert activity.beat_s(5.0, silence_s=16.0, now=70.0) == 5.0


def test_zero_is_idle_at_once() -> None:
    activity = Activity()
    activity.heard(60.0, 0.0)
    assert not activity.heard(0.0, 1.0)
    assert activity.beat_s(5.0, silence_s=16.0, now=1.0) == 5.0


@pytest.mark.parametrize("active_for_s", [float("nan"), float("inf"), -1.0, 1e300])
def test_nonsense_is_idle(active_for_s: float) -> None:
    assert not Activity().heard(active_for_s, 0.0)
    assert Activity().heard(LONGEST_ACTIVITY_S, 0.0)


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("interval_s", [0.01, 0.5, 1.0, 1.5, 5.0, 60.0])
@pytest.mark.parametrize("silence_s", [0.1, 3.0, 16.0, 300.0])
def test_never_slower_than_the_broker_bears(interval_s: float, silence_s: float, active: bool) -> None:
    """Nor slower than it asked for; and not faster than a second unless it asked for that."""
    activity = Activity()
    activity.heard(60.0 if active else 0.0, 0.0)
    beat_s = activity.beat_s(interval_s, silence_s=silence_s, now=1.0)
    assert beat_s <= interval_s
    assert beat_s <= silence_s / 2
    assert beat_s >= min(1.0, interval_s, silence_s / 2)
