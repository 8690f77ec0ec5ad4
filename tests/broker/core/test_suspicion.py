"""Refused credentials: counted, held back within bounds, told of together."""

import pytest

from broker.core.suspicion import HOLD_S, MAX_HELD, MAX_RATE, TELL_EVERY_S, Kind, Suspicion


def test_each_is_counted_by_its_kind() -> None:
    refused = Suspicion()
    for kind in (Kind.API_KEY, Kind.EXECUTOR_TOKEN, Kind.API_KEY):
        refused.refuse(kind, now=0.0)
    assert refused.refused == {Kind.API_KEY: 2, Kind.EXECUTOR_TOKEN: 1}


def test_so_many_are_held_back_and_no_more() -> None:
    """What is beyond them is answered at once; places are free again when the answers have been given."""
    refused = Suspicion()
    held = [refused.refuse(Kind.API_KEY, now=10.0) for _ in range(MAX_HELD)]
    assert held[0] == HOLD_S
    assert refused.refuse(Kind.EXECUTOR_TOKEN, now=10.0) == 0.0
    assert refused.refuse(Kind.API_KEY, now=10.0 + HOLD_S / 2) == 0.0
    assert refused.refuse(Kind.API_KEY, now=10.0 + HOLD_S) > HOLD_S
    assert refused.refused[Kind.API_KEY] == MAX_HELD + 2
    after = 10.0 + held[-1] + 1.0
    assert refused.refuse(Kind.API_KEY, now=after) == HOLD_S
    assert len(refused._held_until) == 1


def test_answers_are_given_at_a_pace() -> None:
    """However many guess at one time, and each of them as soon as it has its answer."""
    refused = Suspicion()
    held = [refused.refuse(Kind.API_KEY, now=0.0) for _ in range(1_000)]
    assert held == sorted(held)
    assert held[-1] == pytest.approx(HOLD_S + 999 / MAX_RATE)
    assert refused.refuse(Kind.API_KEY, now=held[-1]) == HOLD_S


def test_they_are_told_of_together_and_rarely() -> None:
    """Each is told of once, in the first or in a later line."""
    refused = Suspicion()
    assert refused.tell(now=0.0) == {}
    refused.refuse(Kind.API_KEY, now=0.0)
    assert refused.tell(now=0.0) == {Kind.API_KEY: 1}
    for _ in range(3):
        refused.refuse(Kind.EXECUTOR_TOKEN, now=1.0)
        assert refused.tell(now=TELL_EVERY_S - 1) == {}
    refused.refuse(Kind.API_KEY, now=2.0)
    assert refused.tell(now=TELL_EVERY_S) == {Kind.API_KEY: 1, Kind.EXECUTOR_TOKEN: 3}
    assert refused.tell(now=2 * TELL_EVERY_S) == {}
