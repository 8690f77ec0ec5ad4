"""Small writes gathered for a moment, so that those of many commands become a few Redis commands.

What is not written yet is bounded apart from everything else that is written behind: while Redis is away, results must
not be crowded out by what merely tells of them.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import structlog

from broker.store.behind import WriteBehind
from broker.store.single import RedisCommand

# Short enough for a person not to notice, long enough for a busy replica to have hundreds of them together.
EVERY_S = 0.1
# What leaves together, so that a batch stays well below what is sent to Redis at a time.
MAX_TOGETHER = 500

T = TypeVar("T")

log = structlog.get_logger()


class Gathering(Generic[T]):
    """What waits to be written; `render` makes Redis commands of some of it, each of which may be repeated."""

    def __init__(
        self,
        behind: WriteBehind,
        render: Callable[[Sequence[T]], Iterable[RedisCommand]],
        *,
        name: str,
        max_waiting: int,
    ) -> None:
        self._behind = behind
        self._render = render
        self._name = name
        self._max_waiting = max_waiting
        self._items: list[T] = []
        # Those that Redis has not confirmed.
        self._waiting = 0
        self._dropped = 0
        # Since the start; whatever Redis has not all of.
        self.lost = 0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Gathering {self._name} waiting={self._waiting} dropped={self._dropped}>"

    def add(self, item: T) -> None:
        """Takes something to write; drops it when too much waits, and says so in the log."""
        if self._waiting >= self._max_waiting:
            self.lost += 1
            self._drop(1)
            return
        self._waiting += 1
        self._items.append(item)
        if len(self._items) >= MAX_TOGETHER:
            self.flush()  # not all at once at the end of the moment: a busy replica has no time for a thousand
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self.flush)

    def flush(self) -> None:
        """Hands over what is gathered, without waiting for more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        items, self._items = self._items, []
        for start in range(0, len(items), MAX_TOGETHER):
            self._hand_over(items[start : start + MAX_TOGETHER])

    def _hand_over(self, items: Sequence[T]) -> None:
        commands = list(self._render(items))
        left, is_lost = len(commands), False

        def written(has_it: bool) -> None:
            nonlocal left, is_lost
            left -= 1
            is_lost = is_lost or not has_it
            if left == 0:
                self.lost += len(items) * is_lost
                self._settled(len(items))

        if not commands:
            self._settled(len(items))
        refused = [command for command in commands if not self._behind.put(*command, done=written)]
        if refused:
            self._drop(len(items))
        for _ in refused:
            written(False)

    def _settled(self, count: int) -> None:
        self._waiting -= count
        if self._dropped and self._waiting < self._max_waiting // 2:
            log.error(f"{self._name}.dropped", count=self._dropped)
            self._dropped = 0

    def _drop(self, count: int) -> None:
        if not self._dropped:
            log.error(f"{self._name}.dropping", why="too much waits for Redis")
        self._dropped += count
