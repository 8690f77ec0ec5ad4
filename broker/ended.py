"""The commands that have ended lately, remembered only while somebody looks at them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.command import Ask, Command
from openline.v1 import command_pb2

# Whoever looks does so at least every ten seconds.
LOOKED_AT_FOR_S = 15.0
MOST = 100


@dataclass(frozen=True, slots=True)
class Ended:
    """One of them, without what it wrote: that may be megabytes."""

    ask: Ask
    asked_at: Timestamp
    outcome: command_pb2.Outcome.ValueType
    exit_code: int
    reason: str
    total_s: float
    executor_id: str
    # The other replica that told its end; empty where it was this one.
    replica_id: str
    ended_at: float


class EndedCommands:
    """The newest ones of those that callers asked this replica for."""

    def __init__(self) -> None:
        self._ended: deque[Ended] = deque(maxlen=MOST)
        self._until = 0.0

    def __len__(self) -> int:
        return len(self._ended)

    def add(self, command: Command) -> None:
        """The command has its result."""
        result, now = command.result, monotonic()
        if now > self._until:
            # On the way of every command: nobody looks, and what was kept for them goes.
            self._ended.clear()
        elif result is not None:
            self._ended.append(
                Ended(
                    ask=command.ask,
                    asked_at=command.asked_at,
                    outcome=result.outcome,
                    exit_code=result.exit_code,
                    reason=result.error.reason,
                    total_s=result.timings.total_s,
                    executor_id=result.executor_id,
                    replica_id=command.replica_id,
                    ended_at=now,
                )
            )

    def newest(self) -> Iterator[Ended]:
        """Those of the last seconds, newest first; from now on they are remembered, for somebody looks."""
        oldest = monotonic() - LOOKED_AT_FOR_S
        self._until = monotonic() + LOOKED_AT_FOR_S
        return (ended for ended in reversed(self._ended) if ended.ended_at >= oldest)
