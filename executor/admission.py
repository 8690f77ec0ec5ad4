"""Whether a command that is new to this executor may be taken. Pure."""

from collections.abc import Sequence
from typing import Protocol

from openline import ids
from openline.errors import error
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

# Commands that wait for a place, for each place there is: at kubectl's usual pace about half a second of waiting.
QUEUE_PER_PLACE = 4
BUSY_RETRY_S = 1.0


class Check(Protocol):
    """The policy: why an argv may not run, or None. `live`: somebody reads the output as it comes."""

    def __call__(self, argv: Sequence[str], *, live: bool) -> command_pb2.Error | None: ...


class Admission:
    """The policy and the places. `check` decides what may run, `max_concurrency` how much at a time."""

    def __init__(self, *, max_concurrency: int, check: Check) -> None:
        self.max_concurrency = max_concurrency
        self._check = check

    def refuse(self, execute: wire.Execute, *, running: int, queued: int, draining: bool) -> command_pb2.Error | None:
        """Why a command is not taken, if it is not."""
        if not ids.is_token(execute.command_id):
            field = ("command_id", "expected 1 to 200 visible ASCII characters")
            return error(Reason.INVALID_COMMAND, "the command has no usable id", violations=[field])
        if (refusal := self._check(execute.argv, live=execute.live)) is not None:
            return refusal
        if draining:
            return error(Reason.CLUSTER_BUSY, "this executor is stopping", retry_after_s=BUSY_RETRY_S)
        if running >= self.max_concurrency and queued >= QUEUE_PER_PLACE * self.max_concurrency:
            many = f"{running} commands run and {queued} wait on this executor"
            return error(Reason.CLUSTER_BUSY, many, retry_after_s=BUSY_RETRY_S)
        return None
