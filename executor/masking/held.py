"""Lines that cannot be judged before the next one is there, since they may name a value that stands on it."""

import re

from executor.masking.named import NAME

# No more of a line is looked at: it must have room for what `below.line_before` finds, and for the name.
_NEAR_BYTES = 512
# What is on a held line may itself be the value of a name above it.
_MOST_LINES = 4
_NAME = re.compile(NAME)
_LEADS = re.compile(
    rb"(?:.*name[\\\"']*+:[ \\\"']*+[\w.-]*+[\\\"']*+,?"
    rb"|[ ]*+(?:- )*+[\"']?--?[\w.-]*+[\"']?,?"
    rb"|[\w./-]*+:(?:[ \t]*+\r?\n----)?)[ \t]*+\r?\n"
)


def lead_from(text: bytes) -> int:
    """Where the last lines begin that may have the name of a value on the next one; the text's length without such."""
    held = len(text)
    for _ in range(_MOST_LINES):
        begin = _line_from(text, held)
        if text[begin:held].rstrip() == b"----":
            begin = _line_from(text, begin)
        line = text[begin:held].lower() if held - begin <= _NEAR_BYTES else b""
        if not (line.endswith(b"\n") and _LEADS.fullmatch(line) and (b"name" in line or _NAME.search(line))):
            break
        held = begin
    return held


def _line_from(text: bytes, end: int) -> int:
    """Where the line begins that ends here."""
    return text.rfind(b"\n", max(0, end - 2 * _NEAR_BYTES), max(0, end - 1)) + 1
