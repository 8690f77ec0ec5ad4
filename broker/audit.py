"""The audit trail: what becomes of each command, each request that was refused and each action of an admin.

Each is one entry in the trail and one line in the log. The argv is in the trail alone, which needs a scope of its own
to be read; what a command wrote is in neither. A key that is not known is counted only: whoever has none could write
the trail full.
"""

from time import monotonic

import structlog

from broker.core.credentials import Caller
from broker.records import shorten
from broker.store.audit import AuditTrail
from openline import errors
from openline.ids import is_token, new_id
from openline.reasons import EXECUTED_TEXT, YES
from openline.v1 import admin_service_pb2, command_pb2, command_service_pb2, session_service_pb2

# Requests without a good key are told of together, no more often than this.
TELL_EVERY_S = 60.0

Entry = admin_service_pb2.AuditEntry
# What may be refused before it is a command, and the name of that action.
ACTIONS = {
    command_service_pb2.ExecuteRequest: "execute",
    session_service_pb2.CreateSessionRequest: "create_session",
}
Request = command_service_pb2.ExecuteRequest | session_service_pb2.CreateSessionRequest

log = structlog.get_logger()


class Audit:
    def __init__(self, trail: AuditTrail, *, replica_id: str) -> None:
        self._trail = trail
        self._replica_id = replica_id
        self._unauthenticated = 0
        self._told_at = float("-inf")

    def command(self, done: command_pb2.Command) -> None:
        """A command has ended; this is its outline."""
        result = done.result
        exited = result.outcome == command_pb2.OUTCOME_EXITED
        entry = Entry(
            action="execute",
            owner=done.owner,
            cluster_id=done.cluster_id,
            session_id=done.session_id,
            correlation_id=done.correlation_id,
            command_id=done.command_id,
            argv=done.argv,
            outcome=result.outcome,
            exit_code=result.exit_code,
            reason=result.error.reason,
            executed=YES if exited else result.error.executed,
            executor_id=result.executor_id,
            timings=result.timings,
        )
        kept = (each.total_bytes - each.cut_bytes for each in (result.stdout_summary, result.stderr_summary))
        self._write(entry, bytes=sum(kept))

    def refused(self, request: Request, caller: Caller, error: command_pb2.Error) -> None:
        """A request with a good key was refused before there was a command. Nothing of it has been checked."""
        entry = Entry(
            action=ACTIONS[type(request)],
            owner=caller.owner,
            cluster_id=errors.short(request.cluster_id),
            correlation_id=_shown(request.correlation_id),
            outcome=command_pb2.OUTCOME_REJECTED,
            reason=error.reason,
            executed=error.executed,
        )
        if isinstance(request, command_service_pb2.ExecuteRequest):
            entry.session_id = _shown(request.session_id)
            entry.command_id = _shown(request.command_id)
            entry.argv[:] = shorten(request.argv)
        self._write(entry)

    def admin(
        self,
        action: str,
        caller: Caller,
        *,
        cluster_id: str = "",
        correlation_id: str = "",
        detail: str = "",
        error: command_pb2.Error | None = None,
    ) -> None:
        """An admin has done this, such as `create_api_key`, or with an error was refused it. No secret in `detail`."""
        entry = Entry(
            action=action,
            owner=caller.owner,
            cluster_id=errors.short(cluster_id),
            correlation_id=_shown(correlation_id),
            detail=errors.short(detail),
        )
        if error is not None:
            entry.outcome = command_pb2.OUTCOME_REJECTED
            entry.reason = error.reason
            entry.executed = error.executed
        self._write(entry)

    def unauthenticated(self) -> None:
        """Somebody has come without a good key."""
        self._unauthenticated += 1
        now = monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            log.warning("audit.unauthenticated", requests=self._unauthenticated)
            self._unauthenticated = 0

    def _write(self, entry: Entry, **more: int) -> None:
        entry.entry_id = new_id()
        entry.at.GetCurrentTime()
        entry.replica_id = self._replica_id
        self._trail.append(entry)
        outcome = command_pb2.Outcome.Name(entry.outcome).removeprefix("OUTCOME_").lower()
        timed = {"ms": entry.timings.total_s, "run_ms": entry.timings.run_s} if entry.HasField("timings") else {}
        fields: dict[str, object] = {
            "action": entry.action,
            "owner": entry.owner,
            "cluster_id": entry.cluster_id or None,
            "executor_id": entry.executor_id or None,
            "agent_call": bool(entry.correlation_id),
            "correlation_id": entry.correlation_id or None,
            "session_id": entry.session_id or None,
            "command_id": entry.command_id or None,
            "outcome": outcome if entry.outcome else None,
            "reason": entry.reason or None,
            "executed": EXECUTED_TEXT.get(entry.executed),
            "exit_code": entry.exit_code if entry.outcome == command_pb2.OUTCOME_EXITED else None,
            "detail": entry.detail or None,
            **{name: round(seconds * 1000, 1) for name, seconds in timed.items()},
            **more,
        }
        log.info("audit", **{name: value for name, value in fields.items() if value is not None})


def _shown(text: str) -> str:
    """An id that was not checked, if it could be one."""
    return text if is_token(text) else ""
