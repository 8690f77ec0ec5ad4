"""Lists of values below one name, as `tokens: [a, b]`: each is masked by itself, so that the list keeps its length."""

import re
from dataclasses import dataclass

from executor.masking import below
from executor.masking.named import KEY
from executor.masking.shapes import Span
from executor.masking.values import NUMBER, QUOTE, STRING

# In lower case: the name, and what begins a list behind it.
_BEGINS = re.compile(
    rb"(?:passw(?:or)?d|passphrase|pwd|token|credential|" + KEY + rb")s?+"
    rb"(?:(?P<quote>" + QUOTE + rb")[ \t]{0,8}+:[ \t]{0,8}+\[|: \[(?=\r?\n)|(?P<below>[\"']?:[ \t]{0,8}+\r?\n))"
)  # fmt: skip
_KEY = re.compile(rb" *+(?:- )*+[\"']?[\w./-]*+")
_DASH = re.compile(rb" *+(?=- )")
_ITEM = re.compile(
    rb"[\s,]{0,200}+(?:" + STRING + QUOTE + rb"(?![ \t]*:)"
    rb"|(?P<number>" + NUMBER + rb")|" + QUOTE + QUOTE + rb"|true|false|null)"
)  # fmt: skip
_BLANKS = re.compile(rb"[\s,]{0,200}+")


@dataclass(slots=True)
class Items:
    """A list that is being read: in brackets, with the quote of its name, or with dashes, from some column on."""

    quote: bytes = b'"'
    least_column: int | None = None
    column: int | None = None  # where the dashes are, when one has been seen

    def take(self, text: bytes, start: int) -> tuple[list[Span], int]:
        """The values from here on, and where they are over."""
        return (
            self._strings(text, start) if self.least_column is None else self._scalars(text, start, self.least_column)
        )

    def _strings(self, text: bytes, start: int) -> tuple[list[Span], int]:
        values = []
        while found := _ITEM.match(text, start):
            group = found.lastgroup
            if group not in (None, "number") and not text.startswith(
                self.quote, found.start(group or 0) - len(self.quote)
            ):
                break
            if group is not None:
                quote = self.quote if group == "number" else b""
                values.append(Span(*found.span(group), before=quote, after=quote))
            start = found.end()
        blanks = _BLANKS.match(text, start)
        return values, blanks.end() if blanks else start

    def _scalars(self, text: bytes, start: int, least_column: int) -> tuple[list[Span], int]:
        values: list[Span] = []
        if self.column is None and (dash := _DASH.match(text, start)):
            self.column = dash.end() - start
        if self.column is None or self.column < least_column:
            return values, start
        column = self.column
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
    found = _BEGINS.match(lower, start)
    if found is None:
        return None
    if found["below"] is None:
        return Items(found["quote"] or b'"'), found.end()
    line = below.line_before(text, start)
    if line is None or not _KEY.fullmatch(line):
        return None
    return Items(least_column=len(line) - len(line.lstrip(b" "))), found.end()
