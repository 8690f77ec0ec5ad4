"""The store as a whole: one client, one task that writes behind, and the records by their kind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog
from redis.exceptions import RedisError

from broker.store.api_keys import ApiKeyRecords
from broker.store.audit import DEFAULT_MAX_ENTRIES, AuditTrail
from broker.store.behind import WriteBehind
from broker.store.claims import Claims
from broker.store.client import open_client
from broker.store.clusters import Clusters
from broker.store.eviction import warn_once_there
from broker.store.history import History
from broker.store.presence import PresenceRecords
from broker.store.quotas import QuotaRecords
from broker.store.results import Results
from broker.store.sessions import Sessions
from broker.store.single import ANSWER_TIMEOUT_S
from broker.store.tokens import TokenRecords

# How long a stop waits for what is not written yet.
DRAIN_S = 3.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Store:
    api_keys: ApiKeyRecords
    audit: AuditTrail
    claims: Claims
    clusters: Clusters
    history: History
    presence: PresenceRecords
    quotas: QuotaRecords
    results: Results
    sessions: Sessions
    tokens: TokenRecords
    behind: WriteBehind

    @property
    def degraded(self) -> bool:
        """Redis does not take what is written to it."""
        return self.behind.degraded


@contextlib.asynccontextmanager
async def open_store(
    url: str, *, result_ttl_s: int, audit_max_entries: int = DEFAULT_MAX_ENTRIES
) -> AsyncIterator[Store]:
    """A store that writes until it is closed; what is queued then is written if Redis takes it within 3 s.

    A Redis that is out of reach now is no reason not to start: it may come back.
    """
    redis = open_client(url)
    behind = WriteBehind(redis)
    tasks = [
        asyncio.create_task(behind.run(), name="write-behind"),
        asyncio.create_task(warn_once_there(redis), name="eviction"),
    ]
    try:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await redis.ping()
        except (RedisError, OSError, TimeoutError) as failure:
            log.warning("redis.unavailable", error=type(failure).__name__, detail=str(failure)[:200])
        store = Store(
            api_keys=ApiKeyRecords(redis, behind),
            audit=AuditTrail(redis, behind, max_entries=audit_max_entries),
            claims=Claims(redis, behind, ttl_s=result_ttl_s),
            clusters=Clusters(redis, behind),
            history=History(redis, behind, ttl_s=result_ttl_s),
            presence=PresenceRecords(redis),
            quotas=QuotaRecords(redis),
            results=Results(redis, behind, ttl_s=result_ttl_s),
            sessions=Sessions(redis, behind),
            tokens=TokenRecords(redis, behind),
            behind=behind,
        )
        yield store
        store.history.flush()
        store.audit.flush()
        if not await behind.drain(DRAIN_S):
            log.error("redis.unwritten", left=repr(behind))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await redis.aclose()
