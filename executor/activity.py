"""Whether the cluster is in use, as the broker says it, and how often to heartbeat then. Pure."""

from executor.pace import sane

# Faster than that a heartbeat tells nobody anything.
FASTEST_BEAT_S = 1.0
# A broker that goes on for longer says so again.
LONGEST_ACTIVITY_S = 3600.0
# So many heartbeats fit into the time after which the broker takes silence for the end.
BEATS_PER_SILENCE = 2


class Activity:
    """The cluster is in use until an instant, on the clock that `now` is read from."""

    def __init__(self) -> None:
        self._until = float("-inf")

    def heard(self, active_for_s: float, now: float) -> bool:
        """Takes over what a broker says; whether the cluster is in use now."""
        self._until = now + sane(active_for_s, 0.0, low=0.0, high=LONGEST_ACTIVITY_S)
        return self.active(now)

    def active(self, now: float) -> bool:
        return now < self._until

    def beat_s(self, interval_s: float, *, silence_s: float, now: float) -> float:
        """The time to the next heartbeat, of the interval and the silence limit in Welcome."""
        slowest_s = min(interval_s, silence_s / BEATS_PER_SILENCE)
        return min(slowest_s, max(FASTEST_BEAT_S, slowest_s / 2)) if self.active(now) else slowest_s
