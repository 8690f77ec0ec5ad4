"""Values with a name that says what they are: `password: …`, `"token": "…"`, `--api-key=…`, and items of env lists.

How far a value goes depends on how its name is written; the replacement leaves JSON and YAML as valid as before.
"""

import re
from functools import cache

from executor.masking.shapes import Span

# How far back is looked for what stands before a name.
_NEAR_BYTES = 256
_WORD_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
_QUOTE_BYTES = b"\\\"'"

# Of the many things called key, those that are secret; a look-behind has one width.
_SECRET_KEYS = (b"api", b"access", b"account", b"encryption", b"private", b"secret", b"shared", b"signing")
_KEY = b"(?:" + b"|".join(b"(?<=%b%b)" % (of, dash) for of in _SECRET_KEYS for dash in (b"", b"[_-]")) + b")key"
# The end of a name, in lower case, from one of the words that are looked for on.
_NAME = re.compile(
    rb"(?:passw(?:or)?d|passphrase|passcode|(?<![a-z])pass|(?<![a-z0-9])pwd|secret|token|credentials?|" + _KEY + rb")"
    rb"(?:[_-]?(?:data|value|hash|b64|base64))?+[0-9]{0,3}+"
)
# What a value may be that says nothing.
_NOTHING = (
    rb"(?!(?:[Tt]rue|[Ff]alse|[Nn]ull|NULL|[Nn]one|nil|undefined|unset|~)(?![^\s,;\"'}\])\\])"
    rb"|<(?:none|nil|unset|set |invalid|redacted|masked)|\$[({]|\*\*\*|[|>&](?:\s|\Z)|\{|\[)"
)
# In quotes, up to their end or the line's: in JSON or a shell, and one and two levels inside of a string of JSON.
_QUOTED = (
    rb"(?:\"" + _NOTHING + rb"(?P<double>(?:[^\"\\\n]|\\.)++)"
    rb"|'" + _NOTHING + rb"(?P<single>[^'\n]++)"
    rb"|\\\"" + _NOTHING + rb"(?P<inner>(?:[^\"\\\n]|\\\\(?:\\\\|\\\"|[^\"\\\n]))++)"
    rb"|\\{2,7}+\"" + _NOTHING + rb"(?P<innermost>[^\"\\\n]++))"
)
_WORD = rb"(?P<word>" + _NOTHING + rb"(?:[^\s\"'\\,;&)}\]<]|,(?=[^\s\"'\\]))++)"
_QUOTE = rb"(?:\\{0,7}+[\"'])"
_TO = rb"[ \t]{0,8}+[:=][ \t]{0,8}+"
_BARE = _NOTHING + rb"[^\s,;}\]\"'\\]++"

# "token": "…" and "token": 7
_AFTER_QUOTE = re.compile(rb"(?P<quote>" + _QUOTE + rb")" + _TO + rb"(?:" + _QUOTED + rb"|(?P<bare>" + _BARE + rb"))")
# TOKEN=…
_AFTER_EQUALS = re.compile(rb"=(?:" + _QUOTED + rb"|" + _WORD + rb")")
# token: …, in YAML and in what `kubectl describe` prints: up to the end of the line, or a block below it
_REST_OF_LINE = re.compile(
    rb":[ \t]++(?:(?P<block>[|>][0-9+-]{0,2}+[ \t]*+)(?=\r?\n)"
    rb"|(?P<line>" + _NOTHING + rb"(?![\"']{2}\s)[^\s][^\r\n]*+))"
)
# … token: … in a sentence, where the next word is as likely to be one of English
_SPOKEN = re.compile(
    rb": {1,4}+(?:" + _QUOTED + rb"|(?=[^\s]{0,64}?[0-9])(?P<word>" + _NOTHING + rb"[^\s\"'\\,;&)}\]<]{6,}+))"
)
# name: TOKEN, value: …
_VALUE_BELOW = re.compile(
    _QUOTE + rb"?+,?+\s{0,200}+" + _QUOTE + rb"?+value(?P<quote>" + _QUOTE + rb")?+" + _TO
    + rb"(?:" + _QUOTED + rb"|(?P<line>" + _NOTHING + rb"[^\s\"'\\,}][^\r\n,}]*+))"
)  # fmt: skip
# --token …, also as arguments of a list
_ARGUMENT = re.compile(
    _QUOTE + rb"?+(?:,?+\s{1,200}+(?:- )?+|,)(?!-)(?:" + _QUOTED + rb"|(?P<word>" + _NOTHING + rb"[^\s\"'\\,;\]<]++))"
)
_LEADS = re.compile(rb"(?:- +)?[\"']?(?:name[\"']?: *[\"']?|--?)[\w.-]*+[\"']?,?\s*\Z", re.IGNORECASE)


def find_value(text: bytes, lower: bytes, start: int) -> Span | None:
    """The value that the name which ends in the word at `start` has, if it is one to be masked.

    `lower` is the text in lower case.
    """
    name = _NAME.match(lower, start)
    if name is None:
        return None
    end = name.end()
    match text[end : end + 1]:
        case b"=":
            return _span(_AFTER_EQUALS.match(text, end))
        case b":":
            lead = _line_before(text, start).rstrip(_WORD_BYTES + b"./")
            if lead.strip(b" ") in (b"", b"-"):
                return _lines(text, _REST_OF_LINE.match(text, end), len(lead))
            return _span(_SPOKEN.match(text, end))
        case b'"' | b"'" | b"\\" if found := _AFTER_QUOTE.match(text, end):
            return _span(found)
        case b'"' | b"'" | b"\\" | b" " | b"\n" | b"\r":
            before = text[max(0, start - _NEAR_BYTES) : start]
            lead = before.rstrip(_WORD_BYTES)
            if before.startswith(b"-", len(lead)):
                return _span(_ARGUMENT.match(text, end))
            found = _VALUE_BELOW.match(text, end)
            return _span(found) if found and _is_name(lead.rstrip(_WORD_BYTES + b".")) else None
    return None


def _line_before(text: bytes, start: int) -> bytes:
    """What stands before on the same line; something that begins no line if that is far away."""
    near = max(0, start - _NEAR_BYTES)
    line = text.rfind(b"\n", near, start) + 1
    return text[line:start] if line or near == 0 else b"?:"


def _is_name(lead: bytes) -> bool:
    """Whether this ends with the key `name`, so that what follows is the name of a variable."""
    key = lead.rstrip(b" " + _QUOTE_BYTES)
    if not key.endswith(b":"):
        return False
    key = key[:-1].rstrip(_QUOTE_BYTES)
    return key[-4:].lower() == b"name" and not key[:-4].endswith(tuple(_WORD_BYTES[i : i + 1] for i in range(64)))


def _span(found: re.Match[bytes] | None) -> Span | None:
    """The value of a rule's match; where its key is in quotes and it is not, as a number in JSON, it gets the same."""
    if found is None:
        return None
    group = found.lastgroup or ""
    quote = (found.groupdict().get("quote") or b"") if group in ("bare", "line") else b""
    return Span(*found.span(group), before=quote, after=quote)


def _lines(text: bytes, found: re.Match[bytes] | None, column: int) -> Span | None:
    """A value in YAML, with the lines below its key in this column that are indented more: a block, or folded text."""
    if found is None:
        return None
    start, end = found.span(found.lastgroup or 0)
    line_end = text.find(b"\n", end) + 1
    below = end_of_value(text, line_end, column) if line_end else 0
    if below == line_end and below < len(text):
        return Span(start, end)
    return Span(start, below or end, after=b"\n" if below else b"", column=column if below else None)


@cache
def _below(column: int) -> re.Pattern[bytes]:
    return re.compile(rb"(?:[ \t]*+\r?\n| {%d,}+[^\s][^\n]*+\n?)*+" % (column + 1))


def end_of_value(text: bytes, start: int, column: int) -> int:
    """Where lines are over that are indented more than a key in this column."""
    below = _below(min(column, _NEAR_BYTES)).match(text, start)
    return below.end() if below else start


def lead_from(text: bytes) -> int:
    """Where a last line begins that has the name of a value on the next one; the text's length if there is none."""
    begin = text.rfind(b"\n", max(0, len(text) - _NEAR_BYTES), max(0, len(text) - 1)) + 1
    is_whole = text.endswith(b"\n") and (begin > 0 or len(text) <= _NEAR_BYTES)
    return begin if is_whole and _LEADS.match(text[begin:].lstrip()) else len(text)
