"""The table of reasons: why something could not be done, and what each protocol calls that.

Pure data that every program reads; docs/errors.md shows it. Nothing here knows about gRPC or HTTP libraries.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from openline.v1 import command_pb2

NO = command_pb2.EXECUTED_NO
YES = command_pb2.EXECUTED_YES
UNKNOWN = command_pb2.EXECUTED_UNKNOWN


class Reason(StrEnum):
    """Why; the `reason` of ErrorInfo and of a problem document."""

    CLUSTER_UNKNOWN = "CLUSTER_UNKNOWN"
    CLUSTER_OFFLINE = "CLUSTER_OFFLINE"
    CLUSTER_BUSY = "CLUSTER_BUSY"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    POLICY_DENIED = "POLICY_DENIED"
    INVALID_COMMAND = "INVALID_COMMAND"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    SCOPE_MISSING = "SCOPE_MISSING"
    SESSION_UNKNOWN = "SESSION_UNKNOWN"
    SESSION_MISMATCH = "SESSION_MISMATCH"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    EXECUTOR_LOST = "EXECUTOR_LOST"
    COMMAND_TIMEOUT = "COMMAND_TIMEOUT"
    CANCELLED = "CANCELLED"
    RESULT_EXPIRED = "RESULT_EXPIRED"
    # Beyond the design's table, for what it does not name (docs/decisions.md):
    COMMAND_UNKNOWN = "COMMAND_UNKNOWN"  # no such id, or one that the key may not see
    EXECUTOR_FAILED = "EXECUTOR_FAILED"  # the executor could not start the process
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"  # Redis is needed for this and out of reach
    BROKER_UNAVAILABLE = "BROKER_UNAVAILABLE"  # a gateway or client reaches no broker replica
    PROTOCOL_VIOLATION = "PROTOCOL_VIOLATION"  # the peer does not speak the contract
    VERSION_UNSUPPORTED = "VERSION_UNSUPPORTED"  # the peer speaks a version of it that is not spoken here
    TOKEN_EXISTS = "TOKEN_EXISTS"  # noqa: S105  (a token of the caller's choice that the cluster has, or had)
    TOKEN_UNKNOWN = "TOKEN_UNKNOWN"  # noqa: S105  (the cluster has no token of this id)
    KEY_EXISTS = "KEY_EXISTS"  # an API key of the caller's choice that there is, or was
    KEY_UNKNOWN = "KEY_UNKNOWN"  # no API key has this id, or none that the caller may see
    NOT_BUILT = "NOT_BUILT"  # in the contract, not in this version
    INTERNAL = "INTERNAL"  # a defect of ours


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason is in each protocol.

    `grpc` is the name of a grpc.StatusCode; `http` the status on `/v1` (docs/errors.md names where the drop-in surface
    differs); `executed` the default where the one who raises it does not know better; `retryable` whether the same
    request may succeed later.
    """

    grpc: str
    http: int
    executed: command_pb2.Executed.ValueType
    retryable: bool


MEANING: dict[Reason, Meaning] = {
    Reason.CLUSTER_UNKNOWN: Meaning("NOT_FOUND", 404, NO, False),
    Reason.CLUSTER_OFFLINE: Meaning("UNAVAILABLE", 503, NO, True),
    Reason.CLUSTER_BUSY: Meaning("RESOURCE_EXHAUSTED", 429, NO, True),
    Reason.QUOTA_EXCEEDED: Meaning("RESOURCE_EXHAUSTED", 429, NO, True),
    Reason.POLICY_DENIED: Meaning("PERMISSION_DENIED", 403, NO, False),
    Reason.INVALID_COMMAND: Meaning("INVALID_ARGUMENT", 422, NO, False),
    Reason.UNAUTHENTICATED: Meaning("UNAUTHENTICATED", 401, NO, False),
    Reason.SCOPE_MISSING: Meaning("PERMISSION_DENIED", 403, NO, False),
    Reason.SESSION_UNKNOWN: Meaning("NOT_FOUND", 404, NO, False),
    Reason.SESSION_MISMATCH: Meaning("INVALID_ARGUMENT", 400, NO, False),
    Reason.IDEMPOTENCY_CONFLICT: Meaning("ALREADY_EXISTS", 422, NO, False),
    Reason.EXECUTOR_LOST: Meaning("UNKNOWN", 502, UNKNOWN, False),
    Reason.COMMAND_TIMEOUT: Meaning("DEADLINE_EXCEEDED", 504, YES, False),
    Reason.CANCELLED: Meaning("CANCELLED", 499, UNKNOWN, False),
    Reason.RESULT_EXPIRED: Meaning("NOT_FOUND", 410, YES, False),
    Reason.COMMAND_UNKNOWN: Meaning("NOT_FOUND", 404, UNKNOWN, False),
    Reason.EXECUTOR_FAILED: Meaning("INTERNAL", 502, NO, False),
    Reason.STORE_UNAVAILABLE: Meaning("UNAVAILABLE", 503, NO, True),
    Reason.BROKER_UNAVAILABLE: Meaning("UNAVAILABLE", 503, UNKNOWN, True),
    Reason.PROTOCOL_VIOLATION: Meaning("INVALID_ARGUMENT", 400, NO, False),
    Reason.VERSION_UNSUPPORTED: Meaning("FAILED_PRECONDITION", 400, NO, False),
    Reason.TOKEN_EXISTS: Meaning("ALREADY_EXISTS", 409, NO, False),
    Reason.TOKEN_UNKNOWN: Meaning("NOT_FOUND", 404, NO, False),
    Reason.KEY_EXISTS: Meaning("ALREADY_EXISTS", 409, NO, False),
    Reason.KEY_UNKNOWN: Meaning("NOT_FOUND", 404, NO, False),
    Reason.NOT_BUILT: Meaning("UNIMPLEMENTED", 501, NO, False),
    Reason.INTERNAL: Meaning("INTERNAL", 500, UNKNOWN, False),
}

ExecutedText = Literal["no", "yes", "unknown"]
EXECUTED_TEXT: dict[command_pb2.Executed.ValueType, ExecutedText] = {NO: "no", YES: "yes", UNKNOWN: "unknown"}

# As logs, metrics and people have it; the one that says nothing is left out.
OUTCOME_TEXT: dict[command_pb2.Outcome.ValueType, str] = {
    value: name.removeprefix("OUTCOME_").lower() for name, value in command_pb2.Outcome.items() if value
}


def reason_of(error: command_pb2.Error) -> Reason:
    """The reason of a received error; INTERNAL for one that this version does not know."""
    try:
        return Reason(error.reason)
    except ValueError:
        return Reason.INTERNAL
