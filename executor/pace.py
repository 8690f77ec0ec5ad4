"""How long to wait before dialing again: full jitter under a bound that doubles. Pure.

https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ shows why the whole interval is random: after
a broker's restart the executors of all clusters come back at once.
"""

from openline import limits
from openline.v1 import executor_service_pb2 as wire

# After a refusal that only a person, a token rotation or the end of another executor changes.
REFUSED_S = 10.0
# While commands wait for the line: a broker gives them up after a grace of 10 s, so it is dialed often within that.
URGENT_S = 1.0


def sane(seconds: float, default: float, *, low: float, high: float) -> float:
    """A duration that a broker sent, or the default where it is zero, negative, endless or not a number."""
    return seconds if low <= seconds <= high else default


class Pace:
    """The bound, as the last Welcome and the connections since set it."""

    def __init__(self, *, refused_s: float = REFUSED_S) -> None:
        self._min_s = limits.RECONNECT_MIN_S
        self._max_s = limits.RECONNECT_MAX_S
        self._bound_s = self._min_s
        self._refused_s = refused_s

    def follow(self, policy: wire.ReconnectPolicy) -> None:
        """Takes over a broker's policy; what it leaves out stays, and nothing makes this a busy loop."""
        self._min_s = sane(policy.min_s, self._min_s, low=0.01, high=60.0)
        self._max_s = max(sane(policy.max_s, self._max_s, low=0.01, high=300.0), self._min_s)

    def stood(self, lived_s: float) -> bool:
        """Whether a connection that lived so long was a good one: longer than the wait before the next can be. After
        such a one the bound starts anew."""
        if lived_s <= self._bound_s:
            return False
        self._bound_s = self._min_s
        return True

    def lost(self, lived_s: float, chance: float, *, urgent: bool = False) -> float:
        """The wait after a connection that lived so long (0: it never stood); `chance` is random in 0..1.

        One that keeps breaking too soon to have been good is dialed less and less often, but not while it is `urgent`:
        a command is held.
        """
        self.stood(lived_s)
        wait_s = (min(self._bound_s, max(URGENT_S, self._min_s)) if urgent else self._bound_s) * chance
        self._bound_s = min(max(self._bound_s * 2, self._min_s), self._max_s)
        return wait_s

    def refused(self, chance: float) -> float:
        """The wait after a refusal: long, and never less than half of that."""
        return self._refused_s * (1 + chance) / 2
