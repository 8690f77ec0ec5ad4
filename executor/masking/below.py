"""Values that reach below the line of their name: scalars of YAML, and arguments and items of lists.

What is on a line of its own belongs to a name above it only where indentation says so.
"""

import re
from functools import cache

from executor.masking.shapes import Span
from executor.masking.values import NOTHING

# How far back is looked for what stands before a name, as for the beginning of its line.
NEAR_BYTES = 256

_DOUBLE, _SINGLE = rb"(?:[^\"\\\r\n]|\\[^\r\n])", rb"(?:[^'\r\n]|'')"
_SCALAR = re.compile(
    rb"(?P<block>[|>][0-9+-]{0,2}+)[ \t]*+(?=\r?\n)"
    rb"|(?:(?P<whole>\"" + NOTHING + _DOUBLE + rb"++\"|'" + NOTHING + _SINGLE + rb"++')"
    rb"|\"" + _DOUBLE + rb"*+\"|'" + _SINGLE + rb"*+'),?[ \t]*+(?=\r?\n|\Z)"
    # kubectl's own dialect of YAML begins every text of several lines so.
    rb"|(?P<kyaml>\"\\)(?=\r?\n)"
    rb"|(?P<open>\"" + _DOUBLE + rb"*+\\?|'" + _SINGLE + rb"*+)(?=\r?\n)"
    rb"|(?P<plain>" + NOTHING + rb"[^\s][^\r\n]*+)"
)  # fmt: skip
_IS_KEY = re.compile(rb"[\"'?]|- |[^\r\n]*?:(?:\s|\Z)")
# Lines of plain text are folded only when they are longer, and there is a space to fold them at.
_FOLDED_BYTES = 60


def line_before(text: bytes, start: int) -> bytes | None:
    """What stands before on the same line; None if that is too far away to be found."""
    near = max(0, start - NEAR_BYTES)
    line = text.rfind(b"\n", near, start) + 1
    return text[line:start] if line or start < NEAR_BYTES else None


def scalar(text: bytes, start: int, column: int) -> Span | None:
    """The scalar of YAML that begins here, as the value of a key in this column."""
    found = _SCALAR.match(text, start)
    return _reach(text, found, column) if found else None


def item(text: bytes, start: int, column: int) -> Span | None:
    """The scalar that is an item of a list of YAML whose dashes are in this column, on the line that begins here."""
    if not text.startswith(b" " * column + b"- ", start):
        return None
    begin = start + column + 2
    found = _SCALAR.match(text, begin)
    if found is None or (found.lastgroup == "plain" and _IS_KEY.match(text, begin)):
        return None
    return _reach(text, found, column)


def _reach(text: bytes, found: re.Match[bytes], column: int) -> Span | None:
    """How far a scalar goes, which may be below this text."""
    if found.lastgroup is None:
        return None
    begin, end = found.span(found.lastgroup)
    if found.lastgroup in ("open", "plain"):
        end = _without_foreign_end(text, begin, end)
    before, after = (b'"', b'",') if found.lastgroup == "kyaml" else (b"", b"")
    is_folded = found.lastgroup != "plain" or (end - begin > _FOLDED_BYTES and b" " in text[begin:end])
    line_end = text.find(b"\n", end) + 1
    if begin == end or found.lastgroup == "whole" or not is_folded or line_end == 0:
        return Span(begin, end, before=before, after=after) if end > begin else None
    below = lines_below(column)
    rest = end_of(below, text, line_end)
    if rest == line_end and rest < len(text):
        return Span(begin, end, before=before, after=after)
    return Span(begin, rest, before=before, after=after + text[end:line_end], below=below)


def _without_foreign_end(text: bytes, begin: int, end: int) -> int:
    """Where the value ends without the end of a text all around it, of which this is the last line; or a comma."""
    value = text[begin:end].rstrip()
    last = value[-1:]
    if last == b"'":
        return begin + len(value) - (len(value) - len(value.rstrip(b"'"))) % 2
    if last == b'"':
        rest = value[:-1]
        return begin + len(value) - (len(rest) - len(rest.rstrip(b"\\")) + 1) % 2
    return begin + len(value) - (last == b",")


@cache
def _lines_behind(column: int) -> re.Pattern[bytes]:
    return re.compile(rb"(?:[ \t]*+\r?\n| {%d,}+[^\s][^\n]*+\n?)*+" % (column + 1))


def lines_below(column: int) -> re.Pattern[bytes]:
    """Lines that are indented more than a key in this column."""
    return _lines_behind(min(column, NEAR_BYTES))


def end_of(below: re.Pattern[bytes], text: bytes, start: int) -> int:
    """Where the lines are over that belong to a value above them."""
    found = below.match(text, start)
    return found.end() if found else start


_FLAG = re.compile(rb"(?P<indent> *+)(?P<dashes>(?:- )*+)(?P<quote>[\"']?)--?[\w.-]*+\Z")
_FLAG_ENDS = re.compile(rb"(?:[\"'],?)?[ \t]{0,8}+\r?\n")
_STRING_IN_LIST = re.compile(rb"\"(?!-)" + NOTHING + rb"(?P<value>(?:[^\"\\\n]|\\.)++)\",?[ \t]*+(?:\r?\n|\Z)")


def argument_below(text: bytes, start: int, end: int) -> Span | None:
    """The item behind the one that is a flag, which ends at `end`, where each has a line of its own."""
    flag = _FLAG.match(line_before(text, start) or b"?")
    line = _FLAG_ENDS.match(text, end)
    if flag is None or line is None:
        return None
    if flag["dashes"]:
        column = len(flag["indent"]) + len(flag["dashes"]) - 2
        return item(text, line.end(), column) if not text.startswith(b"-", line.end() + column + 2) else None
    if flag["quote"] != b'"' or not text.startswith(flag["indent"], line.end()):
        return None
    value = _STRING_IN_LIST.match(text, line.end() + len(flag["indent"]))
    return Span(*value.span("value")) if value else None


_UNDERLINED = re.compile(rb":[ \t]*+\r?\n----\r?\n(?=[^\r\n])" + NOTHING)
_PARAGRAPH = re.compile(rb"(?:[^\r\n]++(?:\r?\n|\Z))*+")


def underlined(text: bytes, end: int) -> Span | None:
    """The value of a name that ends here, as `kubectl describe` prints data of ConfigMaps: its first paragraph."""
    found = _UNDERLINED.match(text, end)
    if found is None:
        return None
    return Span(found.end(), end_of(_PARAGRAPH, text, found.end()), after=b"\n", below=_PARAGRAPH)
