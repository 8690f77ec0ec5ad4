"""Lines that cannot be judged before the next one is there, since they may name a value that stands on it."""

import re

from executor.masking.named import NAME

# No more of a line is looked at: it must have room for what `below.line_before` finds, and for the name.
_NEAR_BYTES = 512
_LEADS = re.compile(
    rb"(?:name[\\\"']*+:[ \\\"']*+[\w.-]*+[\\\"']*+,?"
    rb"|(?<![^\n])[ ]*+(?:- )*+[\"']?--?[\w.-]*+[\"']?,?"
    rb"|(?:" + NAME + rb"|(?:passw(?:or)?d|token|credential|key)s)[\"']?:(?:[ \t]*+\r?\n----)?)[ \t]*+\r?\n\Z"
)


def lead_from(text: bytes) -> int:
    """Where a last line begins that may have the name of a value on the next one; the text's length if there is none."""
    begin = _line_from(text, len(text))
    if text[begin:].rstrip() == b"----":
        begin = _line_from(text, begin)
    last = text[begin:]
    if not last.endswith(b"\n") or len(last) > _NEAR_BYTES:
        return len(text)
    return begin if _LEADS.search(last.lower()) else len(text)


def _line_from(text: bytes, end: int) -> int:
    """Where the line begins that ends here."""
    return text.rfind(b"\n", max(0, end - 2 * _NEAR_BYTES), max(0, end - 1)) + 1
