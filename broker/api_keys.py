"""API keys: listed, created and revoked, by admins who may themselves not see every cluster."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace

import structlog

from broker.core.book import Book, Origin
from broker.core.credentials import MAX_OF_OWNER, Caller, Key, digest
from broker.core.proof import Proof
from broker.replicated import Replicated
from broker.store.api_keys import ApiKeyRecords
from openline import errors
from openline.errors import OpenlineError
from openline.reasons import Reason

KEY_BYTES, ID_BYTES = 32, 8

log = structlog.get_logger()


class ApiKeys(Replicated[bytes, Key]):
    def __init__(self, book: Book[bytes, Key], records: ApiKeyRecords, proof: Proof) -> None:
        super().__init__(book, records)
        self._proof = proof

    def listed(self, admin: Caller) -> Iterator[Key]:
        """The good keys that see no more clusters than the admin's, each with an id, in no order; to be read at once.

        The patterns of the others may name clusters that the admin is not to know of.
        """
        now = time.time()
        for key in self._book.all_good:
            if key.is_good(now=now) and admin.clusters.covers(key.caller.clusters):
                yield self._named(key)

    async def create(self, wanted: Caller, *, admin: Caller, chosen: str = "", ttl_s: float = 0.0) -> tuple[Key, str]:
        """Makes a key with the rights of `wanted`, or gives them to the chosen one; what is known of it, and itself.

        It is good here at once, and within a second on every replica. Zero `ttl_s`: it does not expire. Raises
        SCOPE_MISSING for rights that the admin has not, KEY_EXISTS, QUOTA_EXCEEDED, STORE_UNAVAILABLE; then there is
        none.
        """
        for scope in wanted.scopes:
            admin.require(scope)
        admin.require_cover(wanted.clusters)
        secret = chosen or secrets.token_urlsafe(KEY_BYTES)
        now = time.time()
        caller = replace(wanted, key_id=secrets.token_hex(ID_BYTES), digest=digest(secret))
        key = Key(
            digest=caller.digest,
            origin=Origin.CHOSEN if chosen else Origin.MADE,
            created_at=now,
            expires_at=now + ttl_s if ttl_s else None,
            caller=caller,
        )
        if self._book.holds(key.name):
            raise self._records.exists(key)
        if sum(each.caller.owner == caller.owner for each in self._book.all_good) >= MAX_OF_OWNER:
            full = f"the owner has {MAX_OF_OWNER} API keys; revoke some"
            raise OpenlineError(errors.error(Reason.QUOTA_EXCEEDED, full))
        await self._records.create(key)
        self._learn([key])
        log.info("key.created", owner=caller.owner, key_id=caller.key_id, expires_at=key.expires_at)
        return key, secret

    async def revoke(self, key_id: str, *, admin: Caller) -> Key:
        """Revokes the key of this id, which is refused here from now on, and within a second on every replica.

        Raises KEY_UNKNOWN, STORE_UNAVAILABLE; then it may be asked again.
        """
        # One that was created a moment ago on another replica is meant as well.
        await self.look()
        meant = next((key for key in self.listed(admin) if key.caller.key_id == key_id), None)
        if meant is None:
            raise OpenlineError(errors.error(Reason.KEY_UNKNOWN, "no API key has this id"))
        revoked = replace(meant, revoked_at=time.time())
        await self._records.keep([revoked])
        self._learn([revoked])
        log.info("key.revoked", owner=meant.caller.owner, key_id=key_id, origin=meant.origin)
        return meant

    def _named(self, key: Key) -> Key:
        if key.caller.key_id:
            return key
        return replace(key, caller=replace(key.caller, key_id=self._proof.alias(key.digest)))
