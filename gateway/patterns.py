"""Patterns that callers bring: RE2 syntax, matched in time linear in the text, whatever the pattern.

Python's own engine backtracks: a pattern of twenty characters can keep it busy for years.
"""

import re2

MAX_PATTERN_CHARS = 500
# Of the compiled pattern. `\pL{200}` has a quarter of a million, and takes ten seconds for what others do at once.
MAX_PROGRAM = 5_000
_MEMORY_BYTES = 8 << 20


class BadPattern(ValueError):
    """The pattern is malformed, or too large once compiled; the message says which."""


class Pattern:
    """A compiled pattern. `search` looks anywhere in a text, `fullmatch` takes all of it."""

    __slots__ = ("_compiled",)

    def __init__(self, text: str) -> None:
        """Raises BadPattern."""
        if len(text) > MAX_PATTERN_CHARS:
            raise BadPattern(f"the pattern has more than {MAX_PATTERN_CHARS} characters")
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MEMORY_BYTES
        try:
            self._compiled = re2.compile(text, options=options)
        except UnicodeEncodeError:
            raise BadPattern("the pattern is not Unicode text") from None
        except re2.error as wrong:
            why = wrong.args[0] if wrong.args else "malformed"
            told = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
            raise BadPattern(f"not a pattern of RE2: {told}") from None
        if self._compiled.programsize > MAX_PROGRAM:
            raise BadPattern("the pattern is too large: repeat less")

    def search(self, text: str) -> bool:
        return self._compiled.search(text) is not None

    def fullmatch(self, text: str) -> bool:
        return self._compiled.fullmatch(text) is not None
