"""Executor tokens: listed, created and revoked."""

import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import structlog

from broker.core.book import Origin
from broker.core.credentials import digest
from broker.core.proof import Proof
from broker.core.tokens import MAX_OF_CLUSTER, Name, Token, TokenBook
from broker.replicated import Replicated
from broker.store.tokens import TokenRecords
from openline import errors
from openline.errors import OpenlineError
from openline.reasons import Reason

TOKEN_BYTES, ID_BYTES = 32, 8

log = structlog.get_logger()


class Tokens(Replicated[Name, Token]):
    def __init__(self, book: TokenBook, records: TokenRecords, proof: Proof) -> None:
        super().__init__(book, records)
        self._tokens = book
        self._proof = proof

    def listed(self, cluster_ids: Iterable[str]) -> Iterator[Token]:
        """The good tokens of these clusters, each with an id, in no order; to be read at once."""
        for cluster_id in cluster_ids:
            yield from map(self._named, self._tokens.of_cluster(cluster_id))

    async def create(self, cluster_id: str, *, chosen: str = "", ttl_s: float = 0.0) -> tuple[Token, str]:
        """Makes another token for the cluster, or takes the chosen one; what is known of it, and itself.

        It is good here at once, and within a second on every replica. Zero `ttl_s`: it does not expire. Raises
        TOKEN_EXISTS, QUOTA_EXCEEDED, STORE_UNAVAILABLE; then there is none.
        """
        secret = chosen or secrets.token_urlsafe(TOKEN_BYTES)
        now = time.time()
        token = Token(
            cluster_id=cluster_id,
            digest=digest(secret),
            origin=Origin.CHOSEN if chosen else Origin.MADE,
            token_id=secrets.token_hex(ID_BYTES),
            created_at=now,
            expires_at=now + ttl_s if ttl_s else None,
        )
        if self._tokens.holds(token.name):
            raise self._records.exists(token)
        if len(self._tokens.of_cluster(cluster_id)) >= MAX_OF_CLUSTER:
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
        meant = [token for token in self.listed([cluster_id]) if token_id in ("", token.token_id)]
        if meant:
            revoked = [replace(token, revoked_at=time.time()) for token in meant]
            await self._records.keep(revoked)
            self._learn(revoked)
        for token in meant:
            log.info("token.revoked", cluster_id=cluster_id, token_id=token.token_id, origin=token.origin)
        return meant

    def _named(self, token: Token) -> Token:
        return token if token.token_id else replace(token, token_id=self._proof.alias(token.digest))
