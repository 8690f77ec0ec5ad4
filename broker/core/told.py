"""What an executor says of the end of a command, believed within bounds: it may be compromised, or merely wrong.

Numbers of it are added up, and shown to others than those who asked for the command.
"""

from openline import errors
from openline.capture import Kept
from openline.limits import DEADLINE_ALLOWANCE_S, MAX_TIMEOUT_S, MAX_WAIT_FOR_CLUSTER_S
from openline.reasons import EXECUTED_TEXT, Reason, reason_of
from openline.v1 import command_pb2

# What there is for an executor to say. The others are about keys, replicas and Redis, and whoever hears them acts on
# them for more than one command: a fan-out ends where the key is wrong, another replica is asked where one is away.
_ITS_OWN = frozenset(
    {
        Reason.CLUSTER_BUSY,
        Reason.POLICY_DENIED,
        Reason.INVALID_COMMAND,
        Reason.EXECUTOR_LOST,
        Reason.EXECUTOR_FAILED,
        Reason.COMMAND_TIMEOUT,
        Reason.CANCELLED,
        Reason.RESULT_EXPIRED,
    }
)
# The reason of an end for which the executor gives none of its own. The keys are all the ends there are but EXITED.
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
# No kubectl writes so much in the hour that a command may last: it would be 300 MB a second.
MAX_TOTAL_BYTES = 1 << 40
# A command ends at its deadline, wherever it is by then; its time begins when its cluster is there.
MAX_STAGE_S = MAX_WAIT_FOR_CLUSTER_S + MAX_TIMEOUT_S + DEADLINE_ALLOWANCE_S
# The last second that a calendar has, as protobuf's Timestamp defines it.
MAX_TIMESTAMP_S = 253_402_300_799


def duration(said_s: float) -> float:
    """How long a stage has taken, as an executor says; zero for what is no duration."""
    return min(said_s, MAX_STAGE_S) if 0.0 <= said_s < float("inf") else 0.0


def summarise(to: command_pb2.OutputSummary, said: command_pb2.OutputSummary, kept: Kept) -> None:
    """What the executor says of a stream, held against what arrived: never less cut than is missing here."""
    to.total_bytes = max(min(said.total_bytes, MAX_TOTAL_BYTES), kept.total_bytes)
    # Each has a byte at least.
    to.total_lines = min(max(said.total_lines, kept.total_lines), to.total_bytes)
    to.cut_bytes = to.total_bytes - len(kept.data)
    to.cut_lines = min(max(said.cut_lines, kept.cut_lines), to.total_lines)


def believe(result: command_pb2.CommandResult) -> None:
    """Brings into bounds what another replica tells, or Redis: it may be of a version that believed more."""
    for summary, data in ((result.stdout_summary, result.stdout), (result.stderr_summary, result.stderr)):
        summarise(summary, summary, Kept(data, total_bytes=len(data)))
    timings = result.timings
    timings.queue_s = duration(timings.queue_s)
    timings.route_s = duration(timings.route_s)
    timings.deliver_s = duration(timings.deliver_s)
    timings.run_s = duration(timings.run_s)
    timings.return_s = duration(timings.return_s)
    timings.total_s = duration(timings.total_s)


def is_end(outcome: int) -> bool:
    """Whether an executor can say that a command ended so."""
    return outcome == command_pb2.OUTCOME_EXITED or outcome in _USUAL


def told(said: command_pb2.Error, outcome: command_pb2.Outcome.ValueType) -> command_pb2.Error:
    """What an executor says of an end without an exit code: bounded, and with a reason that is its own to give."""
    reason = reason_of(said)
    if reason not in _ITS_OWN:
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
