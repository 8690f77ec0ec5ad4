"""What is remembered of many owners: each has a share, and nobody's is all of it."""

from collections import OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.remembered import Remembered


def test_who_fills_its_share_pushes_out_its_own() -> None:
    kept: Remembered[str] = Remembered(most=10, most_of_owner=3)
    assert kept.add("b1", "of bob", owner="bob") is None
    assert [kept.add(f"a{n}", f"a{n}", owner="alice") for n in range(5)] == [None, None, None, "a0", "a1"]
    assert (len(kept), kept.use("b1"), kept.use("a0"), kept.use("a4")) == (4, "of bob", None, "a4")


def test_what_was_used_last_is_forgotten_last() -> None:
    kept: Remembered[int] = Remembered(most=3, most_of_owner=2)
    kept.add("a1", 1, owner="alice")
    kept.add("a2", 2, owner="alice")
    kept.use("a1")
    assert kept.add("a3", 3, owner="alice") == 2
    kept.add("b1", 4, owner="bob")
    assert kept.add("b2", 5, owner="bob") == 1  # all are full, and alice's is the oldest of all
    assert len(kept) == 3


@settings(max_examples=100)
@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=80))
def test_the_bounds_hold_and_nothing_is_left_behind(steps: list[tuple[str, int]]) -> None:
    """However it is used: against a list that is searched for the oldest."""
    kept: Remembered[str] = Remembered(most=8, most_of_owner=4)
    model: OrderedDict[str, str] = OrderedDict()
    for owner, number in steps:
        name = f"{owner}{number}"
        assert kept.use(name) == model.get(name)
        if name in model:
            model.move_to_end(name)
            continue
        model[name] = name
        of_owner = [each for each in model if each[0] == owner]
        oldest = of_owner[0] if len(of_owner) > 4 else next(iter(model)) if len(model) > 8 else None
        assert kept.add(name, name, owner=owner) == oldest
        model.pop(oldest or "", None)
        assert len(kept) == len(model)
        assert {owner: list(names) for owner, names in kept._names.items()} == {
            owner: [each for each in model if each[0] == owner] for owner in "abc" if any(e[0] == owner for e in model)
        }
