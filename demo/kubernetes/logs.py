"""Container logs without storage: each line is computed from its number, so any part of any log costs the same.

A script says what a container writes; a run is one life of that container. The time and the text of line n follow from
both, which bounds memory however long the log, and lets `--tail` and `--since` start anywhere.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from demo.kubernetes.times import micro_stamp

# Lines that a container writes as it starts come this far apart.
_OPENING_S = 0.4

# Written to the client at once. Large enough to be cheap, small enough not to hold up other requests.
_CHUNK_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Script:
    """What a container writes: some lines as it starts, then one line every so often for as long as it runs.

    Lines are %-formats over n (line number), ms, id, user and time. Only the last `keep` lines are there to be read, as
    the kubelet rotates files.
    """

    opening: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    every_s: float = 1.0
    keep: int = 2000

    @classmethod
    def parse(cls, block: dict[str, Any]) -> "Script":
        return cls(**{**block, "opening": tuple(block.get("opening", ())), "lines": tuple(block.get("lines", ()))})


QUIET = Script(opening=("ready",))


@dataclass(frozen=True, slots=True)
class Run:
    """One life of a container; `seed` makes replicas differ."""

    script: Script
    started: float
    ended: float | None
    seed: str

    @property
    def _settled(self) -> float:
        """When the opening lines are over; the first of the others comes `every_s` later."""
        return self.started + len(self.script.opening) * _OPENING_S

    def count(self, now: float) -> int:
        """How many lines it has written by now."""
        until = max(self.started, min(now, self.ended or now))
        opening = min(len(self.script.opening), int((until - self.started) / _OPENING_S) + 1)
        later = max(0, int((until - self._settled) / self.script.every_s)) if self.script.lines else 0
        return opening + later

    def written_at(self, index: int) -> float:
        later = index - len(self.script.opening)
        if later < 0:
            return self.started + index * _OPENING_S
        return self._settled + (later + 1) * self.script.every_s

    def first_since(self, instant: float) -> int:
        """The number of the first line written at that instant or later."""
        last_opening = self._settled - _OPENING_S
        if instant <= last_opening:
            return max(0, math.ceil((instant - self.started) / _OPENING_S))
        later = math.ceil((instant - self._settled) / self.script.every_s) - 1
        return len(self.script.opening) + max(0, later)

    def line(self, index: int, *, timestamps: bool) -> str:
        """Line `index` with its newline; with its time in front if so asked."""
        later = index - len(self.script.opening)
        template = self.script.opening[index] if later < 0 else self.script.lines[later % len(self.script.lines)]
        # A cheap hash: the same line reads the same each time, and neighbours look unrelated.
        noise = zlib.crc32(f"{self.seed}{index}".encode())
        values: dict[str, Any] = {"n": index, "ms": 2 + noise % 87, "id": noise, "user": noise % 9973}
        if timestamps or "%(time)s" in template:  # it costs more than all the rest
            values["time"] = micro_stamp(self.written_at(index))
        text = template % values
        return f"{values['time'][:-1]}000Z {text}\n" if timestamps else f"{text}\n"

    def window(self, now: float, *, tail: int | None, since: float | None) -> range:
        """The numbers of the lines that a request for this log means."""
        end = self.count(now)
        start = max(0, end - self.script.keep)
        if since is not None:
            start = max(start, self.first_since(since))
        if tail is not None:
            start = max(start, end - tail)
        return range(min(start, end), end)

    def chunks(self, window: range, *, timestamps: bool) -> Iterator[bytes]:
        """The lines as bytes, joined up to a size that is worth sending."""
        pending: list[str] = []
        size = 0
        for index in window:
            line = self.line(index, timestamps=timestamps)
            pending.append(line)
            size += len(line)
            if size >= _CHUNK_BYTES:
                yield "".join(pending).encode()
                pending, size = [], 0
        if pending:
            yield "".join(pending).encode()
