"""How long to wait before dialing again."""

import pytest

from executor.pace import Pace
from openline import limits
from openline.v1 import executor_service_pb2 as wire


def test_the_bound_doubles_up_to_the_longest_and_starts_anew() -> None:
    """Failures double the bound; a connection that lived longer than the bound resets it."""
    pace = Pace()
    pace.follow(wire.ReconnectPolicy(min_s=0.5, max_s=3.0))
    assert [pace.lost(0.0, 1.0) for _ in range(5)] == [limits.RECONNECT_MIN_S, 0.5, 1.0, 2.0, 3.0]
    assert pace.lost(3.5, 1.0) == 0.5


def test_a_connection_that_breaks_at_once_does_not_start_anew() -> None:
    """A broker that takes Hello and then breaks off is dialed less and less often."""
    pace = Pace()
    waits = [pace.lost(0.05, 1.0) for _ in range(10)]
    assert waits == sorted(waits)
    assert waits[-1] == limits.RECONNECT_MAX_S


def test_while_a_command_waits_for_it_the_line_is_dialed_often() -> None:
    """Within a broker's grace; the bound grows beside that, for when nothing waits any more."""
    pace = Pace()
    waits = [pace.lost(0.0, 1.0, urgent=True) for _ in range(10)]
    assert max(waits) == 1.0
    assert pace.lost(0.0, 1.0) == limits.RECONNECT_MAX_S


@pytest.mark.parametrize("chance", [0.0, 0.25, 1.0])
def test_the_whole_interval_is_random(chance: float) -> None:
    assert Pace().lost(0.0, chance) == chance * limits.RECONNECT_MIN_S


def test_a_refusal_is_never_answered_at_once() -> None:
    pace = Pace(refused_s=10.0)
    assert (pace.refused(0.0), pace.refused(1.0)) == (5.0, 10.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e9, float("inf"), float("nan")])
def test_no_policy_of_a_broker_makes_it_busy_or_idle(seconds: float) -> None:
    """What makes no sense leaves the defaults."""
    pace = Pace()
    pace.follow(wire.ReconnectPolicy(min_s=seconds, max_s=seconds))
    assert [pace.lost(100.0, 1.0) for _ in range(2)] == [limits.RECONNECT_MIN_S] * 2
