"""What is kept of a process's output."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline import limits
from openline.capture import MOST_OUTPUT_BYTES, Capture, Kept, allowance, share


def captured(data: bytes, *, max_bytes: int, piece: int = 7) -> Capture:
    capture = Capture(max_bytes)
    for start in range(0, len(data), piece):
        capture.feed(data[start : start + piece])
    return capture


def test_everything_that_fits_is_kept() -> None:
    """Output up to the cap arrives whole, and nothing counts as cut."""
    assert captured(b"a\nb\nc", max_bytes=5).keep(5) == Kept(b"a\nb\nc", total_bytes=5, total_lines=3)


def test_head_and_tail_are_kept_and_the_rest_is_counted() -> None:
    """One byte over the cap: the head is half of it, rounded up, and the cut is exactly what is missing."""
    kept = captured(b"0123\n5678\nab", max_bytes=11).keep(5)
    assert kept == Kept(b"012ab", total_bytes=12, total_lines=3, cut_bytes=7, cut_lines=2)


def test_a_silent_stream_is_nothing() -> None:
    assert Capture(10).keep(0) == Kept()


@given(data=st.binary(max_size=300), max_bytes=st.integers(1, 200), piece=st.integers(1, 50), less=st.integers(0, 200))
def test_keeps_the_two_ends_whatever_the_pieces(data: bytes, max_bytes: int, piece: int, less: int) -> None:
    """However the output was cut into reads, its two ends are kept and the counts add up."""
    allowed = max(0, max_bytes - less)
    kept = captured(data, max_bytes=max_bytes, piece=piece).keep(allowed)
    if len(data) <= allowed:
        assert kept.data == data
    else:
        head = (allowed + 1) // 2
        assert kept.data == data[:head] + data[len(data) - (allowed - head) :]
    assert kept.total_bytes == len(data) == len(kept.data) + kept.cut_bytes
    assert kept.total_lines == data.count(b"\n") + (data != b"" and not data.endswith(b"\n"))
    assert kept.cut_lines == data.count(b"\n") - kept.data.count(b"\n")


@given(out=st.integers(0, 50), err=st.integers(0, 50), max_bytes=st.integers(1, 60))
def test_the_cap_is_for_both_streams_together(out: int, err: int, max_bytes: int) -> None:
    """Both fit under the cap, nothing of it is wasted, and neither gets less than half while it needs it."""
    stdout, stderr = share(
        captured(b"o" * out, max_bytes=max_bytes), captured(b"e" * err, max_bytes=max_bytes), max_bytes=max_bytes
    )
    assert len(stdout.data) + len(stderr.data) == min(out + err, max_bytes)
    assert len(stdout.data) >= min(out, max_bytes // 2)
    assert len(stderr.data) >= min(err, max_bytes // 2)


@pytest.mark.parametrize(
    ("asked", "given"),
    [(0, limits.DEFAULT_MAX_OUTPUT_BYTES), (1, 1), (1 << 62, MOST_OUTPUT_BYTES)],
)
def test_a_wish_is_bounded(asked: int, given: int) -> None:
    """No wish means the default; none is larger than what a command may occupy here."""
    assert allowance(asked) == given


@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_memory_is_bounded_whatever_the_flood(piece: int) -> None:
    """A flood in small or large pieces occupies no more than three times the cap."""
    capture = Capture(64 << 10)
    chunk = b"x" * piece
    tracemalloc.start()
    for _ in range((1 << 20) // piece if piece > 1 else 300_000):
        capture.feed(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * (64 << 10) + 2 * piece
