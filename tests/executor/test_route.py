"""Which broker is dialed next, and after how long."""

import random
from collections import Counter

import pytest

from executor.pace import Pace
from executor.route import HOP_S, Route
from openline import limits
from openline.settings import Address

A, B, C = (Address(f"broker-{name}:1") for name in "abc")
LONG_S = 60.0


def ended(
    route: Route,
    lived_s: float = 0.0,
    *,
    moved: bool = False,
    refused: bool = False,
    urgent: bool = False,
    chance: float = 1.0,
) -> tuple[float, Address]:
    """The wait, and who is dialed after it."""
    wait_s = route.ended(lived_s, moved=moved, refused=refused, urgent=urgent, chance=chance)
    return wait_s, route.address


def test_an_address_that_failed_is_followed_by_the_next() -> None:
    """Moments apart within a round; the growing bound is for whole rounds."""
    route = Route([A, B, C], Pace())
    assert route.address == A
    assert [ended(route) for _ in range(9)] == [
        *((HOP_S, B), (HOP_S, C), (limits.RECONNECT_MIN_S, A)),
        *((HOP_S, B), (HOP_S, C), (limits.RECONNECT_MIN_S * 2, A)),
        *((HOP_S, B), (HOP_S, C), (limits.RECONNECT_MIN_S * 4, A)),
    ]


def test_a_good_connection_that_breaks_begins_a_round() -> None:
    """All others are tried before the one that broke, wherever in a round it was found."""
    route = Route([A, B, C], Pace())
    ended(route)
    ended(route)  # C is the last of its round
    assert [ended(route, LONG_S), ended(route), ended(route)] == [
        (HOP_S, A),
        (HOP_S, B),
        (limits.RECONNECT_MIN_S, C),
    ]


def test_a_move_goes_on_to_the_next_at_once() -> None:
    route = Route([A, B], Pace())
    assert route.following == B
    assert ended(route, LONG_S, moved=True) == (0.0, B)
    assert ended(route, LONG_S, moved=True) == (0.0, A)


def test_after_a_move_the_one_that_was_left_comes_last() -> None:
    route = Route([A, B, C], Pace())
    assert [ended(route, LONG_S, moved=True)[1], ended(route)[1], ended(route)[1]] == [B, C, A]


def test_brokers_that_all_say_go_away_are_not_hammered() -> None:
    """Sent on by each at once: one quick round, then the usual pace."""
    route = Route([A, B, C], Pace())
    waits = [ended(route, 0.001, moved=True)[0] for _ in range(30)]
    assert sum(wait_s > 0 for wait_s in waits) == 10
    assert waits[-1] == limits.RECONNECT_MAX_S


def test_a_single_address_is_dialed_again_at_the_usual_pace() -> None:
    """Also after GoAway: another replica may answer under the same name, or the same one again."""
    route = Route([A], Pace())
    assert route.following == A
    assert ended(route, LONG_S, moved=True) == (limits.RECONNECT_MIN_S, A)
    assert [ended(route, 0.01, moved=True)[0] for _ in range(3)] == [0.4, 0.8, 1.6]


def test_one_that_refuses_does_not_keep_an_executor_from_the_others() -> None:
    """Only a whole round of refusals is answered with the long wait."""
    route = Route([A, B], Pace(refused_s=10.0))
    assert [ended(route, refused=True), ended(route)] == [(HOP_S, B), (limits.RECONNECT_MIN_S, A)]
    assert [ended(route, refused=True), ended(route, refused=True)] == [(HOP_S, B), (10.0, A)]
    assert [ended(route), ended(route, refused=True)] == [(HOP_S, B), (limits.RECONNECT_MIN_S * 2, A)]


def test_while_a_command_is_held_no_round_waits_long() -> None:
    route = Route([A, B], Pace())
    assert max(ended(route, urgent=True)[0] for _ in range(40)) <= 1.0


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_every_wait_is_random_from_zero_on(chance: float) -> None:
    route = Route([A, B], Pace())
    assert [ended(route, chance=chance)[0] for _ in range(2)] == [chance * HOP_S, chance * limits.RECONNECT_MIN_S]


def test_two_thousand_that_lose_one_replica_spread_over_time_and_over_the_others() -> None:
    """Each in an order of its own: none is overrun, and no instant is."""
    dice = random.Random(1)
    routes = [Route(dice.sample([A, B, C], k=3), Pace()) for _ in range(6000)]
    lost = [route for route in routes if route.address == A]
    dialed = [ended(route, LONG_S, chance=dice.random()) for route in lost]
    assert min(Counter(address for _, address in dialed).values()) > len(lost) * 0.4
    assert A not in {address for _, address in dialed}
    per_hundredth = Counter(int(wait_s * 100) for wait_s, _ in dialed)
    assert len(per_hundredth) == 20
    assert max(per_hundredth.values()) < 2 * len(lost) / 20
