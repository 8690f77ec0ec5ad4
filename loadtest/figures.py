"""What was measured of one contender under one load: latencies, how the commands ended, and when."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from loadtest.histogram import Histogram
from loadtest.timeline import Timeline

# How a command ends that ended as it should.
OK = "exit code 0"
PERCENTILES = (50, 90, 99, 100)


@dataclass(slots=True)
class Figures:
    """Latencies are of commands that ended well: a refusal is quick, and would make the others look better."""

    latencies: Histogram = field(default_factory=Histogram)
    ends: Counter[str] = field(default_factory=Counter)
    timeline: Timeline = field(default_factory=Timeline)
    seconds: float = 0.0

    def record(self, end: str, *, latency_s: float, at_s: float) -> None:
        """A command has ended, `at_s` after the beginning: with its exit code, its outcome, or why it did not run."""
        self.ends[end] += 1
        if end == OK:
            self.latencies.record(latency_s)
            self.timeline.record(at_s)

    @property
    def count(self) -> int:
        return self.ends.total()

    @property
    def rate(self) -> float:
        """Commands in a second that ended well."""
        return self.latencies.count / self.seconds if self.seconds else 0.0

    def percentile_ms(self, percent: float) -> float:
        return 1000 * self.latencies.percentile_s(percent)

    def merge(self, other: "Figures") -> None:
        """Adds a later turn of the same; the timelines are not joined, since there were others between them."""
        self.latencies.merge(other.latencies)
        self.ends.update(other.ends)
        self.seconds += other.seconds

    def as_json(self) -> dict[str, Any]:
        """Times in milliseconds; `None` for what could not be measured."""
        return {
            "seconds": round(self.seconds, 3),
            "count": self.count,
            "ends": dict(self.ends.most_common()),
            "rate": round(self.rate, 1),
            "latency_ms": {
                _name(percent): round(self.percentile_ms(percent), 4) if self.latencies.count else None
                for percent in PERCENTILES
            },
            "histogram_ms": [
                [round(low * 1000, 4), round(high * 1000, 4), count] for low, high, count in self.latencies.bars()
            ],
            "throughput": [[round(at, 2), round(rate, 1)] for at, rate in self.timeline.rates(self.seconds)],
        }


def _name(percent: int) -> str:
    return "max" if percent == 100 else f"p{percent}"
