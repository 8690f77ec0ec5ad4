"""What the client raises: a class for each reason, in families by what a caller can do about it.

    OpenlineError                 it could not be done: reason, executed, retry_after_s, metadata, command_id
    ├── Refused                   asked again, it would be refused again
    │   ├── ClusterUnknown        `near` and `available` in the metadata name others
    │   ├── PolicyDenied          `rule` says why, `allowed` what would be run
    │   ├── InvalidCommand        `violations` name the fields
    │   ├── Unauthenticated
    │   ├── ScopeMissing          `scope` says what the key lacks
    │   ├── SessionUnknown
    │   ├── SessionMismatch
    │   ├── IdempotencyConflict
    │   ├── TokenExists           an executor token that the cluster has, or had
    │   ├── KeyExists             an API key that there is, or was
    │   └── ExecutorFailed        the process could not be started
    ├── NotNow                    asked again later, it may be done; `retry_after_s` says when, where that is known
    │   ├── ClusterOffline        `last_seen` says since when
    │   ├── ClusterBusy
    │   ├── QuotaExceeded
    │   ├── StoreUnavailable
    │   └── BrokerUnavailable     no replica answered; with `executed` unknown, look for `command_id` first
    ├── Ended                     it ended without an exit code; stdout, stderr and text have the output so far
    │   ├── CommandTimeout
    │   ├── Cancelled
    │   └── ExecutorLost          nobody knows whether it ran
    ├── NotFound                  what was looked up is not there
    │   ├── CommandUnknown
    │   ├── TokenUnknown          no executor token of this id
    │   ├── KeyUnknown            no API key of this id
    │   └── ResultExpired         it ran, and its result is not kept any more
    └── Mismatch                  client and broker do not understand each other, or one has a defect
        ├── ProtocolViolation
        ├── VersionUnsupported
        ├── NotBuilt
        └── Internal

A command that ran and failed is none of these: `Result.check` raises CommandFailed for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from openline.errors import OpenlineError
from openline.reasons import Reason


class Refused(OpenlineError):
    """It will not be done, however often it is asked for."""


class ClusterUnknown(Refused):
    """There is no such cluster, or none that the key may see."""


class PolicyDenied(Refused):
    """The executor's policy does not let this run."""


class InvalidCommand(Refused):
    """The request is malformed."""

    @property
    def violations(self) -> tuple[tuple[str, str], ...]:
        """Each field that is wrong, and how."""
        return tuple((wrong.field, wrong.description) for wrong in self.error.violations)


class Unauthenticated(Refused):
    """The key is not valid."""


class ScopeMissing(Refused):
    """The key may not do this."""


class SessionUnknown(Refused):
    """There is no such session, or it has expired."""


class SessionMismatch(Refused):
    """The session is for another cluster."""


class IdempotencyConflict(Refused):
    """The idempotency key was used for another request."""


class TokenExists(Refused):
    """The cluster has this very executor token, or had it."""


class KeyExists(Refused):
    """There is this very API key, or there was."""


class ExecutorFailed(Refused):
    """The process could not be started."""


class NotNow(OpenlineError):
    """The same may be done later."""


class ClusterOffline(NotNow):
    """No executor of the cluster is connected."""


class ClusterBusy(NotNow):
    """Too many commands wait for the cluster, or its executor is stopping."""


class QuotaExceeded(NotNow):
    """The caller has too much open at one time."""


class StoreUnavailable(NotNow):
    """Redis is needed for this and out of reach."""


class BrokerUnavailable(NotNow):
    """No broker replica answered."""


class Ended(OpenlineError):
    """The command ended without an exit code. `result` is what the broker keeps of it, None where there is nothing."""

    @property
    def stdout(self) -> bytes:
        return self.result.stdout if self.result is not None else b""

    @property
    def stderr(self) -> bytes:
        return self.result.stderr if self.result is not None else b""

    @property
    def text(self) -> str:
        """Of stdout."""
        return self.stdout.decode(errors="replace")


class CommandTimeout(Ended):
    """The command ran out of time and was killed."""


class Cancelled(Ended):
    """Somebody cancelled the command."""


class ExecutorLost(Ended):
    """The executor that held the command is gone."""


class NotFound(OpenlineError):
    """What was looked up is not there."""


class CommandUnknown(NotFound):
    """No command with this id is known, or none that the key may see."""


class TokenUnknown(NotFound):
    """The cluster has no executor token of this id."""


class KeyUnknown(NotFound):
    """No API key has this id, or none that the key may see."""


class ResultExpired(NotFound):
    """There was such a command, and its result is not kept any more."""


class Mismatch(OpenlineError):
    """Nothing that a caller can mend; the message and the broker's log say more."""


class ProtocolViolation(Mismatch):
    """One end does not speak the contract."""


class VersionUnsupported(Mismatch):
    """The broker does not speak this version of the contract."""


class NotBuilt(Mismatch):
    """It is in the contract and not in the broker's version."""


class Internal(Mismatch):
    """A defect of openline, or a reason that this version of the client does not know."""


CLASSES: dict[Reason, type[OpenlineError]] = {
    Reason.CLUSTER_UNKNOWN: ClusterUnknown,
    Reason.CLUSTER_OFFLINE: ClusterOffline,
    Reason.CLUSTER_BUSY: ClusterBusy,
    Reason.QUOTA_EXCEEDED: QuotaExceeded,
    Reason.POLICY_DENIED: PolicyDenied,
    Reason.INVALID_COMMAND: InvalidCommand,
    Reason.UNAUTHENTICATED: Unauthenticated,
    Reason.SCOPE_MISSING: ScopeMissing,
    Reason.SESSION_UNKNOWN: SessionUnknown,
    Reason.SESSION_MISMATCH: SessionMismatch,
    Reason.IDEMPOTENCY_CONFLICT: IdempotencyConflict,
    Reason.EXECUTOR_LOST: ExecutorLost,
    Reason.COMMAND_TIMEOUT: CommandTimeout,
    Reason.CANCELLED: Cancelled,
    Reason.RESULT_EXPIRED: ResultExpired,
    Reason.COMMAND_UNKNOWN: CommandUnknown,
    Reason.EXECUTOR_FAILED: ExecutorFailed,
    Reason.STORE_UNAVAILABLE: StoreUnavailable,
    Reason.BROKER_UNAVAILABLE: BrokerUnavailable,
    Reason.PROTOCOL_VIOLATION: ProtocolViolation,
    Reason.VERSION_UNSUPPORTED: VersionUnsupported,
    Reason.TOKEN_EXISTS: TokenExists,
    Reason.TOKEN_UNKNOWN: TokenUnknown,
    Reason.KEY_EXISTS: KeyExists,
    Reason.KEY_UNKNOWN: KeyUnknown,
    Reason.NOT_BUILT: NotBuilt,
    Reason.INTERNAL: Internal,
}


def typed(failure: OpenlineError, *, command_id: str = "") -> OpenlineError:
    """The same failure in the class of its reason; `command_id` is the one that was asked for, if it says none."""
    if command_id and not failure.command_id:
        failure.error.metadata["command_id"] = command_id
    return CLASSES[failure.reason](failure.error, result=failure.result)


@contextmanager
def typed_errors(command_id: str = "") -> Iterator[None]:
    """Every OpenlineError leaves in the class of its reason."""
    try:
        yield
    except OpenlineError as failure:
        raise typed(failure, command_id=command_id) from failure.__cause__
