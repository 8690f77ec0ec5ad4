"""Masks what looks like a credential, wherever it stands: by its own shape, or by the name before it.

Every rule begins at a word of a table, which one pass over the text looks for; most text has none of them nearby. What
only resembles a credential passes: digests, uids, certificates, names of Secrets, references to them.
"""

from executor.masking import named, shapes
from executor.masking.marker import MARKER
from executor.masking.shapes import Span
from executor.masking.words import CANDIDATE, SHAPES


class Credentials:
    """The last stage. `masked` counts values."""

    def __init__(self) -> None:
        self.masked = 0
        self._kept = b""  # a line that names the value on the next one
        self._column: int | None = None  # a value on several lines is being left out; its key is in this column
        self._in_key = False  # and so is a private key

    def feed(self, block: bytes) -> bytes:
        """Takes whole lines, or pieces of a very long one."""
        text = self._go_on(self._kept + block)
        cut = named.lead_from(text)
        self._kept = text[cut:]
        return self._mask(text[:cut])

    def finish(self) -> bytes:
        """What is still held back."""
        text, self._kept = self._kept, b""
        return self._mask(text)

    def _go_on(self, text: bytes) -> bytes:
        """The text without what belongs to a value that has been masked already."""
        if self._in_key:
            rest = shapes.rest_of_key(text, 0)
            self._in_key = rest.is_open
            text = text[rest.end :]
            if rest.end:  # the marker has its line end already
                text = text.removeprefix(b"\r").removeprefix(b"\n")
        if self._column is not None:
            end = named.end_of_value(text, 0, self._column)
            if end < len(text):
                self._column = None
            text = text[end:]
        return text

    def _mask(self, text: bytes) -> bytes:
        pieces: list[bytes] = []
        done = 0
        lower = text.lower()
        for candidate in CANDIDATE.finditer(lower):
            if candidate.start() < done:
                continue
            span = self._span(text, lower, candidate.start(), candidate[0])
            if span is None or span.start < done:
                continue
            pieces += (text[done : span.start], span.before, MARKER, span.after)
            done = span.end
            self.masked += 1
        return b"".join((*pieces, text[done:])) if pieces else text

    def _span(self, text: bytes, lower: bytes, start: int, word: bytes) -> Span | None:
        shape = SHAPES.get(word)
        if shape is not None:
            found = shape.match(text, start)
            return Span(*found.span("value")) if found else None
        if word == shapes.KEY_ENDS:
            key = shapes.private_key(text, start)
            self._in_key = key is not None and key.is_open
            return key
        value = named.find_value(text, lower, start)
        if value is not None and value.column is not None and value.end == len(text):
            self._column = value.column
        return value
