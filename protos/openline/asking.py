"""One command that is to run once, asked of one replica after the other: what each is asked, what its caller is told.

Pure; `pipes` and `watching` do the asking, and `turns` says whom.

What surely never left is asked again as it was. As soon as one replica may have the command, every further one is asked
to attach to it, and what is not known stays unknown until a replica that answers knows better.
"""

from openline.calls import broker_unavailable
from openline.errors import OpenlineError
from openline.limits import DEFAULT_TIMEOUT_S
from openline.reasons import NO, UNKNOWN, Reason
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb

# What is less than this before the first try is no time: then the request goes as it came.
NEGLIGIBLE_S = 0.001
# What a replica says of a request without having looked for its command: true of this request alone.
_SAID_UNSEEN = frozenset(
    {
        Reason.UNAUTHENTICATED,
        Reason.SCOPE_MISSING,
        Reason.QUOTA_EXCEEDED,
        Reason.INVALID_COMMAND,
        Reason.CLUSTER_UNKNOWN,
        Reason.SESSION_UNKNOWN,
        Reason.SESSION_MISMATCH,
        Reason.STORE_UNAVAILABLE,
        Reason.COMMAND_UNKNOWN,
        Reason.PROTOCOL_VIOLATION,
        Reason.VERSION_UNSUPPORTED,
        Reason.NOT_BUILT,
    }
)


class Asking:
    """A request and how far it has got. Instants are time.monotonic's."""

    __slots__ = ("_began_at", "_request", "_timeout_s", "deadline", "may_have_left")

    def __init__(self, request: pb.ExecuteRequest, *, now: float, timeout_s: float) -> None:
        self._request = request
        self._began_at = now
        self._timeout_s = timeout_s
        # Until then its caller waits for an answer, all told.
        self.deadline = now + timeout_s
        # Some replica may have the command; it stays so.
        self.may_have_left = request.attach

    def __repr__(self) -> str:
        return f"<Asking {self._request.command_id} may_have_left={self.may_have_left}>"

    @property
    def ends_at(self) -> float:
        """No replica is asked after this. What has not left has no use for the time that is meant for its answer."""
        if self.may_have_left:
            return self.deadline
        run_s = self._request.wait_for_cluster_s + (self._request.timeout_s or DEFAULT_TIMEOUT_S)
        return min(self.deadline, self._began_at + run_s)

    def request(self, now: float) -> pb.ExecuteRequest:
        """What the next replica is asked: the same command, with the time that has passed taken off."""
        elapsed_s = now - self._began_at
        if elapsed_s < NEGLIGIBLE_S and self.may_have_left == self._request.attach:
            return self._request
        asked = less(self._request, elapsed_s)
        asked.attach = self.may_have_left
        return asked

    def failed(self, failure: OpenlineError) -> None:
        """A replica did not answer with a result. Raises what another one would not answer better."""
        executed = failure.error.executed
        if failure.reason is Reason.BROKER_UNAVAILABLE:
            self.may_have_left = self.may_have_left or executed != NO
            return
        if self.may_have_left and executed == NO and failure.reason in _SAID_UNSEEN:
            failure.error.executed = UNKNOWN
        raise failure

    def given_up(self) -> OpenlineError:
        """What is told when the time is up."""
        if self.may_have_left:
            return broker_unavailable(f"no answer from a broker replica within {self._timeout_s:g} s", executed=UNKNOWN)
        return broker_unavailable("no broker replica could be reached in time", executed=NO)


def check_answered(result: command_pb2.CommandResult) -> None:
    """Raises what a replica says of a command that it could not reach, where it says so as the command's result."""
    if result.HasField("error") and result.error.reason == Reason.BROKER_UNAVAILABLE:
        raise OpenlineError(result.error)


def less(request: pb.ExecuteRequest, elapsed_s: float) -> pb.ExecuteRequest:
    """A copy with the time that has passed taken off: off the wait for the cluster, then off the timeout."""
    waited_s = min(elapsed_s, request.wait_for_cluster_s)
    asked = pb.ExecuteRequest()
    asked.CopyFrom(request)
    # Never 0, which asks for the default.
    asked.timeout_s = max(0.001, (request.timeout_s or DEFAULT_TIMEOUT_S) - (elapsed_s - waited_s))
    asked.wait_for_cluster_s = request.wait_for_cluster_s - waited_s
    return asked
