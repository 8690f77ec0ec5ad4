"""A traceparent's form, and what it says."""

import pytest

from openline.tracing.traceparent import Traced, has_form, log_fields, read

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


def test_what_is_read_is_written_as_it_was() -> None:
    assert [str(read(text)) for text in (SAMPLED, UNSAMPLED)] == [SAMPLED, UNSAMPLED]


def test_a_later_version_is_read_as_the_first_one() -> None:
    """As the specification asks, as long as it looks like it."""
    assert read(f"cc-{TRACE}-{SPAN}-03") == Traced(int(TRACE, 16), int(SPAN, 16), 3)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", SAMPLED.upper(), f" {SAMPLED}", f"{SAMPLED}\n", f"{SAMPLED}-more", f"00-{TRACE}-{SPAN}",
        f"00-{TRACE[:-1]}-{SPAN}-01", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN[:-1]}g-01", f"00_{TRACE}_{SPAN}_01",
    ],
)  # fmt: skip
def test_what_has_not_the_form(text: str) -> None:
    assert not has_form(text)
    assert read(text) is None
    assert log_fields(text) == {}


@pytest.mark.parametrize("text", [f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"])
def test_what_has_the_form_and_says_nothing(text: str) -> None:
    """It is passed on, and is nobody's parent."""
    assert has_form(text)
    assert read(text) is None
    assert log_fields(text) == {}


def test_a_line_of_the_log_has_the_ids_of_a_sampled_trace_alone() -> None:
    """An id that leads to a trace which nobody kept would be worse than none."""
    assert log_fields(SAMPLED) == {"trace_id": TRACE, "span_id": SPAN}
    assert log_fields(UNSAMPLED) == {}
