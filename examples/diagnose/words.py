"""What the diagnosis and a transport say to each other."""

import json
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """A kubectl command, what of its output is wanted, and why: what is known so far, and what it is to tell."""

    why: str
    argv: tuple[str, ...]
    # In this order: what a query of RFC 9535 selects, the lines that match, the last so many of them.
    jsonpath: str | None = None
    grep: str | None = None
    tail: int | None = None

    def shaping(self) -> dict[str, str | int]:
        """As openline's gateway takes it: what is not wanted is not there."""
        wanted = {"jsonpath": self.jsonpath, "grep": self.grep, "tail": self.tail}
        return {name: value for name, value in wanted.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The command was not run, or did not come to its end."""

    reason: str
    message: str
    # Set where the same may be done later.
    retry_after_s: float | None = None
    # Names of clusters that may have been meant.
    near: tuple[str, ...] = ()
    # What the policy would let run instead.
    allowed: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What kubectl printed, shaped; or why it did not."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = 0
    refusal: Refusal | None = None

    @property
    def is_good(self) -> bool:
        """Nothing in it means that there is nothing."""
        return self.exit_code == 0 and self.refusal is None

    def lines(self) -> list[str]:
        return [line for line in self.stdout.splitlines() if line.strip()]

    def values(self) -> list[Any]:
        """What `jsonpath` selected, a value a line; nothing if the command failed, or printed no whole JSON."""
        try:
            return [json.loads(line) for line in self.lines()] if self.is_good else []
        except ValueError:
            return []


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and the lines that say so."""

    subject: str
    cause: str
    evidence: tuple[str, ...]


def printable(text: str) -> str:
    """What clusters print may have been written by anybody: nothing of it is to act on a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


class GaveUp(Exception):
    """There is no way to an answer."""


# Runs a step in a cluster.
Run = Callable[[str, Step], Awaitable[Answer]]
# Asks step by step, and ends with what it has found, if anything.
Plan = Generator[Step, Answer, Finding | None]
