"""How many answers came when, in bounded memory: slots that become twice as wide when there are too many of them."""

FIRST_WIDTH_S = 0.25
MAX_SLOTS = 240


class Timeline:
    """Counts of what happened, by the time since the beginning."""

    def __init__(self) -> None:
        self.width_s = FIRST_WIDTH_S
        self.counts: list[int] = []

    def record(self, at_s: float) -> None:
        """Something happened `at_s` seconds after the beginning."""
        while (slot := int(at_s / self.width_s)) >= MAX_SLOTS:
            self._widen()
        if slot >= len(self.counts):
            self.counts.extend([0] * (slot + 1 - len(self.counts)))
        self.counts[slot] += 1

    def rates(self, until_s: float) -> list[tuple[float, float]]:
        """`(at_s, per_second)` for each slot that was over by `until_s`; of a shorter time, for all of it at once.

        Nothing when nothing happened.
        """
        if not self.counts:
            return []
        whole = int(until_s / self.width_s)
        if not whole:
            return [(0.0, sum(self.counts) / until_s)] if until_s > 0 else []
        counts = [*self.counts[:whole], *[0] * (whole - len(self.counts))]
        return [(slot * self.width_s, count / self.width_s) for slot, count in enumerate(counts)]

    def _widen(self) -> None:
        self.width_s *= 2
        pairs = zip(self.counts[::2], [*self.counts[1::2], 0], strict=False)
        self.counts = [first + second for first, second in pairs]
