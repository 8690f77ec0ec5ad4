"""Values with a name that says what they are: `password: …`, `"token": "…"`, `--api-key=…`, and items of env lists.

How far a value goes depends on how its name is written; the replacement leaves JSON and YAML as valid as before.
"""

import re

from executor.masking import below
from executor.masking.below import NEAR_BYTES
from executor.masking.plausible import is_credential
from executor.masking.shapes import Span
from executor.masking.values import NOTHING, NUMBER, QUOTE, QUOTED, SPOKEN, STRING, WORD

_WORD_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
_QUOTE_BYTES = b"\\\"'"

# Of the many things called key, those that are secret; a look-behind has one width.
_SECRET_KEYS = (
    b"api", b"access", b"account", b"admin", b"encrypt", b"encryption", b"hmac", b"jwt", b"master", b"private",
    b"secret", b"session", b"shared", b"signing", b"storage",
)  # fmt: skip
KEY = b"(?:" + b"|".join(b"(?<=%b%b)" % (of, dash) for of in _SECRET_KEYS for dash in (b"", b"[_-]")) + b")key"
# The end of a name, in lower case, from one of the words that are looked for on.
NAME = (
    rb"(?:passw(?:or)?d|passphrase|passcode|(?<![a-z])pass|(?<![a-z0-9])pwd|secret|token|credentials?|(?<![a-z0-9_-])auth|"
    + KEY
    + rb")(?:[_-]?(?:data|value|hash|b64|base64))?+[0-9]{0,3}+"
)
_NAME = re.compile(NAME)
_TO = rb"[ \t]{0,8}+[:=][ \t]{0,8}+"

_IS_KEY = re.compile(QUOTE + _TO)
# "token": "…"
_SAME_QUOTES = re.compile(rb"(?P<quote>" + QUOTE + rb")" + _TO + rb"(?=(?P=quote))" + STRING)
# "token": 7, and 'token': "…"
_AFTER_QUOTE = re.compile(
    rb"(?P<quote>" + QUOTE + rb")(?:" + _TO + rb"(?:" + QUOTED + rb"|(?P<bare>" + NUMBER + rb"))"
    rb"|[:=][ \t]{0,4}+" + SPOKEN + rb")"
)  # fmt: skip
# TOKEN=… and token = …
_AFTER_EQUALS = re.compile(rb"(?:=|[ \t]{1,8}+=[ \t]{1,8}+)(?![=>])(?:" + QUOTED + rb"|" + WORD + rb")")
# … token: … in a sentence, where the next word is as likely to be one of English
_SPOKEN = re.compile(rb": {1,4}+(?:" + QUOTED + rb"|" + SPOKEN + rb")")
# … password:… as programs print structures; not the tag of an image, nor a path of names
_CLOSE = re.compile(rb":(?=[^\s]{0,64}?[A-Za-z])(?![v0-9]{1,3}\.)" + SPOKEN + rb"(?![/:])")
_IN_MAP = re.compile(rb":(?!map\[)(?P<word>" + NOTHING + rb"[^\s\]\"'\\]++)")
_BRACKET = re.compile(rb"(?:map)?\[|\]")
# <password>…</password>, also in strings of JSON, where Go escapes the signs
_ELEMENT = re.compile(rb"(?:>|\\u003e)(?P<word>" + NOTHING + rb"[^<>\"'\\\r\n]++)(?=</|\\u003c/)")
# password => '…', as in PHP and Ruby; without quotes it may be code
_ARROW = re.compile(QUOTE + rb"?+[ \t]{0,8}+=>[ \t]{0,8}+" + QUOTED)
# name: TOKEN, value: …
_VALUE_BELOW = re.compile(
    QUOTE + rb"?+,?+(?:[ \t]{0,8}+\r?\n[ \t]{0,200}+| {0,4}+)" + QUOTE + rb"?+value(?P<quote>" + QUOTE + rb")?+" + _TO
)  # fmt: skip
_ITS_VALUE = re.compile(STRING + rb"|(?P<bare>" + NUMBER + rb")|(?P<word>" + NOTHING + rb"[^\s\"'\\,}\]]++)")
# --token …
_ARGUMENT = re.compile(rb"[ \t]{1,8}+(?!-)(?:" + QUOTED + rb"|" + WORD + rb")")
# "--token","…"
_NEXT_STRING = re.compile(
    rb"(?P<quote>" + QUOTE + rb"), ?(?=(?P=quote))(?!" + QUOTE + rb"-)" + QUOTED
    + rb"(?=(?P=quote))" + QUOTE + rb"(?![ \t]*:)"
)  # fmt: skip
# 'password': …, as the key that a line of YAML begins with
_QUOTED_KEY = re.compile(rb"(?P<lead> *+(?:- )*+)(?P<quote>[\"'])[^\"'\\]*+\Z")
# Token: followed by more than a word
_SENTENCE = re.compile(rb": [^\s\"'|>]++ ++[^\s]")
_BLANKS = re.compile(rb":[ \t]++")


def find_value(text: bytes, lower: bytes, start: int) -> Span | None:
    """The value that the name which ends in the word at `start` has, if it is one to be masked.

    `lower` is the text in lower case.
    """
    name = _NAME.match(lower, start)
    if name is None:
        return None
    near = max(0, start - NEAR_BYTES)
    lead = text[near:start].rstrip(_WORD_BYTES + b".")
    value = _value(text, start, name.end(), lead)
    if value is None:
        return None
    whole = lower[near + len(lead) : name.end()]
    first_line = text[value.start : value.end].lstrip().partition(b"\n")[0]
    return value if is_credential(whole, first_line.rstrip().strip(_QUOTE_BYTES)) else None


def _value(text: bytes, start: int, end: int, lead: bytes) -> Span | None:
    match text[end : end + 1]:
        case b"=":
            return _span(_AFTER_EQUALS.match(text, end) or _ARROW.match(text, end))
        case b">":
            return _span(_ELEMENT.match(text, end))
        case b"\\" if found := _ELEMENT.match(text, end):
            return _span(found)
        case b":":
            return _behind_colon(text, start, end, lead)
        case b'"' | b"'" | b"\\" if key := _IS_KEY.match(text, end):
            if found := _ARROW.match(text, end):
                return _span(found)
            if text.startswith(b"{", key.end()):
                return None  # by far the most, in pods
            found = _SAME_QUOTES.match(text, end) or _AFTER_QUOTE.match(text, end)
            if found and found.lastgroup in ("double", "bare"):
                return _span(found)  # on these JSON and YAML agree
            return _in_yaml(text, start, end) or _span(found)
        case b'"' | b"'" | b"\\" | b" " | b"\t" | b"\n" | b"\r":
            return _behind_space(text, start, end, lead)
    return None


def _in_yaml(text: bytes, start: int, end: int) -> Span | None:
    """The value of a key in quotes that a line begins with."""
    blanks = _BLANKS.match(text, end + 1)
    key = _QUOTED_KEY.match(below.line_before(text, start) or b"") if blanks else None
    if key is None or blanks is None or not text.startswith(key["quote"], end):
        return None
    return below.scalar(text, blanks.end(), len(key["lead"]))


def _behind_colon(text: bytes, start: int, end: int, lead: bytes) -> Span | None:
    line = below.line_before(text, start)
    key_lead = b"?" if line is None else line.rstrip(_WORD_BYTES + b"./")
    blanks = _BLANKS.match(text, end)
    if not key_lead.strip(b" \t-"):
        if blanks is None and (value := below.underlined(text, end)):
            return value
        word = text[start - len(line or b"") + len(key_lead) : end]
        if blanks and not (word.istitle() and _SENTENCE.match(text, end)):
            return below.scalar(text, blanks.end(), len(key_lead))
    if blanks is not None:
        return _span(_SPOKEN.match(text, end))
    if _is_in_map(lead):
        return _span(_IN_MAP.match(text, end))
    name = text[max(0, start - NEAR_BYTES) + len(lead) : end]
    return None if lead.endswith((b"/", b":", b"@")) or b"-" in name else _span(_CLOSE.match(text, end))


def _is_in_map(lead: bytes) -> bool:
    """Whether the innermost bracket that is open at the end of this is of a map as Go prints it."""
    line = lead.rfind(b"\n") + 1
    if lead.find(b"map[", line) < 0:
        return False
    closed = 0
    for bracket in reversed(_BRACKET.findall(lead, line)):
        closed += 1 if bracket == b"]" else -1
        if closed < 0:
            return bool(bracket == b"map[")
    return False


def _behind_space(text: bytes, start: int, end: int, lead: bytes) -> Span | None:
    """What follows a name without a sign; or one with spaces around it."""
    if found := _AFTER_EQUALS.match(text, end) or _ARROW.match(text, end):
        return _span(found)
    if text.startswith(b"-", max(0, start - NEAR_BYTES) + len(lead)):
        if found := _ARGUMENT.match(text, end):
            return _span(found)
        is_item = lead.endswith((b'"', b"'")) and lead.rstrip(_QUOTE_BYTES).rstrip().endswith((b"[", b","))
        found = _NEXT_STRING.match(text, end) if is_item else None
        return _span(found) or below.argument_below(text, start, end)
    return _of_variable(text, start, end) if _is_name(lead.rstrip(_WORD_BYTES + b".")) else None


def _of_variable(text: bytes, start: int, end: int) -> Span | None:
    """The value beside a key `name`."""
    key = _VALUE_BELOW.match(text, end)
    if key is None:
        return None
    line = text.rfind(b"\n", end, key.end()) + 1
    if line and below.line_before(text, start) is None:
        return None
    if line and key["quote"] is None:
        return below.scalar(text, key.end(), len(text[line : key.end()]) - len(text[line : key.end()].lstrip()))
    value = _ITS_VALUE.match(text, key.end())
    if value is None or value.lastgroup != "bare":
        return _span(value)
    quote = key["quote"] or b""
    return Span(*value.span("bare"), before=quote, after=quote)


def _is_name(lead: bytes) -> bool:
    """Whether this ends with the key `name`, so that what follows is the name of a variable."""
    key = lead.rstrip(b" " + _QUOTE_BYTES)
    if not key.endswith(b":"):
        return False
    key = key[:-1].rstrip(_QUOTE_BYTES)
    return key[-4:].lower() == b"name" and not key[:-4].endswith(tuple(_WORD_BYTES[i : i + 1] for i in range(64)))


def _span(found: re.Match[bytes] | None) -> Span | None:
    """The value of a rule's match; where its key is in quotes and it is not, as a number in JSON, it gets the same."""
    if found is None or found.lastgroup is None:
        return None
    quote = found["quote"] if found.lastgroup == "bare" else b""
    return Span(*found.span(found.lastgroup), before=quote, after=quote)
