"""Calls that last: watches and waits, each of which ends when the key that asked for it does."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable

from broker.core.credentials import Caller, Credentials, Key
from openline import errors
from openline.reasons import UNKNOWN, Reason


class LastingCalls:
    """By key; a key without any takes no room."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._open: dict[bytes, set[asyncio.Timeout]] = {}

    def __repr__(self) -> str:
        return f"<LastingCalls {len(self)}>"

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    @contextlib.asynccontextmanager
    async def of(self, caller: Caller) -> AsyncIterator[None]:
        """What is within ends with UNAUTHENTICATED as soon as the caller's key is not good any more.

        What another replica asks for lasts as long as that wants it: the key is known there.
        """
        if caller.is_peer:
            yield
            return
        # Now: it may have ended since it was checked, and `end` does not come again.
        if self._credentials.keys.good(caller.digest, now=time.time()) is None:
            raise _ended()
        bound = asyncio.timeout(None)
        calls = self._open.setdefault(caller.digest, set())
        calls.add(bound)
        try:
            async with bound:
                yield
        except TimeoutError:
            if not bound.expired():
                raise
            raise _ended() from None
        finally:
            calls.discard(bound)
            if not calls and self._open.get(caller.digest) is calls:
                del self._open[caller.digest]

    def end(self, keys: Iterable[Key]) -> None:
        """These are not good any more."""
        now = asyncio.get_running_loop().time()
        for key in keys:
            for bound in self._open.pop(key.digest, ()):
                bound.reschedule(now)


def _ended() -> errors.OpenlineError:
    # A watch may be of a command that was asked for with it.
    return errors.OpenlineError(
        errors.error(Reason.UNAUTHENTICATED, "the API key was revoked, or has expired", executed=UNKNOWN)
    )
