"""Which executors a replica asks to move."""

from collections.abc import Callable

import pytest

from broker.core.balance import Balance
from broker.core.connections import Connection

New = Callable[..., Connection]


@pytest.fixture
def forty(new_connection: New) -> list[Connection]:
    return [new_connection(f"c-{number}") for number in range(40)]


@pytest.mark.parametrize(
    ("elsewhere", "moving"),
    [
        ([], 0),  # alone
        ([40], 0),
        ([38], 0),  # as good as even
        ([34], 0),
        ([30], 2),
        ([0], 2),  # a new one: a few at a time
        ([40, 40, 0], 2),
        ([0, 0, 0, 0], 2),
        ([80], 0),
    ],
)
def test_a_few_move_when_there_are_more_than_its_share(
    forty: list[Connection], elsewhere: list[int], moving: int
) -> None:
    assert len(Balance().choose(forty, elsewhere)) == moving


def test_the_idle_ones_move_first(forty: list[Connection]) -> None:
    for connection in forty[:38]:
        connection.commands.add("c1")
    assert Balance().choose(forty, [0]) == forty[38:]


def test_nobody_is_asked_twice(forty: list[Connection]) -> None:
    """Who comes back knows no other replica."""
    balance = Balance()
    asked = [connection for _ in range(30) for connection in balance.choose(forty, [0])]
    assert len(asked) == len(set(asked)) == 40


def test_who_is_leaving_is_not_asked(forty: list[Connection]) -> None:
    for connection in forty[1:]:
        connection.moving = True
    assert Balance().choose(forty, [0]) == forty[:1]


def test_it_becomes_even(new_connection: New) -> None:
    """Round by round, wherever they go, and then it stays so."""
    here = [new_connection(f"c-{number}") for number in range(40)]
    there: list[Connection] = []
    balance = Balance()
    for _ in range(50):
        for connection in balance.choose(here, [len(there)]):
            here.remove(connection)
            there.append(connection)
    assert abs(len(here) - len(there)) <= 4
