"""Credentials that were refused: how many there were, and how long the answer to the next one is held back.

Whoever guesses has to wait for each answer, and the more guess, the longer: who has an answer asks again, and new calls
are taken one after another, those of good callers among them. How many wait at one time is bounded, since what is held
costs memory; beyond that a refusal is answered at once. Nobody who shows a good credential comes here.
"""

from collections import deque
from collections.abc import Mapping
from enum import StrEnum

# Long for a program that guesses, short for a person who has mistyped.
HOLD_S = 0.5
# So many answers a second, however many ask.
MAX_RATE = 500.0
# At some 20 KB for a call of its own.
MAX_HELD = 10_000
# The log tells of them together, no more often than this.
TELL_EVERY_S = 60.0


class Kind(StrEnum):
    """What was refused; one that was missing counts as well."""

    API_KEY = "api_key"
    EXECUTOR_TOKEN = "executor_token"  # noqa: S105  (the name of a kind)


class Suspicion:
    """Of one replica. Instants are of any clock that only goes forward."""

    def __init__(self) -> None:
        self.refused = dict.fromkeys(Kind, 0)
        # When each of those that are held back will be answered, the earliest first.
        self._held_until: deque[float] = deque()
        self._told = dict(self.refused)
        self._told_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Suspicion held={len(self._held_until)} refused={sum(self.refused.values())}>"

    def refuse(self, kind: Kind, *, now: float) -> float:
        """Counts a credential that was refused; returns for how long its answer must be held back, 0 for not at all."""
        self.refused[kind] += 1
        held = self._held_until
        while held and held[0] <= now:
            held.popleft()
        if len(held) >= MAX_HELD:
            return 0.0
        until = max(now + HOLD_S, held[-1] + 1 / MAX_RATE) if held else now + HOLD_S
        held.append(until)
        return until - now

    def tell(self, *, now: float) -> Mapping[Kind, int]:
        """How many were refused since this was told last; empty when it is too early to tell again."""
        if now - self._told_at < TELL_EVERY_S:
            return {}
        since = {kind: count - self._told[kind] for kind, count in self.refused.items() if count > self._told[kind]}
        if since:
            self._told = dict(self.refused)
            self._told_at = now
        return since
