"""Takes out what a terminal would obey: escape sequences, and control characters but NUL, tab, line feed and return.

From everything, what has NUL bytes as well: a pod chooses what is in its log, so nothing in it may switch this off.
"""

import re

_KEPT = b"\0\t\n\r"  # terminals ignore a NUL
_CONTROLS = bytes(code for code in range(32) if code not in _KEPT) + b"\x7f"
# ECMA-48, and the same in UTF-8's two bytes for the controls from U+0080 on.
_SEQUENCE = re.compile(
    rb"\x1b\[[0-?]*+[ -/]*+[@-~]"  # CSI: colours, cursor
    rb"|\x1b[\]PX^_][^\x07\x1b]*+(?:\x07|\x1b\\)"  # OSC (titles, hyperlinks), DCS, SOS, PM, APC: a string up to its end
    rb"|\x1b[ -/]*+[0-~]"  # the short ones
    rb"|\xc2[\x80-\x9f]"
    rb"|[" + re.escape(_CONTROLS) + rb"]"
)
_UNFINISHED = re.compile(rb"(?:\x1b(?:\[[0-?]*+[ -/]*+|[\]PX^_][^\x07\x1b]*+\x1b?|[ -/]*+)|\xc2)\Z")
# No sequence worth the name is longer. Of one that is, the text remains, without what makes it a sequence.
LONGEST_BYTES = 4096


class Controls:
    """The first stage."""

    def __init__(self) -> None:
        self._begun = b""  # a sequence, or what may become one

    def feed(self, chunk: bytes) -> bytes:
        """What is text in everything up to here."""
        chunk = self._begun + chunk
        self._begun = b""
        if b"\xc2" not in chunk and len(chunk.translate(None, _CONTROLS)) == len(chunk):
            return chunk
        if unfinished := _UNFINISHED.search(chunk, max(0, len(chunk) - LONGEST_BYTES)):
            self._begun = unfinished[0]
            chunk = chunk[: unfinished.start()]
        return _SEQUENCE.sub(b"", chunk)

    def finish(self) -> bytes:
        """What is text in the rest."""
        return _SEQUENCE.sub(b"", self._begun)
