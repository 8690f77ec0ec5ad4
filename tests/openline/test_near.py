"""Names that were probably meant."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openline.near import MAX_LOOKED_AT, MAX_SLIPS, cluster_unknown, distance, near

NAMES = sorted(["local", "prod-east", "prod-west", "staging", "stage-2"])


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("locla", ["local"]),  # two neighbours swapped are one slip
        ("loca", ["local"]),
        ("llocal", ["local"]),
        ("prod-eats", ["prod-east", "prod-west"]),  # the most alike first
        ("Prod_East", ["prod-east", "prod-west"]),
        ("prod.west", ["prod-west", "prod-east"]),
        ("prod", ["prod-east", "prod-west"]),
        ("east", ["prod-east"]),
        ("stage", ["stage-2"]),
        ("gnigats", []),
        ("xy", []),
        ("", []),
        ("*", []),
        ("local" * 100_000, []),
    ],
)
def test_what_was_meant(word: str, found: list[str]) -> None:
    assert near(word, NAMES) == found


def test_of_very_many_those_next_to_it_are_looked_at() -> None:
    """So the answer to a typing error does not take longer than anything else that the broker does."""
    names = [f"prod-eu-{n:06}" for n in range(50_000)]
    assert near("prod-eu-012345x", names)[0] == "prod-eu-012345"
    assert near("prod-eu-000000x", names)[0] == "prod-eu-000000"
    assert near("prod-eu-049999x", names)[0] == "prod-eu-049999"
    assert "prod-eu-020000" not in near("rpod-eu-020000", names)
    assert near("rpod-eu-000100", names[:MAX_LOOKED_AT])[0] == "prod-eu-000100"


def plain(one: str, other: str) -> int:
    """The same by its definition (optimal string alignment)."""
    if not one or not other:
        return len(one) + len(other)
    costs = [
        plain(one[:-1], other) + 1,
        plain(one, other[:-1]) + 1,
        plain(one[:-1], other[:-1]) + (one[-1] != other[-1]),
    ]
    if one[-2:] == other[-2:][::-1] and len(one) > 1 < len(other):
        costs.append(plain(one[:-2], other[:-2]) + 1)
    return min(costs)


@settings(max_examples=200)
@given(one=st.text("abc", max_size=5), other=st.text("abc", max_size=5), most=st.integers(0, MAX_SLIPS))
def test_slips_are_counted(one: str, other: str, most: int) -> None:
    """As far as it is of interest."""
    assert distance(one, other, most=most) == min(plain(one, other), most + 1)


def test_a_cluster_that_is_not_known_is_refused_with_what_is_near() -> None:
    """In the message, for programs, and as what to do next."""
    refused = cluster_unknown("prod-eats", NAMES)
    assert refused.metadata["near"] == "prod-east,prod-west"
    assert refused.metadata["available"] == ",".join(NAMES)
    assert "did you mean prod-east, prod-west?" in refused.message
    assert refused.metadata["next_step"].startswith("Ask again with prod-east or prod-west;")
    assert "next_step" not in cluster_unknown("gnigats", NAMES).metadata
