"""Identifiers and names that travel."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.ids import is_cluster_id, is_command_id, is_name, is_token, made_at, new_id

GOOD_ID = "01a22410-98dd-7667-b37d-b9bf5344cb38"


def test_ids_are_version_seven_and_sort_by_their_time() -> None:
    """Ids made later are greater, and tell when they were made."""
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert all(map(is_command_id, ids))
    assert abs(made_at(ids[0]) - time.time()) < 60


@pytest.mark.parametrize(
    "text",
    ["", "x", "6ba7b810-9dad-41d1-80b4-00c04fd430c8", GOOD_ID.upper(), GOOD_ID.replace("-", ""), f"{{{GOOD_ID}}}"],
)
def test_anything_else_is_no_command_id(text: str) -> None:
    """Version 7 in canonical form: one command has one spelling."""
    assert not is_command_id(text)


@pytest.mark.parametrize(("text", "good"), [
    ("local", True), ("a", True), ("prod-east-1", True), ("a" * 100, True),
    ("", False), ("-a", False), ("a-", False), ("A", False), ("a_b", False), ("a" * 101, False), ("a\n", False),
])  # fmt: skip
def test_cluster_ids_are_dns_labels(text: str, good: bool) -> None:
    """As the drop-in API has them."""
    assert is_cluster_id(text) is good


@given(st.text())
def test_tokens_can_stand_in_a_log_line_and_a_header(text: str) -> None:
    """A token has no spaces, no controls, nothing but ASCII."""
    if is_token(text):
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text
        assert 1 <= len(text) <= 200


@pytest.mark.parametrize("text", ["Jane Doe", "Störungsdienst №1", "松本", "a\u00a0b", "x" * 200])
def test_names_may_be_any_text(text: str) -> None:
    """With spaces, in any script."""
    assert is_name(text)


@pytest.mark.parametrize("text", ["", "two\nlines", "two\u2028lines", "bell\a", "nul\0", "x" * 201, "\x9b", "\ud800"])
def test_a_name_is_on_one_line(text: str) -> None:
    """What a terminal would act on is in none."""
    assert not is_name(text)
