"""What AI agents ask for, how often, and about how much they get: none of it needs a name that only one cluster has."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """One kind of command."""

    weight: int
    argv: tuple[str, ...]
    output_bytes: int  # of a simulated executor; what a cluster of some dozens of pods says

    @property
    def name(self) -> str:
        return " ".join(self.argv)


MIX = (
    Wanted(36, ("get", "pods"), 2_000),
    Wanted(14, ("get", "pods", "-A", "-o", "wide"), 12_000),
    Wanted(14, ("get", "events"), 6_000),
    Wanted(12, ("logs", "-l", "app", "--tail=50"), 24_000),
    Wanted(10, ("describe", "pods"), 20_000),
    Wanted(8, ("get", "deployments"), 1_000),
    Wanted(4, ("get", "nodes", "-o", "json"), 48_000),
    Wanted(2, ("version",), 300),
)
OUTPUT_BYTES = {each.argv: each.output_bytes for each in MIX}
_WEIGHTS = [each.weight for each in MIX]
# Nobody thinks for longer than so many times the usual.
MAX_THINK = 5.0


def pick(chance: random.Random) -> Wanted:
    """One of them, the more likely the heavier it is."""
    return chance.choices(MIX, _WEIGHTS)[0]


def think_s(chance: random.Random, mean_s: float) -> float:
    """How long an AI agent reads and thinks before its next command: mostly short, sometimes long."""
    return min(chance.expovariate(1 / mean_s), MAX_THINK * mean_s) if mean_s else 0.0
