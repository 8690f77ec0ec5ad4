"""What an executor says of the end of a command, believed within bounds: it may be compromised, or merely wrong."""

from openline import errors
from openline.reasons import EXECUTED_TEXT, Reason
from openline.v1 import command_pb2

# The reason of an end for which the executor gives none of the table. The keys are all the ends there are but EXITED.
_USUAL = {
    command_pb2.OUTCOME_TIMED_OUT: Reason.COMMAND_TIMEOUT,
    command_pb2.OUTCOME_CANCELLED: Reason.CANCELLED,
    command_pb2.OUTCOME_LOST: Reason.EXECUTOR_LOST,
    command_pb2.OUTCOME_REJECTED: Reason.EXECUTOR_FAILED,
}
# What an executor may say of an end: it travels on in a status, which has room for a few kilobytes.
MAX_MESSAGE_CHARACTERS = 500
MAX_METADATA_BYTES = 2048
MAX_RETRY_AFTER_S = 3600.0
# Of what an executor says it has bounded: far more than there are, and longer than they are.
MAX_BOUNDED = 8
MAX_BOUNDED_CHARACTERS = 64
# The last second that a calendar has, as protobuf's Timestamp defines it.
MAX_TIMESTAMP_S = 253_402_300_799


def duration(said_s: float) -> float:
    """A duration that an executor says, or zero for one that is none."""
    return said_s if 0.0 <= said_s < float("inf") else 0.0


def is_end(outcome: int) -> bool:
    """Whether an executor can say that a command ended so."""
    return outcome == command_pb2.OUTCOME_EXITED or outcome in _USUAL


def told(said: command_pb2.Error, outcome: command_pb2.Outcome.ValueType) -> command_pb2.Error:
    """What an executor says of an end without an exit code: bounded, and with a reason of the table."""
    try:
        reason = Reason(said.reason)
    except ValueError:
        reason = _USUAL[outcome]
    metadata: dict[str, str] = {}
    room = MAX_METADATA_BYTES
    for name, value in sorted(said.metadata.items()):
        if name == errors.CANCELLED_WITH:
            continue  # it is about commands in other clusters, which are none of the executor's
        if (room := room - len(name.encode()) - len(value.encode())) < 0:
            break
        metadata[name] = value
    return errors.error(
        reason,
        said.message[:MAX_MESSAGE_CHARACTERS] or "the executor gave no reason",
        executed=said.executed if said.executed in EXECUTED_TEXT else None,
        retry_after_s=min(duration(said.retry_after_s), MAX_RETRY_AFTER_S),
        metadata=metadata,
        violations=[(v.field[:100], v.description[:200]) for v in said.violations[:10]],
    )
