"""What is due when: a heap whose entries can be taken back, and that does not grow with those taken back."""

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

# Whatever sorts: of two that are due at the same instant, the smaller comes first.
Key = TypeVar("Key", bound=Hashable)


class Agenda(Generic[Key]):
    """Keys, each with the instant at which something about it is due."""

    def __init__(self) -> None:
        self._when: dict[Key, float] = {}
        # May hold entries that were taken back or moved; `_when` decides.
        self._heap: list[tuple[float, Key]] = []

    def __len__(self) -> int:
        return len(self._when)

    def __repr__(self) -> str:
        return f"<Agenda n={len(self)} next={self.next()}>"

    def add(self, key: Key, when: float) -> None:
        """Sets or moves the instant of `key`."""
        self._when[key] = when
        heapq.heappush(self._heap, (when, key))
        # Most commands end long before their deadline: without this the heap would hold every one until then.
        if len(self._heap) > 2 * len(self._when) + 64:
            self._heap = [(due, name) for name, due in self._when.items()]
            heapq.heapify(self._heap)

    def discard(self, key: Key) -> None:
        self._when.pop(key, None)

    def next(self) -> float | None:
        """The earliest instant, or None."""
        while self._heap and self._when.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> list[Key]:
        """Takes out and returns what is due, earliest first."""
        due: list[Key] = []
        while (when := self.next()) is not None and when <= now:
            key = heapq.heappop(self._heap)[1]
            del self._when[key]
            due.append(key)
        return due
