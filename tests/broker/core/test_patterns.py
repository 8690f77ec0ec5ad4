"""Patterns of clusters."""

import fnmatch
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.patterns import EVERY, MAX_PATTERNS, Patterns

LETTERS = st.text("ab-", max_size=8)
GLOBS = st.text("ab-*", min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("pattern", "seen", "hidden"),
    [
        ("prod", ["prod"], ["prod-1", "a-prod", "pro"]),
        ("prod-*", ["prod-", "prod-1", "prod-eu-1"], ["prod", "xprod-1", "staging"]),
        ("*-eu", ["prod-eu", "-eu"], ["eu", "prod-eu-1"]),
        ("a*a", ["aa", "aba"], ["a", "ab"]),
        ("*b*b*", ["bb", "abcb"], ["b", "aba"]),
        ("*", ["prod", ""], []),
    ],
)
def test_a_star_stands_for_any_characters_or_none(pattern: str, seen: list[str], hidden: list[str]) -> None:
    """And each character otherwise for itself; the pattern is of the whole id."""
    patterns = Patterns.of([pattern])
    assert [each for each in seen + hidden if patterns.sees(each)] == seen


@given(LETTERS, GLOBS)
def test_the_shells_patterns_see_the_same(text: str, pattern: str) -> None:
    """As far as they have nothing but stars."""
    assert Patterns.of([pattern]).sees(text) == fnmatch.fnmatchcase(text, pattern)


def test_no_pattern_at_all_is_every_cluster() -> None:
    assert Patterns.of([]) == EVERY
    assert Patterns.of(["prod", "**"]) == EVERY
    assert EVERY.is_every
    assert not Patterns.of(["prod"]).is_every


def test_patterns_are_the_same_in_any_order_and_however_often() -> None:
    assert Patterns.of(["b", "a", "b"]) == Patterns.of(["a", "b"])


@pytest.mark.parametrize("pattern", ["", "Prod", "a_b", "a.b", "a b", "ä", "a\n", "[ab]", "a?", "a" * 101])
def test_what_no_cluster_could_fit_is_refused(pattern: str) -> None:
    """A mistake that would be found when somebody misses a cluster; or, with another syntax, sees one."""
    with pytest.raises(ValueError, match="patterns are"):
        Patterns.of(["prod", pattern])


def test_patterns_are_bounded() -> None:
    Patterns.of(f"c-{n}" for n in range(MAX_PATTERNS))
    with pytest.raises(ValueError, match="at most"):
        Patterns.of(f"c-{n}" for n in range(MAX_PATTERNS + 1))


@pytest.mark.parametrize(
    ("mine", "asked", "covered"),
    [
        (["prod-*"], ["prod-1"], True),
        (["prod-*"], ["prod-eu-*"], True),
        (["prod-*", "dev"], ["dev", "prod-*-eu"], True),
        (["*"], ["prod-*", "*"], True),
        (["prod-*"], ["prod*"], False),
        (["prod-*"], ["*"], False),
        (["prod-*"], ["prod-1", "staging"], False),
        (["prod-1"], ["prod-*"], False),
        (["a*", "*a"], ["a*a"], True),
    ],
)
def test_patterns_cover_those_that_see_no_more(mine: list[str], asked: list[str], covered: bool) -> None:
    assert Patterns.of(mine).covers(Patterns.of(asked)) is covered


@given(st.lists(GLOBS, min_size=1, max_size=3), st.lists(GLOBS, min_size=1, max_size=3), LETTERS)
def test_what_is_covered_sees_nothing_more(mine: list[str], asked: list[str], text: str) -> None:
    """Whatever the two are: otherwise an admin could make a key that sees more than its own."""
    wide, narrow = Patterns.of(mine), Patterns.of(asked)
    if wide.covers(narrow) and narrow.sees(text):
        assert wide.sees(text)


def test_a_pattern_of_many_stars_costs_no_more() -> None:
    """Python's own engine would take years for this; and a cluster id that a caller sends may be megabytes."""
    patterns = Patterns.of(["*a" * 49 + "*b"])
    began = time.perf_counter()
    assert not patterns.sees("a" * 1_000_000)
    assert time.perf_counter() - began < 5
    assert re.fullmatch(r"[a*b]+", patterns.texts[0])
