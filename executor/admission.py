"""Whether a command that is new to this executor may be taken. Pure."""

from collections.abc import Sequence
from typing import Protocol

from openline import ids
from openline.errors import error
from openline.policy import Allowed, Denied
from openline.policy.wire import denied_error
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

# Commands that wait for a place, for each place there is: at kubectl's usual pace about half a second of waiting.
QUEUE_PER_PLACE = 4
BUSY_RETRY_S = 1.0


class Judge(Protocol):
    """The policy: what runs instead of an argv, or why nothing does; see `openline.policy.judge`."""

    def __call__(self, argv: Sequence[str], *, streamed: bool, remaining_s: float) -> Allowed | Denied: ...


class Admission:
    """The policy and the places. `judge` decides what may run, `max_concurrency` how much at a time."""

    def __init__(self, *, max_concurrency: int, judge: Judge) -> None:
        self.max_concurrency = max_concurrency
        self._judge = judge

    def admit(
        self, execute: wire.Execute, *, timeout_s: float, running: int, queued: int, draining: bool
    ) -> Allowed | command_pb2.Error:
        """What runs for a command, or why it is not taken."""
        if not ids.is_token(execute.command_id):
            field = ("command_id", "expected 1 to 200 visible ASCII characters")
            return error(Reason.INVALID_COMMAND, "the command has no usable id", violations=[field])
        verdict = self._judge(execute.argv, streamed=execute.live, remaining_s=timeout_s)
        if isinstance(verdict, Denied):
            return denied_error(verdict)
        if draining:
            return error(Reason.CLUSTER_BUSY, "this executor is stopping", retry_after_s=BUSY_RETRY_S)
        if running >= self.max_concurrency and queued >= QUEUE_PER_PLACE * self.max_concurrency:
            many = f"{running} commands run and {queued} wait on this executor"
            return error(Reason.CLUSTER_BUSY, many, retry_after_s=BUSY_RETRY_S, metadata={"queued": str(queued)})
        return verdict
