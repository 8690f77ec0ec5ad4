"""Text comes out without what a terminal would obey, however it is cut into pieces."""

import pytest

from executor.masking.controls import LONGEST_BYTES, Controls


def strip(text: bytes, *, piece_bytes: int = 1 << 20) -> bytes:
    controls = Controls()
    pieces = [controls.feed(text[start : start + piece_bytes]) for start in range(0, len(text), piece_bytes)]
    return b"".join(pieces) + controls.finish()


@pytest.mark.parametrize("piece_bytes", [1, 2, 5, 1 << 20])
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"\x1b[1;31mred\x1b[0m", b"red"),
        (b"\x1b[?25lhidden cursor\x1b[2K", b"hidden cursor"),
        (b"\x1b]0;title\x07text", b"text"),
        (b"\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", b"click"),
        (b"\x1bP1$r\x1b\\after DCS", b"after DCS"),
        (b"\x1b7saved\x1b8 \x1b(Bcharset", b"saved charset"),
        (b"bell\x07 back\x08 form\x0c del\x7f", b"bell back form del"),
        (b"tab\tfeed\nreturn\r", b"tab\tfeed\nreturn\r"),
        (b"\xc2\x9b31mC1\xc2\x85", b"31mC1"),
        ("grüße, 日本, ½ ·".encode(), "grüße, 日本, ½ ·".encode()),
        (b"an end in \x1b", b"an end in "),
        (b"an end in \x1b[12", b"an end in 12"),
    ],
    ids=[
        "colour", "private CSI", "title", "hyperlink", "DCS", "short ones", "C0", "whitespace", "C1", "UTF-8",
        "a lone ESC", "an unfinished CSI",
    ],
)  # fmt: skip
def test_what_is_taken_out(text: bytes, kept: bytes, piece_bytes: int) -> None:
    assert strip(text, piece_bytes=piece_bytes) == kept


def test_what_is_held_back_is_bounded() -> None:
    """A string that never ends is text in the end: nothing waits for longer than the longest sequence."""
    controls = Controls()
    told = controls.feed(b"\x1b]" + b"x" * 10 * LONGEST_BYTES)
    assert len(told) >= 9 * LONGEST_BYTES
    assert b"\x1b" not in told + controls.finish()


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
def test_a_nul_byte_switches_nothing_off(piece_bytes: int) -> None:
    """It stays, as terminals ignore it; what is behind it goes."""
    text = b"\0\x1b]0;title\x07" + b"x" * 9000 + b"\0\x1b[1mbold"
    assert strip(text, piece_bytes=piece_bytes) == b"\0" + b"x" * 9000 + b"\0bold"
