"""Calls that have been opened and have said nothing yet: each has a while for its first message, and a bound on all.

Opening a call takes no credential, only a few bytes, and each costs this process some 20 KB until it speaks. When there
are too many, the oldest makes room: whoever means well says its first word at once, so a flood ends its own calls.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import structlog

from broker.seldom import Seldom
from openline import errors, limits
from openline.reasons import NO, Reason

MAX_SILENT = 10_000
# What strangers call themselves is for the log.
MAX_NAME_CHARACTERS = 200

T = TypeVar("T")

log = structlog.get_logger()


class Opening:
    """Of one replica, for all kinds of calls."""

    def __init__(self) -> None:
        # The oldest first.
        self._silent: dict[asyncio.Timeout, None] = {}
        # Since the start.
        self.crowded_out = 0
        self._crowdings = Seldom()
        self._not_understood = Seldom()

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

    def not_understood(self, who: str, why: str) -> None:
        """A Hello was of no version that is spoken here. Its sender has shown no credential, and may say it again."""
        if count := self._not_understood.count():
            who = who if len(who) <= MAX_NAME_CHARACTERS and who.isascii() and who.isprintable() else ""
            log.warning("version.unsupported", hellos=count, last_from=who, why=why)

    def _make_room(self) -> None:
        oldest = next(iter(self._silent))
        del self._silent[oldest]
        # One whose time is up is about to end anyway, and its timeout can be moved no more.
        if not oldest.expired():
            oldest.reschedule(asyncio.get_running_loop().time())
        self.crowded_out += 1
        if count := self._crowdings.count():
            log.warning("calls.crowded_out", calls=count)
