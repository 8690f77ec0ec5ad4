"""What a run of the load test has found: figures, single facts, ratios, and on what machine."""

import time
from dataclasses import dataclass, field
from typing import Any

from loadtest import machine
from loadtest.figures import OK, Figures


@dataclass(slots=True)
class Measured:
    """One way of asking under one load."""

    name: str
    callers: int
    figures: Figures = field(default_factory=Figures)
    # Of each process, for one command; those of which the CPU time can be seen.
    cpu_us: dict[str, float] = field(default_factory=dict)
    # How commands may end besides `OK`.
    allowed: frozenset[str] = frozenset()

    @property
    def is_good(self) -> bool:
        """Whether something was asked, and all of it ended as it may."""
        return self.figures.latencies.count > 0 and self.figures.ends.keys() <= {OK, *self.allowed}

    def as_json(self) -> dict[str, Any]:
        cpu_us = {name: round(us, 1) for name, us in self.cpu_us.items()}
        return {"callers": self.callers, **self.figures.as_json(), "cpu_us_per_command": cpu_us}


@dataclass(frozen=True, slots=True)
class Fact:
    """A single number, with its unit."""

    name: str
    value: float
    unit: str


@dataclass(slots=True)
class Report:
    """Grows while a command of the load test runs, so that there is something to show also when it is stopped."""

    command: str
    # As they were given, without secrets.
    settings: dict[str, Any]
    measured: list[Measured] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    # By key; None for what could not be measured here.
    ratios: dict[str, float | None] = field(default_factory=dict)
    # What they are to be held against.
    committed: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    # What was asked for and did not come true.
    failures: list[str] = field(default_factory=list)
    begun_at: float = field(default_factory=time.time)
    machine: dict[str, Any] = field(default_factory=machine.describe)

    @property
    def is_good(self) -> bool:
        """Whether everything ended as expected."""
        return not self.failures and all(each.is_good for each in self.measured)

    def as_json(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "settings": self.settings,
            "begun_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.begun_at)),
            "machine": {**self.machine, "load_average_after": machine.describe()["load_average"]},
            "measured": {each.name: each.as_json() for each in self.measured},
            "facts": {fact.name: {"value": round(fact.value, 3), "unit": fact.unit} for fact in self.facts},
            "ratios": {key: None if ratio is None else round(ratio, 3) for key, ratio in self.ratios.items()},
            "notes": self.notes,
            "failures": self.failures,
        }
