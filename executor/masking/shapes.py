"""Private keys in PEM, which span lines, and what a rule says of the bytes that it masks."""

import re
from dataclasses import dataclass

# A PEM private key is found by the end of its first line.
KEY_ENDS = b"private key-----"
_BEGIN = b"-----BEGIN "
_KIND_BYTES = 32
# A line end, also as it is written inside of strings, then what `kubectl logs` may put before a line.
MOST_BLANKS = 200
_BREAK = rb"(?:\s|\\{1,7}[nrt]){0,%d}+(?:\[[^\]\n]{1,200}\] |\d{4}-[0-9T:.Z+-]{10,40} )?+" % MOST_BLANKS
# Lines that look like the body of a key: one that does not ends it, so that nothing else is swallowed without an end.
_REST = re.compile(
    rb"(?:"
    + _BREAK
    + rb"(?:(?:Proc-Type|DEK-Info):[^\n\\]*+|[A-Za-z0-9+/]++={0,2}+(?=[ \t]{0,8}+(?:[\r\n]|\Z|-----END)|\\{1,7}+[nrt])"
    # Where spaces stand for line ends, a word must be longer.
    + rb"|[A-Za-z0-9+/]{16,}+={0,2}+(?=[ \t])))*+"
    + rb"(?:"
    + _BREAK
    + rb"-----END[A-Z0-9 ]{0,40}-----(?P<over>))?+"
)

_BLANKS = re.compile(rb"\s*+\Z")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes to be masked; `before` and `after` go around the marker."""

    start: int
    end: int
    before: bytes = b""
    after: bytes = b""
    # Of a value that may go on below its first line: what belongs to it there.
    below: re.Pattern[bytes] | None = None
    # Of a private key: its end has not been seen.
    is_open: bool = False


def private_key(text: bytes, start: int, done: int) -> Span | None:
    """The key whose first line ends with the words at `start`; not what comes before `done`."""
    begin = text.rfind(_BEGIN, max(0, start - _KIND_BYTES - len(_BEGIN)), start)
    if begin < 0:
        return None
    rest = rest_of_key(text, start + len(KEY_ENDS))
    return Span(max(begin, done), rest.end, is_open=rest.is_open)


def rest_of_key(text: bytes, start: int) -> Span:
    """The body of a key that goes on at `start`; perhaps none of it."""
    rest = _REST.match(text, start)
    end = start if rest is None else rest.end()
    seen = rest is not None and rest["over"] is not None
    return Span(start, end, is_open=not seen and _BLANKS.match(text, end) is not None)
