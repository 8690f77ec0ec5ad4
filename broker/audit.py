"""The audit trail: what becomes of each command, each request that was refused, and what else somebody did.

That is sessions made and ended, commands cancelled, and each action of an admin. Each is one entry in the trail and one
line in the log. The argv is in the trail alone, which needs a scope of its own to be read, unless the log is to have it
as well; what a command wrote is in neither. A key that is not known leaves no entry (`refusals` counts it).
"""

import time
from collections.abc import Mapping

import structlog

from broker.core.credentials import Caller
from broker.records import shorten
from broker.store.audit import AuditTrail
from openline import errors
from openline.ids import is_token, new_id
from openline.reasons import EXECUTED_TEXT, OUTCOME_TEXT, YES
from openline.tracing.traceparent import log_fields
from openline.v1 import admin_service_pb2, command_pb2, command_service_pb2, session_service_pb2

Entry = admin_service_pb2.AuditEntry
# What may be refused before it is a command, and the name of that action.
ACTIONS = {
    command_service_pb2.ExecuteRequest: "execute",
    session_service_pb2.CreateSessionRequest: "create_session",
}
Request = command_service_pb2.ExecuteRequest | session_service_pb2.CreateSessionRequest

# A command that did not run itself.
_SHARED = {command_pb2.SERVED_FROM_SHARED: "shared the run of", command_pb2.SERVED_FROM_CACHE: "had the result of"}

# Fields of an entry that are in its line of the log as well.
_TOLD_IF_THERE = ("cluster_id", "executor_id", "correlation_id", "session_id", "command_id", "reason", "detail")

log = structlog.get_logger()


class Audit:
    def __init__(self, trail: AuditTrail, *, replica_id: str, log_argv: bool = False) -> None:
        self._trail = trail
        self._log_argv = log_argv
        self._replica_id = replica_id

    def command(self, done: command_pb2.Command, *, traceparent: str = "") -> None:
        """A command has ended; this is its outline."""
        result = done.result
        exited = result.outcome == command_pb2.OUTCOME_EXITED
        entry = Entry()
        entry.action = "execute"
        entry.owner = done.owner
        entry.cluster_id = done.cluster_id
        entry.session_id = done.session_id
        entry.correlation_id = done.correlation_id
        entry.command_id = done.command_id
        entry.argv.extend(done.argv)
        entry.outcome = result.outcome
        entry.executor_id = result.executor_id
        entry.timings.CopyFrom(result.timings)
        if exited:
            entry.exit_code = result.exit_code
            entry.executed = YES
        else:
            entry.reason = result.error.reason
            entry.executed = result.error.executed
        if (how := _SHARED.get(result.served_from)) is not None:
            entry.detail = f"{how} {result.run_by_command_id}"
        kept = (each.total_bytes - each.cut_bytes for each in (result.stdout_summary, result.stderr_summary))
        self._write(entry, bytes=sum(kept), **log_fields(traceparent))

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
        trace: Mapping[str, str] = {}
        if isinstance(request, command_service_pb2.ExecuteRequest):
            entry.session_id = _shown(request.session_id)
            entry.command_id = _shown(request.command_id)
            entry.argv[:] = shorten(request.argv)
            trace = log_fields(request.traceparent)
        self._write(entry, **trace)

    def acted(
        self,
        action: str,
        caller: Caller,
        *,
        cluster_id: str = "",
        session_id: str = "",
        correlation_id: str = "",
        command_id: str = "",
        detail: str = "",
        error: command_pb2.Error | None = None,
    ) -> None:
        """Somebody has done this, such as `create_api_key`, or with an error was refused it. No secret in `detail`."""
        entry = Entry(
            action=action,
            owner=caller.owner,
            cluster_id=errors.short(cluster_id),
            session_id=session_id,
            correlation_id=_shown(correlation_id),
            command_id=command_id,
            detail=errors.short(detail),
        )
        if error is not None:
            entry.outcome = command_pb2.OUTCOME_REJECTED
            entry.reason = error.reason
            entry.executed = error.executed
        self._write(entry)

    def _write(self, entry: Entry, **more: int | str) -> None:
        entry.entry_id = new_id()
        entry.at.seconds, entry.at.nanos = divmod(time.time_ns(), 10**9)
        entry.replica_id = self._replica_id
        self._trail.append(entry)
        fields: dict[str, object] = {"action": entry.action, "owner": entry.owner}
        for name in _TOLD_IF_THERE:
            if value := getattr(entry, name):
                fields[name] = value
        if self._log_argv and entry.argv:
            fields["argv"] = list(entry.argv)
        fields["agent_call"] = "correlation_id" in fields
        if entry.outcome:
            fields["outcome"] = OUTCOME_TEXT.get(entry.outcome, "unknown")
            if entry.outcome == command_pb2.OUTCOME_EXITED:
                fields["exit_code"] = entry.exit_code
        if (executed := EXECUTED_TEXT.get(entry.executed)) is not None:
            fields["executed"] = executed
        if entry.HasField("timings"):
            fields["ms"] = round(entry.timings.total_s * 1000, 1)
            fields["run_ms"] = round(entry.timings.run_s * 1000, 1)
        log.info("audit", **fields, **more)


def _shown(text: str) -> str:
    """An id that was not checked, if it could be one."""
    return text if is_token(text) else ""
