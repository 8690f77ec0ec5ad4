"""Lists of values below one name, as `tokens: [a, b]`: each is masked by itself, so that the list keeps its length."""

import re
from dataclasses import dataclass

from executor.masking import below
from executor.masking.shapes import Span
from executor.masking.values import NUMBER, QUOTE, STRING

_NAME = re.compile(rb"(?:passw(?:or)?d|passphrase|pwd|token|credential|key)s?+")
_IN_BRACKETS = re.compile(rb"(?P<quote>" + QUOTE + rb")?+[ \t]{0,8}+:[ \t]{0,8}+\[")
_BELOW = re.compile(rb"[\"']?:[ \t]{0,8}+\r?\n(?P<indent> *+)- ")
_ITEM = re.compile(
    rb"[\s,]{0,200}+(?:" + STRING + QUOTE + rb"(?![ \t]*:)|(?P<number>" + NUMBER + rb")|" + QUOTE + QUOTE + rb"|true|false|null)"
)


@dataclass(frozen=True, slots=True)
class Items:
    """A list that is being read: in brackets, with the quote of its name, or else with dashes in a column."""

    quote: bytes = b'"'
    column: int | None = None

    def take(self, text: bytes, start: int) -> tuple[list[Span], int]:
        """The values from here on, and where they are over."""
        return self._strings(text, start) if self.column is None else self._scalars(text, start, self.column)

    def _strings(self, text: bytes, start: int) -> tuple[list[Span], int]:
        values = []
        while found := _ITEM.match(text, start):
            group = found.lastgroup
            if group is not None:
                quote = self.quote if group == "number" else b""
                values.append(Span(*found.span(group), before=quote, after=quote))
            start = found.end()
        return values, start

    def _scalars(self, text: bytes, start: int, column: int) -> tuple[list[Span], int]:
        values = []
        while text.startswith(b" " * column + b"- ", start):
            value = below.item(text, start, column)
            if value is not None:
                values.append(value)
                start = value.end
            if value is None or value.below is None:
                start = text.find(b"\n", start) + 1 or len(text)
        return values, start


def find_list(text: bytes, lower: bytes, start: int) -> tuple[Items, int] | None:
    """The list that the name has which ends in the word at `start`, and where its items begin."""
    name = _NAME.match(lower, start)
    if name is None:
        return None
    if found := _IN_BRACKETS.match(text, name.end()):
        return Items(found["quote"] or b'"'), found.end()
    lead = below.line_before(text, start)
    found = _BELOW.match(text, name.end())
    if found is None or lead is None:
        return None
    is_deep_enough = len(found["indent"]) >= len(lead) - len(lead.lstrip(b" "))
    return (Items(column=len(found["indent"])), found.start("indent")) if is_deep_enough else None
