"""Label selectors, as kubectl has them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.selectors import BadSelector, parse_selector

LABELS = {"env": "prod", "region": "eu", "gpu": "", "team.io/name": "a-b"}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("env=prod", True),
        ("env==prod", True),
        ("env = prod , region=eu", True),
        ("env=dev", False),
        ("env!=dev", True),
        ("env!=prod", False),
        ("tier!=db", True),
        ("env in (dev, prod)", True),
        ("env in (dev)", False),
        ("env notin (dev,test)", True),
        ("tier notin (db)", True),
        ("gpu", True),
        ("gpu=", True),
        ("!gpu", False),
        ("!spot", True),
        ("spot", False),
        ("team.io/name=a-b,env in (prod),!spot,gpu", True),
        ("env=prod,region=us", False),
        ("in in (x)", False),
    ],
)
def test_a_selector_fits_or_not(text: str, fits: bool) -> None:
    """Every requirement must hold; what is not there is not equal to anything."""
    assert parse_selector(text).fits(LABELS) is fits


@pytest.mark.parametrize(
    "text", ["", "  ", ",", "a,", ",a", "a=b=c", "a in", "a in (b", "a>1", "-a", "a in (b c)", "é"]
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    """Rather than asked of every cluster there is."""
    with pytest.raises(BadSelector):
        parse_selector(text)


@given(st.text(alphabet="ab=!, ()in", max_size=30))
def test_no_text_does_anything_else(text: str) -> None:
    """It is understood, or BadSelector."""
    with contextlib.suppress(BadSelector):
        parse_selector(text)
