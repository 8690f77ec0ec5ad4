"""Takes out what a terminal would obey: escape sequences and control characters, all but tab, line feed and return.

Only from text. What has a NUL byte early on is binary, as git sees it, and passes as it is: to take bytes out would
destroy it.
"""

import re

_KEPT = b"\t\n\r"
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
EARLY_BYTES = 8000


class Controls:
    """The first stage."""

    def __init__(self) -> None:
        self._begun = b""  # a sequence, or what may become one
        self._early_bytes = EARLY_BYTES  # so many more decide what this is
        self._is_binary = False

    def feed(self, chunk: bytes) -> bytes:
        """What is text in everything up to here."""
        if self._early_bytes > 0:
            self._is_binary = self._is_binary or b"\0" in chunk[: self._early_bytes]
            self._early_bytes -= len(chunk)
        chunk = self._begun + chunk
        self._begun = b""
        if self._is_binary:
            return chunk
        if b"\xc2" not in chunk and len(chunk.translate(None, _CONTROLS)) == len(chunk):
            return chunk
        if unfinished := _UNFINISHED.search(chunk, max(0, len(chunk) - LONGEST_BYTES)):
            self._begun = unfinished[0]
            chunk = chunk[: unfinished.start()]
        return _SEQUENCE.sub(b"", chunk)

    def finish(self) -> bytes:
        """What is text in the rest."""
        return _SEQUENCE.sub(b"", self._begun)
