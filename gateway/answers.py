"""Contract to REST: what brokers answer, in the shapes of `models`."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.digests import is_cut
from gateway.models import (
    ClusterAnswer,
    ClusterFlags,
    ClusterStatusAnswer,
    ExecuteAnswer,
    ServedFrom,
    SessionAnswer,
    TimingsAnswer,
)
from gateway.policies import policy_answer
from openline.channels import LONGEST_CALL_S
from openline.errors import OpenlineError, error, next_step
from openline.reasons import Reason
from openline.v1 import cluster_service_pb2, command_pb2, command_service_pb2, session_service_pb2

Status = Literal["success", "failure", "timeout", "cancelled"]

# Ends without an exit code that are answers on the drop-in surface; every other one is an error.
_STOPPED: dict[command_pb2.Outcome.ValueType, Status] = {
    command_pb2.OUTCOME_TIMED_OUT: "timeout",
    command_pb2.OUTCOME_CANCELLED: "cancelled",
}
_STOPPED_EARLY: dict[Reason, command_pb2.Outcome.ValueType] = {
    Reason.COMMAND_TIMEOUT: command_pb2.OUTCOME_TIMED_OUT,
    Reason.CANCELLED: command_pb2.OUTCOME_CANCELLED,
}

_SERVED_FROM: dict[command_pb2.ServedFrom.ValueType, ServedFrom] = {
    command_pb2.SERVED_FROM_UNSPECIFIED: "run",
    command_pb2.SERVED_FROM_SHARED: "shared",
    command_pb2.SERVED_FROM_CACHE: "cache",
}

# As with a cluster: what was used within this time is active.
SESSION_ACTIVE_FOR = timedelta(seconds=60)


def stopped_early(failure: OpenlineError) -> command_pb2.CommandResult:
    """The result of a command that ended in time-out or cancel before an executor had it. Raises any other failure."""
    if failure.reason not in _STOPPED_EARLY:
        raise failure
    return failure.result or command_pb2.CommandResult(outcome=_STOPPED_EARLY[failure.reason], error=failure.error)


def check_answerable(result: command_pb2.CommandResult) -> None:
    """Raises OpenlineError for a command that did not run, or of which that is not known."""
    if result.outcome != command_pb2.OUTCOME_EXITED and result.outcome not in _STOPPED:
        why = result.error if result.error.reason else error(Reason.INTERNAL, "the broker's answer has no outcome")
        raise OpenlineError(why, result=result)


def execute_answer(result: command_pb2.CommandResult, request: command_service_pb2.ExecuteRequest) -> ExecuteAnswer:
    """How a command ended. Raises OpenlineError where `check_answerable` does."""
    check_answerable(result)
    exited = result.outcome == command_pb2.OUTCOME_EXITED
    success = exited and result.exit_code == 0
    stdout, stdout_replaced = as_text(result.stdout)
    stderr, stderr_replaced = as_text(result.stderr)
    said = stderr.strip().partition("\n")[0].rstrip()
    return ExecuteAnswer(
        command_id=result.command_id or request.command_id,
        session_id=request.session_id or None,
        cluster_id=request.cluster_id,
        status=("success" if success else "failure") if exited else _STOPPED[result.outcome],
        success=success,
        correlation_id=correlation_id_of(result, request) or None,
        output=f"{stdout}\n{stderr}" if stderr else stdout,
        error=None if success else said or f"exit code {result.exit_code}" if exited else result.error.message or said,
        stdout=stdout,
        stderr=stderr,
        exit_code=result.exit_code if exited else None,
        truncated=is_cut(result),
        total_bytes=result.stdout_summary.total_bytes + result.stderr_summary.total_bytes,
        encoding_replaced=stdout_replaced or stderr_replaced,
        masked_values=result.masked_values,
        bounded=list(result.bounded),
        execution_time_ms=round(milliseconds(result.timings.run_s)),
        executed_at=instant(result.observed_at) or instant(result.created_at) or datetime.now(UTC),
        timings=timings_answer(result.timings),
        executor_id=result.executor_id or None,
        observed_at=instant(result.observed_at),
        hint=" ".join(filter(None, (result.hint, "" if exited else next_step(result.error)))) or None,
        served_from=served_from(result),
        age_s=age_s(result),
    )


def served_from(result: command_pb2.CommandResult) -> ServedFrom:
    """Of one that this version does not know it is only known that it is another's."""
    return _SERVED_FROM.get(result.served_from, "shared")


def age_s(result: command_pb2.CommandResult) -> float:
    return round(result.age_s, 6)


def correlation_id_of(result: command_pb2.CommandResult, request: command_service_pb2.ExecuteRequest) -> str:
    """The request's own; that of the first one, where this is its answer once more."""
    is_replayed = result.command_id not in ("", request.command_id)
    return result.correlation_id if is_replayed else request.correlation_id


def milliseconds(seconds: float) -> float:
    """Of a duration in a result or in the audit trail, where brokers of before left what executors had said."""
    # Written so that NaN is zero. To the microsecond: some of the parts take no more than a few.
    return round(min(seconds, LONGEST_CALL_S) * 1000, 3) if seconds > 0 else 0.0


def timings_answer(timings: command_pb2.Timings) -> TimingsAnswer:
    return TimingsAnswer(
        queue_ms=milliseconds(timings.queue_s),
        route_ms=milliseconds(timings.route_s),
        deliver_ms=milliseconds(timings.deliver_s),
        run_ms=milliseconds(timings.run_s),
        return_ms=milliseconds(timings.return_s),
        total_ms=milliseconds(timings.total_s),
    )


def session_answer(session: session_service_pb2.Session) -> SessionAnswer:
    created_at = instant(session.created_at) or datetime.now(UTC)
    used_at = max(created_at, instant(session.last_used_at) or created_at)
    return SessionAnswer(
        session_id=session.session_id,
        cluster_id=session.cluster_id,
        # Instants of two clocks, but only shown: nothing is decided by it.
        status="active" if datetime.now(UTC) - used_at < SESSION_ACTIVE_FOR else "idle",
        created_at=created_at,
        expires_at=instant(session.expires_at) or created_at + timedelta(seconds=session.ttl_s),
        ttl_seconds=session.ttl_s,
        correlation_id=session.correlation_id or None,
        service_identity=session.service_identity or None,
    )


def cluster_answer(cluster: cluster_service_pb2.Cluster) -> ClusterAnswer:
    return ClusterAnswer(
        clusterId=cluster.cluster_id,
        status=ClusterFlags(
            hasToken=cluster.has_token,
            hasActiveSession=cluster.has_active_session,
            executorReporting=cluster.connected,
        ),
        capabilities=capabilities(cluster.executors[0]) if cluster.executors else None,
        ttlRemaining=math.ceil(cluster.active_for_s) if cluster.active else None,
    )


def cluster_status_answer(cluster: cluster_service_pb2.Cluster) -> ClusterStatusAnswer:
    return ClusterStatusAnswer(
        cluster_id=cluster.cluster_id,
        is_active=cluster.active,
        active_for_seconds=math.ceil(cluster.active_for_s),
        is_connected=cluster.connected,
        last_seen=instant(cluster.last_seen),
        executors=len(cluster.executors) + cluster.more_executors,
    )


def capabilities(executor: cluster_service_pb2.ConnectedExecutor) -> dict[str, Any]:
    policy = policy_answer(executor.capabilities)
    return {
        "executor_id": executor.executor_id,
        "verbs": list(executor.capabilities.verbs),
        "policy": None if policy is None else policy.model_dump(),
        "streaming": executor.capabilities.streaming,
        "labels": dict(executor.capabilities.labels),
        "max_concurrency": executor.max_concurrency,
        "versions": {
            "executor": executor.versions.executor,
            "kubectl": executor.versions.kubectl,
            "kubernetes": executor.versions.kubernetes,
        },
    }


def as_text(data: bytes) -> tuple[str, bool]:
    """As text, and whether some bytes had to be replaced."""
    try:
        return data.decode(), False
    except UnicodeDecodeError:
        return data.decode(errors="replace"), True


def instant(stamp: Timestamp) -> datetime | None:
    """None for one that is not set."""
    return stamp.ToDatetime(UTC) if stamp.ByteSize() else None
