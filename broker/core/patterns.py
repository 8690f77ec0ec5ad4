"""Which clusters a key sees: patterns of cluster ids, in which `*` stands for any characters, or none."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

MAX_PATTERNS = 100
_EVERY = ("*",)
_PATTERN = re.compile(r"[a-z0-9*-]{1,100}")


@dataclass(frozen=True, slots=True)
class Patterns:
    """Those of one key, of which a cluster has to fit one; sorted, and never none."""

    texts: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """What somebody wrote down; nothing at all is every cluster. Raises ValueError, which shows none of it."""
        known = sorted({re.sub(r"\*+", "*", text) for text in texts}) or ["*"]
        if len(known) > MAX_PATTERNS:
            raise ValueError(f"at most {MAX_PATTERNS} patterns")
        if not all(map(_PATTERN.fullmatch, known)):
            raise ValueError("patterns are 1..100 of a-z, 0-9, - and *")
        return cls(_EVERY if "*" in known else tuple(known))

    @property
    def is_every(self) -> bool:
        return self.texts == _EVERY

    def sees(self, cluster_id: str) -> bool:
        return self.is_every or any(_fits(cluster_id, pattern) for pattern in self.texts)

    def covers(self, others: Self) -> bool:
        """Whether for each of the others there is one here that sees as much."""
        # The stars of the other pattern are characters like any, which nothing but a star stands for.
        return all(any(_fits(other, pattern) for pattern in self.texts) for other in others.texts)


EVERY = Patterns(_EVERY)
# No cluster's id is such.
NO_CLUSTER = Patterns(("-",))


def _fits(text: str, pattern: str) -> bool:
    """In time linear in the text for each star, whatever the two are."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *middle, last = others
    at, end = len(first), len(text) - len(last)
    if at > end or not (text.startswith(first) and text.endswith(last)):
        return False
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
