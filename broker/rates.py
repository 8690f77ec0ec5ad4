"""Rates and percentiles from the totals of overviews. Pure.

Each replica says what it has counted since its start, so the difference of two looks is what happened between them: a
look that was missed costs nothing, and a replica that was restarted begins anew. The live page does the same
(`rates.js`).
"""

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from openline.v1 import overview_pb2

# An outcome, and a reason or none.
End = tuple[str, str]
# Outcomes that are no errors.
GOOD = ("exited", "cancelled")
# So long the totals of a replica are kept that is not told of: it may be frozen, or unknown to the one that is asked.
FORGOTTEN_AFTER_S = 300.0


@dataclass(slots=True)
class Durations:
    """How many were at most each bound, and above the one before."""

    counts: Counter[float] = field(default_factory=Counter)

    def add(self, other: "Durations") -> None:
        self.counts.update(other.counts)

    def count(self, before: overview_pb2.Durations, now: overview_pb2.Durations) -> None:
        """What was counted between two looks."""
        for index, counted in enumerate(now.counts):
            bound = now.bounds_s[index] if index < len(now.bounds_s) else math.inf
            earlier = before.counts[index] if index < len(before.counts) else 0
            self.counts[bound] += max(0, counted - earlier)

    def percentile(self, share: float) -> float | None:
        """What a share of all is not above, as near as the bounds tell; None without any."""
        total = self.counts.total()
        below, lower = 0, 0.0
        for bound in sorted(self.counts) if total else ():
            count = self.counts[bound]
            if count and below + count >= share * total:
                # Of those above all bounds nothing is known but that.
                return lower if bound == math.inf else lower + (bound - lower) * (share * total - below) / count
            below += count
            lower = lower if bound == math.inf else bound
        return lower if total else None


@dataclass(slots=True)
class Step:
    """What has happened within so many seconds."""

    seconds: float = 0.0
    ends: Counter[End] = field(default_factory=Counter)
    total: Durations = field(default_factory=Durations)

    @property
    def per_second(self) -> float | None:
        return self.ends.total() / self.seconds if self.seconds else None

    @property
    def error_share(self) -> float | None:
        """Of what was asked, how much has no exit code and was not cancelled."""
        total = self.ends.total()
        bad = sum(count for (outcome, _), count in self.ends.items() if outcome not in GOOD)
        return bad / total if total else None


class History:
    """The last minute, or however much is `kept_s`."""

    def __init__(self, *, kept_s: float = 60.0) -> None:
        self._kept_s = kept_s
        self._steps: deque[Step] = deque()
        self._seconds = 0.0
        # Seconds of all looks.
        self._now = 0.0
        # By replica and start, with when it was told of.
        self._last: dict[tuple[str, int], tuple[float, overview_pb2.Figures]] = {}

    def take(self, overview: overview_pb2.Overview, *, seconds: float) -> None:
        """The next look, so long after the one before."""
        step = Step(seconds)
        is_first = not self._last
        self._now += seconds
        for replica in overview.replicas:
            if replica.HasField("figures"):
                name = (replica.replica.replica_id, replica.replica.started_at.ToMilliseconds())
                # One that is seen for the first time may have counted for days.
                if (before := self._last.get(name)) is not None:
                    _count(step, before[1], replica.figures)
                self._last[name] = self._now, replica.figures
        oldest = self._now - FORGOTTEN_AFTER_S
        self._last = {name: last for name, last in self._last.items() if last[0] >= oldest}
        if is_first:
            return
        self._steps.append(step)
        self._seconds += seconds
        while len(self._steps) > 1 and self._seconds - self._steps[0].seconds >= self._kept_s:
            self._seconds -= self._steps.popleft().seconds

    def over(self, seconds: float) -> Step:
        """The last so many seconds, as far as they are known."""
        together = Step()
        for step in self._newest(seconds):
            together.seconds += step.seconds
            together.ends.update(step.ends)
            together.total.add(step.total)
        return together

    def _newest(self, seconds: float) -> Iterable[Step]:
        covered = 0.0
        for step in reversed(self._steps):
            if covered >= seconds:
                return
            covered += step.seconds
            yield step


def _count(step: Step, before: overview_pb2.Figures, now: overview_pb2.Figures) -> None:
    earlier = {(end.outcome, end.reason, end.agent_call): end.count for end in before.ends}
    for end in now.ends:
        new = end.count - earlier.get((end.outcome, end.reason, end.agent_call), 0)
        step.ends[end.outcome, end.reason] += max(0, new)
    step.total.count(before.total, now.total)
