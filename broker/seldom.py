"""Lines of the log for what anybody can make happen as often as they like: one a minute tells of all since the last."""

from time import monotonic

TELL_EVERY_S = 60.0


class Seldom:
    def __init__(self) -> None:
        self._untold = 0
        self._told_at = float("-inf")

    def count(self) -> int:
        """It has happened once more; how often since it was told, if it is to be told now, and else 0."""
        self._untold += 1
        now = monotonic()
        if now - self._told_at < TELL_EVERY_S:
            return 0
        told, self._untold, self._told_at = self._untold, 0, now
        return told
