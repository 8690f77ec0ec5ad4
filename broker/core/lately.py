"""Commands that have succeeded a moment ago, for identical ones whose callers take an answer as old as that."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from broker.core.command import Command
from openline.limits import MAX_ANSWER_AGE_S
from openline.v1 import command_pb2

MAX_COMMANDS = 1000
MAX_BYTES = 16 << 20
# One that is larger would push out too many.
MAX_COMMAND_BYTES = 2 << 20
# What a command takes beside its output.
COMMAND_BYTES = 2 << 10


class Entry(NamedTuple):
    """One of them; its output is there twice, in the result and as it came."""

    command: Command
    size: int
    ended_at: float


class Lately:
    """By what identical commands have in common, the newest of each kind; those that ended last stand last."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Lately commands={len(self)} bytes={self._bytes}>"

    def keep(self, key: Hashable, command: Command, now: float) -> None:
        """The command has ended; its result is kept if it succeeded."""
        result = command.result
        if result is None or result.outcome != command_pb2.OUTCOME_EXITED or result.exit_code:
            return
        self._drop(key)
        size = COMMAND_BYTES + 2 * (len(result.stdout) + len(result.stderr))
        if size > MAX_COMMAND_BYTES:
            return
        self._entries[key] = Entry(command, size, now)
        self._bytes += size
        while self._bytes > MAX_BYTES or len(self._entries) > MAX_COMMANDS:
            self._drop(next(iter(self._entries)))

    def find(self, key: Hashable, *, now: float, within_s: float) -> Command | None:
        """The one that was written to its executor no longer ago than this."""
        entry = self._entries.get(key)
        return None if entry is None or now - entry.command.written_at > within_s else entry.command

    def next_due(self) -> float | None:
        """When `forget` has something to do; a second late, so that it is done for many at a time."""
        oldest = next(iter(self._entries.values()), None)
        return None if oldest is None else oldest.ended_at + MAX_ANSWER_AGE_S + 1.0

    def forget(self, now: float) -> None:
        """Drops what is too old for anybody."""
        while self._entries:
            key, oldest = next(iter(self._entries.items()))
            if now - oldest.ended_at <= MAX_ANSWER_AGE_S:
                return
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self._bytes -= entry.size
