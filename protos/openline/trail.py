"""One command that is followed to its end, on one replica after the other: what each is asked, what its caller sees.

No I/O: `watching` does it for asyncio, `client.lines` for threads. A new stream begins at the next output seq.
"""

from time import monotonic

from openline.asking import Asking, check_answered
from openline.calls import broker_unavailable
from openline.cursor import Cursor
from openline.errors import OpenlineError
from openline.limits import HEARTBEAT_TIMEOUT_S
from openline.reasons import UNKNOWN, Reason
from openline.v1.command_pb2 import CommandEvent
from openline.v1.command_service_pb2 import ExecuteRequest, WatchCommandRequest

# After a stream broke, no replica may know the command for a while: its executor reconnects within the grace of 10 s.
FIND_AGAIN_S = 15.0
# Nobody waits for an hour to hear whether there is such a command, but a frozen replica is noticed, and another asked.
FIND_FIRST_S = FIND_AGAIN_S + HEARTBEAT_TIMEOUT_S


class Trail:
    """How far a caller has followed a command, and what the next replica is asked; `asking` for one that is to run."""

    def __init__(self, cursor: Cursor, *, asking: Asking | None, deadline: float, traceparent: str) -> None:
        self.cursor = cursor
        self.is_seen = False
        self._asking = asking
        self._deadline = deadline
        self._traceparent = traceparent
        # Whether the next replica is asked to run it, or to attach where it may have it already; or else to find it.
        self._runs = asking is not None
        self._given_up_at = monotonic() + FIND_FIRST_S

    @property
    def ends_at(self) -> float:
        if self._asking is not None:
            return self._asking.ends_at
        return self._deadline if self.is_seen else min(self._deadline, self._given_up_at)

    def left_s(self, now: float) -> float:
        return self._deadline - now

    def request(self, now: float) -> ExecuteRequest | WatchCommandRequest:
        """What the next replica is asked: to run it, or to attach to it where it may be; or only to show it."""
        if self._asking is not None and self._runs:
            return self._asking.request(now)
        command_id, from_seq = self.cursor.command_id, self.cursor.next_seq
        return WatchCommandRequest(command_id=command_id, from_seq=from_seq, traceparent=self._traceparent)

    def show(self, event: CommandEvent) -> list[CommandEvent]:
        """What the caller is to see of an event. Raises what a replica says of a command that it could not reach."""
        if event.HasField("result"):
            check_answered(event.result)
        self.is_seen = True
        return self.cursor.show(event)

    def failed(self, failure: OpenlineError) -> None:
        """A replica has no more events. Raises what ends it."""
        is_lost = self.is_seen if self._asking is None else self._asking.may_have_left
        if is_lost and failure.reason is Reason.COMMAND_UNKNOWN:
            if monotonic() >= self._given_up_at:
                gone = "the stream broke, and no replica knows the command any more"
                raise broker_unavailable(gone, executed=UNKNOWN) from failure
            # It may never have arrived. What an executor was seen to have is only looked for.
            self._runs = self._asking is not None and not self._runs and not self.cursor.is_taken
        elif self._asking is not None and is_lost and failure.reason is Reason.SCOPE_MISSING and not self._runs:
            # A key that may run a command may attach to it, even where it may not look at others.
            self._runs = True
        elif self._asking is not None:
            self._asking.failed(failure)
            self._runs = not self._asking.may_have_left
            self._begin_search()
        elif failure.reason is not Reason.BROKER_UNAVAILABLE:
            raise failure
        elif self.is_seen:
            self._begin_search()

    def given_up(self) -> OpenlineError:
        if self._asking is not None:
            return self._asking.given_up()
        return broker_unavailable("no broker replica that may know the command could be reached", executed=UNKNOWN)

    def _begin_search(self) -> None:
        self._given_up_at = monotonic() + FIND_AGAIN_S


def run_trail(request: ExecuteRequest, *, timeout_s: float) -> Trail:
    """The trail of a command that is to run; the request must bring its id."""
    asking = Asking(request, now=monotonic(), timeout_s=timeout_s)
    cursor, traceparent = Cursor(request.command_id), request.traceparent
    return Trail(cursor, asking=asking, deadline=asking.deadline, traceparent=traceparent)


def watch_trail(command_id: str, *, from_seq: int, timeout_s: float, traceparent: str = "") -> Trail:
    """The trail of a command that was asked for before."""
    cursor, deadline = Cursor(command_id, next_seq=from_seq), monotonic() + timeout_s
    return Trail(cursor, asking=None, deadline=deadline, traceparent=traceparent)
