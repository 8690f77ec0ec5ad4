"""Executions that wait for Redis before they are dispatched, each in a task."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from broker.core.command import Ask
from broker.core.whose import Whose
from broker.execution import Execution
from openline import errors
from openline.reasons import NO, UNKNOWN, Reason

# At one time.
MAX_WAITING = 10_000

Wait = Callable[[Execution], Awaitable[None]]

log = structlog.get_logger()


class Waiting:
    """Owns the tasks until `close`."""

    def __init__(self, expected: set[str]) -> None:
        """Other replicas hear that the commands in `expected` may be here."""
        self._expected = expected
        self._tasks: dict[asyncio.Task[None], _Waiter] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, wait: Wait, execution: Execution, ask: Ask | None = None, *, is_new: bool = False) -> None:
        """Runs `wait` for the execution; without `ask` it only waits to be told that it is no command.

        One that `is_new` was surely not asked for before. Raises STORE_UNAVAILABLE when too many wait already.
        """
        if len(self._tasks) >= MAX_WAITING:
            raise errors.OpenlineError(errors.error(Reason.STORE_UNAVAILABLE, "too many wait for Redis"))
        task = asyncio.get_running_loop().create_task(_answered(wait, execution, ask))
        self._tasks[task] = _Waiter(ask, execution, is_new)
        task.add_done_callback(self._tasks.pop)
        if ask is not None and ask.command_id not in self._expected:
            command_id = ask.command_id
            self._expected.add(command_id)
            task.add_done_callback(lambda _: self._expected.discard(command_id))

    def cancel(self, whose: Whose, *, why: str) -> set[str]:
        """Answers those who wait for commands like these, which are not dispatched then; the commands' ids."""
        cancelled = set()
        for waiter in list(self._tasks.values()):
            ask, execution = waiter.ask, waiter.execution
            if ask is not None and not execution.over and whose.has(ask):
                # Its task sees that, frees the key that it may have claimed, and ends.
                executed = NO if waiter.is_first else UNKNOWN
                more = whose.more_than(ask)
                metadata = {errors.CANCELLED_WITH: more} if more else {}
                execution.answer(errors.error(Reason.CANCELLED, why, executed=executed, metadata=metadata))
                cancelled.add(ask.command_id)
        return cancelled

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Waiter:
    ask: Ask | None
    execution: Execution
    is_new: bool

    @property
    def is_first(self) -> bool:
        """Nobody can have run it: it is the first of its id and its key."""
        has_claimed = self.execution.release is not None and self.ask is not None and not self.ask.attach
        return self.is_new or has_claimed


async def _answered(wait: Wait, execution: Execution, ask: Ask | None) -> None:
    """Whatever goes wrong on the way, the caller is told."""
    try:
        await wait(execution)
    except errors.OpenlineError as refusal:
        execution.free_key()
        execution.answer(refusal.error)
    except asyncio.CancelledError:
        execution.free_key()  # nothing waits any more once the command is sent
        raise
    except Exception:
        log.exception("execution.failed", **({} if ask is None else ask.names))
        execution.answer(errors.error(Reason.INTERNAL, "internal error; see the broker's log"))
