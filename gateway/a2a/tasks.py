"""Tasks and what is told of them, in the words of neither version of the protocol. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How far a task is."""

    SUBMITTED = "submitted"  # no executor has it yet
    WORKING = "working"
    COMPLETED = "completed"  # kubectl ended with exit code 0
    FAILED = "failed"  # it ended otherwise, or was stopped, or nobody knows
    CANCELED = "canceled"
    REJECTED = "rejected"  # nothing was run


# Among the facts of a task: it was there before.
REPLAYED = "replayed"

ENDS = frozenset({State.COMPLETED, State.FAILED, State.CANCELED, State.REJECTED})


@dataclass(frozen=True, slots=True)
class Status:
    state: State
    # For a person or a model; empty for nothing to say.
    text: str = ""
    # The same for a program.
    facts: Mapping[str, Any] = field(default_factory=dict)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Artifact:
    """One of the streams, or a piece of it; its name is its id."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Task:
    """A command. Its id is the command's, its context the correlation id."""

    id: str
    context_id: str
    status: Status
    artifacts: tuple[Artifact, ...] = ()

    @property
    def is_replayed(self) -> bool:
        """Its message was sent before, and this is what became of it then."""
        return REPLAYED in self.status.facts
