"""Calls that have been opened and have said nothing yet: each has a while for its first message, and a bound on all.

Opening a call takes no credential, only a few bytes, and each costs this process some 20 KB until it speaks. When there
are too many, the oldest makes room: whoever means well says its first word at once, so a flood ends its own calls.
"""

import asyncio
from collections.abc import Awaitable
from time import monotonic
from typing import TypeVar

import structlog

from openline import errors, limits
from openline.reasons import NO, Reason

MAX_SILENT = 10_000
# The log tells of those that had to make room together, no more often than this.
TELL_EVERY_S = 60.0

T = TypeVar("T")

log = structlog.get_logger()


class Opening:
    """Of one replica, for all kinds of calls."""

    def __init__(self) -> None:
        # The oldest first.
        self._silent: dict[asyncio.Timeout, None] = {}
        self._untold = 0
        self._told_at = float("-inf")

    def __len__(self) -> int:
        return len(self._silent)

    async def first(self, message: Awaitable[T], *, name: str) -> T:
        """The first message, when it comes.

        Raises PROTOCOL_VIOLATION when it does not come in time, BROKER_UNAVAILABLE when its call had to make room.
        """
        patience = asyncio.timeout(limits.HELLO_TIMEOUT_S)
        try:
            async with patience:
                self._silent[patience] = None
                if len(self._silent) > MAX_SILENT:
                    self._make_room()
                return await message
        except TimeoutError:
            if patience in self._silent:
                late = errors.error(Reason.PROTOCOL_VIOLATION, f"no {name} within {limits.HELLO_TIMEOUT_S:g} s")
            else:
                late = errors.error(Reason.BROKER_UNAVAILABLE, "too many calls have said nothing yet", executed=NO)
            raise errors.OpenlineError(late) from None
        finally:
            self._silent.pop(patience, None)

    def _make_room(self) -> None:
        oldest = next(iter(self._silent))
        del self._silent[oldest]
        # One whose time is up is about to end anyway, and its timeout can be moved no more.
        if not oldest.expired():
            oldest.reschedule(asyncio.get_running_loop().time())
        self._untold += 1
        now = monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            log.warning("calls.crowded_out", calls=self._untold)
            self._untold = 0
