"""The audit trail as AdminService shows it, to keys with a scope of its own."""

import re
from collections.abc import Sequence
from typing import Any

import grpc

from broker.core.credentials import Credentials
from broker.listings import seconds
from broker.paging import bad_token, page_size, read_page
from broker.rpc.callers import admitted
from broker.store.audit import AuditTrail
from openline.v1 import admin_service_pb2 as pb

AT_A_TIME = 1_000
# For one page.
MAX_LOOKED_AT = 20_000
# What happened until then was written by then, and that is where a look back begins; unless Redis was away for longer.
LATE_S = 3600.0
# The clocks of replicas and of Redis may be apart by so much.
CLOCK_SLACK_S = 60.0
# What Redis calls an entry: milliseconds and a number.
_TOKEN = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")

Context = grpc.aio.ServicerContext[Any, Any]


class AuditEntries:
    """One of AdminService's methods."""

    def __init__(self, trail: AuditTrail, credentials: Credentials) -> None:
        self._trail = trail
        self._credentials = credentials

    async def ListAuditEntries(  # noqa: N802
        self, request: pb.ListAuditEntriesRequest, context: Context
    ) -> pb.ListAuditEntriesResponse:
        """Those of clusters that the key sees; what is about none is shown to keys that see every cluster.

        Raises INVALID_COMMAND for a page_token that was not a page's, STORE_UNAVAILABLE.
        """
        caller = admitted(self._credentials, context, "AdminService.ListAuditEntries")
        if request.page_token and not _TOKEN.fullmatch(request.page_token):
            raise bad_token()
        since = seconds(request.since)
        until = seconds(request.until) if request.HasField("until") else float("inf")
        since_ms = _ms(since - CLOCK_SLACK_S)
        until_ms = _ms(until + LATE_S) if request.HasField("until") else None
        seen: set[str] = set()

        async def fetch(before: str, count: int) -> Sequence[tuple[str, pb.AuditEntry | None]]:
            return await self._trail.page(before=before, since_ms=since_ms, until_ms=until_ms, count=count)

        def fits(entry: pb.AuditEntry) -> bool:
            if entry.entry_id in seen or not since <= seconds(entry.at) <= until:
                return False
            if request.cluster_id not in ("", entry.cluster_id) or request.session_id not in ("", entry.session_id):
                return False
            if request.owner not in ("", entry.owner):
                return False
            # What is about no cluster may tell of any: no pattern fits it but that of every cluster.
            if not caller.sees(entry.cluster_id):
                return False
            # It is there twice if Redis did not get round to saying that it has it.
            seen.add(entry.entry_id)
            return True

        page = await read_page(
            fetch,
            fits,
            size=page_size(request.page_size),
            token=request.page_token,
            at_a_time=AT_A_TIME,
            most=MAX_LOOKED_AT,
        )
        return pb.ListAuditEntriesResponse(entries=page.items, next_page_token=page.next_token)


def _ms(instant_s: float) -> int:
    """As Redis takes it, whatever a caller calls a time."""
    return min(max(0, int(instant_s * 1000)), 1 << 53)
