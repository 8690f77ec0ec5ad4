"""/audit: who did what, for keys that may see it."""

import shlex
from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.answers import milliseconds
from gateway.audit_models import AuditAnswer, AuditEntryAnswer, AuditStatus
from gateway.callers import Asking
from gateway.problems import PROBLEMS
from gateway.stubs import Stubs
from gateway.times import read_instant, stamp
from openline.reasons import EXECUTED_TEXT
from openline.v1 import admin_service_pb2, command_pb2

LIMIT = 100
MAX_LIMIT = 1000

_STATUS: dict[command_pb2.Outcome.ValueType, AuditStatus] = {
    # Of an admin's action, which was not refused.
    command_pb2.OUTCOME_UNSPECIFIED: "success",
    command_pb2.OUTCOME_TIMED_OUT: "timeout",
    command_pb2.OUTCOME_CANCELLED: "cancelled",
    command_pb2.OUTCOME_LOST: "lost",
    command_pb2.OUTCOME_REJECTED: "rejected",
}


def audit_routes(stubs: Stubs) -> APIRouter:
    routes = APIRouter(tags=["audit"], responses=PROBLEMS)

    @routes.get("/audit", operation_id="list_audit_entries")
    async def list_audit_entries(
        caller: Asking,
        cluster_id: Annotated[str, Query(max_length=253, description="Only of this cluster.")] = "",
        session_id: Annotated[str, Query(max_length=200, description="Only of this session.")] = "",
        owner: Annotated[str, Query(max_length=200, description="Only what this owner's keys did.")] = "",
        since: Annotated[str, Query(description="RFC 3339, or seconds since 1970.")] = "",
        until: Annotated[str, Query(description="The same.")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many at most.")] = LIMIT,
        cursor: Annotated[
            str,
            Query(pattern=r"^([0-9]{1,19}-[0-9]{1,19})?$", description="The `next_cursor` of the answer before."),
        ] = "",
    ) -> AuditAnswer:
        """Shows the audit trail, newest first: each command, each request that was refused, each action of an admin.

        It needs the scope `audit`, and shows what all owners did.
        """
        request = admin_service_pb2.ListAuditEntriesRequest(
            cluster_id=cluster_id,
            session_id=session_id,
            owner=owner,
            since=_instant("since", since),
            until=_instant("until", until),
            page_size=limit,
            page_token=cursor,
        )
        found = await stubs.list_audit_entries(request, caller)
        entries = [audit_entry(entry) for entry in found.entries]
        return AuditAnswer(entries=entries, count=len(entries), next_cursor=found.next_page_token or None)

    return routes


def audit_entry(entry: admin_service_pb2.AuditEntry) -> AuditEntryAnswer:
    exited = entry.outcome == command_pb2.OUTCOME_EXITED
    status: AuditStatus = "success" if exited and entry.exit_code == 0 else _STATUS.get(entry.outcome, "failure")
    return AuditEntryAnswer(
        timestamp=entry.at.ToDatetime(UTC),
        action=entry.action,
        owner=entry.owner,
        cluster_id=entry.cluster_id or None,
        session_id=entry.session_id or None,
        correlation_id=entry.correlation_id or None,
        command_id=entry.command_id or None,
        command=shlex.join(entry.argv) or None,
        status=status,
        reason=entry.reason or None,
        exit_code=entry.exit_code if exited else None,
        executed=EXECUTED_TEXT.get(entry.executed),
        execution_time_ms=round(milliseconds(entry.timings.run_s)) if entry.HasField("timings") else None,
        executor_id=entry.executor_id or None,
        replica_id=entry.replica_id,
        detail=entry.detail or None,
    )


def _instant(name: str, text: str) -> Timestamp | None:
    """Raises a 400, which the old API has for a time that is none."""
    try:
        return stamp(read_instant(text)) if text else None
    except ValueError:
        raise HTTPException(400, f"{name} is not a time: RFC 3339, such as 2026-11-28T21:00:00Z") from None
