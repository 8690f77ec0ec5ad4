"""Credentials of one kind as they come and go: read from Redis, created, revoked, expired; the same on every replica.

News are heard at once. The version in Redis is looked at twice a second besides, so that news which were missed cost
half a second. What Redis has lost, because it came back empty or as it was before, it is given back.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Generic

import structlog

from broker.core.book import Book, C, N
from broker.store.credentials import CredentialRecords
from openline.errors import OpenlineError

LOOK_EVERY_S = 0.5
EXPIRE_EVERY_S = 0.25
# How long a replica that starts waits for Redis. Later it has to do with what it was given.
FIRST_LOOK_S = 3.0

log = structlog.get_logger()


class Replicated(Generic[N, C]):
    """Of this replica. `ended` is called with those that are not good any more, when there are any."""

    def __init__(self, book: Book[N, C], records: CredentialRecords[N, C]) -> None:
        self._book = book
        self._records = records
        # Of what is known here; None: nothing was read yet.
        self._version: str | None = None
        self._look_now = asyncio.Event()
        self.ended: Callable[[Sequence[C]], None] = lambda _credentials: None

    async def begin(self) -> None:
        """Reads what there is, if Redis answers: before anybody comes whose credential may have been revoked."""
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.look()
        except (OpenlineError, TimeoutError):
            log.warning("credentials.unread", kind=self._records.kind, why="Redis is out of reach")

    async def run(self) -> None:
        """Until it is cancelled by its owner."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_forever(), name="credentials-look")
            tasks.create_task(self._listen_forever(), name="credentials-listen")
            tasks.create_task(self._expire_forever(), name="credentials-expire")

    async def look(self) -> None:
        """Takes in what has changed in Redis, and gives back what that has lost. Raises STORE_UNAVAILABLE."""
        version = await self._records.version()
        if version == self._version:
            return
        held = await self._records.read()
        self._learn(held.values())
        self._book.is_whole = True
        if forgotten := self._book.forget(now=time.time()):
            await self._records.drop(forgotten)
        if given_back := await self._records.keep(self._book.lacking(held)):
            log.warning("credentials.given_back", kind=self._records.kind, n=given_back)
        # That of before: what has changed while it was read is found the next time.
        self._version = version

    def _learn(self, credentials: Iterable[C]) -> None:
        if ended := self._book.learn(credentials, now=time.time()):
            self.ended(ended)

    async def _look_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._look_now.wait()
            self._look_now.clear()
            with contextlib.suppress(OpenlineError):  # what is known stays
                await self.look()

    async def _listen_forever(self) -> None:
        async with aclosing(self._records.subscribe()) as changes:
            async for change in changes:
                if change is None:
                    self._look_now.set()
                    continue
                self._learn(change.changed)
                if change.was == self._version:
                    self._version = change.version

    async def _expire_forever(self) -> None:
        # By itself: a Redis that does not answer must not prolong a life.
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            if expired := self._book.expire(now=time.time()):
                self.ended(expired)
