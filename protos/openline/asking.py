"""Several replicas, one question: whether another one is worth asking, with what times, and whose answer counts.

Pure; `pipes` and `watching` do the asking.
"""

from openline.errors import OpenlineError
from openline.limits import DEFAULT_TIMEOUT_S
from openline.reasons import NO, Reason
from openline.v1 import command_service_pb2 as pb

# What another replica may answer better when it is asked to run a command; everything else is the same everywhere.
_RUN_ELSEWHERE = frozenset({Reason.BROKER_UNAVAILABLE, Reason.CLUSTER_OFFLINE})
# And when it is asked about one: the replica that has the executor knows what runs there.
_FIND_ELSEWHERE = frozenset({Reason.BROKER_UNAVAILABLE, Reason.COMMAND_UNKNOWN, Reason.RESULT_EXPIRED})

# From the least telling answer to the most. A replica that was not reached may know what another one does not.
_TELLING = (
    Reason.COMMAND_UNKNOWN,
    Reason.BROKER_UNAVAILABLE,
    Reason.CLUSTER_OFFLINE,
    Reason.RESULT_EXPIRED,
    Reason.EXECUTOR_LOST,  # of an idempotency key: it may have run
)

# In the metadata of EXECUTOR_LOST: the command of the request's idempotency key, which that replica does not know.
CLAIMED = "claimed_command_id"


def run_elsewhere(failure: OpenlineError) -> bool:
    """Whether another replica may be asked to run the command: never what may have run."""
    return failure.error.executed == NO and failure.reason in _RUN_ELSEWHERE


def attach_elsewhere(failure: OpenlineError) -> bool:
    """Whether another replica may have the command of the request's idempotency key, which cannot run twice."""
    return failure.reason is Reason.EXECUTOR_LOST and CLAIMED in failure.error.metadata


def find_elsewhere(failure: OpenlineError) -> bool:
    """Whether another replica may know the command."""
    return failure.reason in _FIND_ELSEWHERE


def more_telling(told: OpenlineError | None, failure: OpenlineError) -> OpenlineError:
    """Which of two answers that are worth asking another replica the caller is told, if none is better."""
    return failure if told is None else max(told, failure, key=_rank)


def less(request: pb.ExecuteRequest, elapsed_s: float, *, wait_s: float | None = None) -> pb.ExecuteRequest:
    """The same request with the time that has passed taken off: off the wait for the cluster, then off the timeout.

    `wait_s` bounds the wait for the cluster that this replica is asked for.
    """
    if elapsed_s == 0.0 and (wait_s is None or request.wait_for_cluster_s <= wait_s):
        return request
    waited_s = min(elapsed_s, request.wait_for_cluster_s)
    left_s = request.wait_for_cluster_s - waited_s
    asked = pb.ExecuteRequest()
    asked.CopyFrom(request)
    # Never 0, which asks for the default.
    asked.timeout_s = max(0.001, (request.timeout_s or DEFAULT_TIMEOUT_S) - (elapsed_s - waited_s))
    asked.wait_for_cluster_s = left_s if wait_s is None else min(left_s, wait_s)
    return asked


def _rank(failure: OpenlineError) -> tuple[int, str]:
    return _TELLING.index(failure.reason), failure.error.metadata.get("last_seen", "")
