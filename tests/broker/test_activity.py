"""Which clusters are in use, and for how long."""

from typing import Any

from broker.activity import Activity


class Nothing:
    def mark_active(self, *_: Any, **__: Any) -> None:
        pass


def test_rounding_makes_no_cluster_active_for_longer_than_a_minute() -> None:
    """At an instant at which adding the minute and taking it off again is a little more than it."""
    activity = Activity(Nothing())  # type: ignore[arg-type]
    now = next(n / 10 for n in range(1, 10_000) if n / 10 + 60 - n / 10 > 60)
    activity.mark("prod", now=now)
    assert activity.left_s("prod", now=now) == 60
