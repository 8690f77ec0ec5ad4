"""Executor tokens as they come and go: read from Redis, created, revoked, expired; and what that means for streams.

News are heard at once. The version in Redis is looked at twice a second besides, so that news which were missed cost
half a second. What Redis has lost, because it came back empty or as it was before, it is given back.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import structlog

from broker.core.credentials import digest
from broker.core.proof import Proof
from broker.core.tokens import MAX_OF_CLUSTER, Origin, Token, TokenBook
from broker.store.tokens import TokenRecords, exists
from openline import errors
from openline.errors import OpenlineError
from openline.reasons import Reason

LOOK_EVERY_S = 0.5
EXPIRE_EVERY_S = 0.25
# How long a replica that starts waits for Redis. Later it has to do with the tokens that it was given.
FIRST_LOOK_S = 3.0
TOKEN_BYTES, ID_BYTES = 32, 8

log = structlog.get_logger()


class Tokens:
    """Of this replica. `ended` is called with tokens that are not good any more, when there are any."""

    def __init__(self, book: TokenBook, records: TokenRecords, proof: Proof) -> None:
        self._book = book
        self._records = records
        self._proof = proof
        # Of what is known here; None: nothing was read yet.
        self._version: str | None = None
        self._look_now = asyncio.Event()
        self.ended: Callable[[Sequence[Token]], None] = lambda _tokens: None

    async def begin(self) -> None:
        """Reads what there is, if Redis answers: before the first executor comes, who may have been revoked."""
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.look()
        except (OpenlineError, TimeoutError):
            log.warning("tokens.unread", why="Redis is out of reach; only those that were given at start are known")

    async def run(self) -> None:
        """Until it is cancelled by its owner."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_forever(), name="tokens-look")
            tasks.create_task(self._listen_forever(), name="tokens-listen")
            tasks.create_task(self._expire_forever(), name="tokens-expire")

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
            log.warning("tokens.given_back", tokens=given_back)
        # That of before: what has changed while it was read is found the next time.
        self._version = version

    def listed(self, cluster_id: str = "") -> Iterator[Token]:
        """The good tokens of one cluster or of all, each with an id, in no order; to be read at once."""
        for each in [cluster_id] if cluster_id else self._book.clusters:
            yield from map(self._named, self._book.of_cluster(each))

    async def create(self, cluster_id: str, *, chosen: str = "", ttl_s: float = 0.0) -> tuple[Token, str]:
        """Makes another token for the cluster, or takes the chosen one; what is known of it, and itself.

        It is good here at once, and within a second on every replica. Zero `ttl_s`: it does not expire. Raises
        TOKEN_EXISTS, QUOTA_EXCEEDED, STORE_UNAVAILABLE; then there is none.
        """
        secret = chosen or secrets.token_urlsafe(TOKEN_BYTES)
        now = time.time()
        token = Token(
            cluster_id,
            digest(secret),
            origin=Origin.CHOSEN if chosen else Origin.MADE,
            token_id=secrets.token_hex(ID_BYTES),
            created_at=now,
            expires_at=now + ttl_s if ttl_s else None,
        )
        if self._book.holds(token.name):
            raise OpenlineError(exists(cluster_id))
        if len(self._book.of_cluster(cluster_id)) >= MAX_OF_CLUSTER:
            full = f"the cluster has {MAX_OF_CLUSTER} executor tokens; revoke some"
            raise OpenlineError(errors.error(Reason.QUOTA_EXCEEDED, full))
        await self._records.create(token)
        self._learn([token])
        log.info("token.created", cluster_id=cluster_id, token_id=token.token_id, expires_at=token.expires_at)
        return token, secret

    async def revoke(self, cluster_id: str, token_id: str = "") -> list[Token]:
        """Revokes all tokens of the cluster, or the one of this id; those that were good until now.

        Their streams here are told to end before this returns, and within a second on every replica. Raises
        STORE_UNAVAILABLE; then it may be asked again.
        """
        # One that was created a moment ago on another replica is meant as well.
        await self.look()
        meant = [token for token in self.listed(cluster_id) if token_id in ("", token.token_id)]
        if meant:
            revoked = [replace(token, revoked_at=time.time()) for token in meant]
            await self._records.keep(revoked)
            self._learn(revoked)
        for token in meant:
            log.info("token.revoked", cluster_id=cluster_id, token_id=token.token_id, origin=token.origin)
        return meant

    def _named(self, token: Token) -> Token:
        return token if token.token_id else replace(token, token_id=self._proof.alias(token.digest))

    def _learn(self, tokens: Iterable[Token]) -> None:
        if ended := self._book.learn(tokens, now=time.time()):
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
                self._learn(change.tokens)
                if change.was == self._version:
                    self._version = change.version

    async def _expire_forever(self) -> None:
        # By itself: a Redis that does not answer must not prolong a token.
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            if expired := self._book.expire(now=time.time()):
                self.ended(expired)
