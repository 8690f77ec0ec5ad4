"""Masks what looks like a credential, wherever it stands: by its own shape, or by the name before it.

Every rule begins at a word of a table, which one pass over the text looks for; most text has none of them nearby. What
only resembles a credential passes: digests, uids, certificates, names of Secrets, references to them.
"""

import re
from collections.abc import Iterator

from executor.masking import below, named, shapes
from executor.masking.held import lead_from
from executor.masking.lists import Items, find_list
from executor.masking.marker import MARKER
from executor.masking.shapes import Span
from executor.masking.words import BEFORE_WORD, CANDIDATE, NAMES, SHAPES


class Credentials:
    """The last stage. `masked` counts values."""

    def __init__(self) -> None:
        self.masked = 0
        self._kept = b""  # a line that names the value on the next one
        self._below: re.Pattern[bytes] | None = (
            None  # a value on several lines is being left out, as long as this matches
        )
        self._list: Items | None = None  # a list of values is being read
        self._in_key = False  # and so is a private key

    def feed(self, block: bytes) -> bytes:
        """Takes whole lines, or pieces of a very long one."""
        text = self._go_on(self._kept + block)
        cut = lead_from(text)
        self._kept = text[cut:]
        told = self._mask(text[:cut])
        if self._in_key and not self._kept:  # blanks may be part of it, too
            self._kept = told[len(told.rstrip()) :]
            told = told[: len(told) - len(self._kept)]
            self._in_key = len(self._kept) <= shapes.MOST_BLANKS
        return told

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
        if self._below is not None:
            end = below.end_of(self._below, text, 0)
            if end < len(text):
                self._below = None
            text = text[end:]
        return text

    def _mask(self, text: bytes) -> bytes:
        pieces: list[bytes] = []
        done = 0
        for span in self._spans(text):
            pieces += (text[done : span.start], span.before, MARKER, span.after)
            done = span.end
            self.masked += 1
            if span.below is not None and done == len(text):
                self._below = span.below
        return b"".join((*pieces, text[done:])) if pieces else text

    def _spans(self, text: bytes) -> Iterator[Span]:
        """What is to be masked, in the order of the text."""
        done = 0
        lower = text.lower()
        if self._list is not None and text:
            values, done = self._items(self._list, text, 0)
            yield from values
        for candidate in CANDIDATE.finditer(lower):
            start = candidate.start()
            if start < done:
                continue
            span = self._span(text, lower, start, candidate[0], done)
            if span is not None and span.start >= done:
                done = span.end
                yield span
            elif span is None and candidate[0] in NAMES and (found := find_list(text, lower, start)):
                values, done = self._items(found[0], text, found[1])
                yield from values

    def _items(self, items: Items, text: bytes, start: int) -> tuple[list[Span], int]:
        values, done = items.take(text, start)
        self._list = items if done == len(text) else None
        return values, done

    def _span(self, text: bytes, lower: bytes, start: int, word: bytes, done: int) -> Span | None:
        shape = SHAPES.get(word)
        if shape is not None:
            found = shape.match(text, max(0, start - BEFORE_WORD.get(word, 0)))
            return Span(*found.span("value")) if found else None
        if word == shapes.KEY_ENDS:
            key = shapes.private_key(text, start, done)
            self._in_key = key is not None and key.is_open
            return key
        return named.find_value(text, lower, start)
