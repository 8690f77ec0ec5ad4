"""One command's events, over as many streams as it takes: run it, and when the stream breaks, attach to it again.

Another replica is asked from the next output seq on, until the result or the caller's deadline. Whoever stops before
the end closes the generator (`contextlib.aclosing`).
"""

from contextlib import aclosing
from time import monotonic

from openline.asking import Asking, check_answered
from openline.calls import broker_unavailable
from openline.cursor import Cursor
from openline.errors import OpenlineError
from openline.events import CommandEvents
from openline.limits import HEARTBEAT_TIMEOUT_S
from openline.pipe import Pipe
from openline.pipes import Pipes
from openline.reasons import UNKNOWN, Reason
from openline.v1.command_service_pb2 import ExecuteRequest, WatchCommandRequest

# After a stream broke, no replica may know the command for a while: its executor reconnects within the grace of 10 s.
FIND_AGAIN_S = 15.0
# Nobody waits for an hour to hear whether there is such a command, but a frozen replica is noticed, and another asked.
FIND_FIRST_S = FIND_AGAIN_S + HEARTBEAT_TIMEOUT_S


def execute_stream(pipes: Pipes, request: ExecuteRequest, *, api_key: str, timeout_s: float) -> CommandEvents:
    """Runs a command and gives its events; the result is the last. At most for `timeout_s`.

    The request must bring its command id. Raises OpenlineError: what a replica answered, or BROKER_UNAVAILABLE when the
    time is up. A command that is to be cancelled with its caller is cancelled when its stream breaks as well: the
    broker cannot tell one from the other. Its end is shown all the same.
    """
    asking = Asking(request, now=monotonic(), timeout_s=timeout_s)
    return _followed(pipes, Trail(Cursor(request.command_id), asking=asking, deadline=asking.deadline), api_key=api_key)


def watch(pipes: Pipes, command_id: str, *, from_seq: int, api_key: str, timeout_s: float) -> CommandEvents:
    """Attaches to a command, running or done, and gives its events from an output seq on, as above."""
    trail = Trail(Cursor(command_id, next_seq=from_seq), asking=None, deadline=monotonic() + timeout_s)
    return _followed(pipes, trail, api_key=api_key)


class Trail:
    """How far a caller has followed a command, and what the next replica is asked; `asking` for one that is to run."""

    def __init__(self, cursor: Cursor, *, asking: Asking | None, deadline: float) -> None:
        self.cursor = cursor
        self.is_seen = False
        self._asking = asking
        self._deadline = deadline
        # Whether the next replica is asked to run it, or to attach where it may have it already; or else to find it.
        self._runs = asking is not None
        self._given_up_at = monotonic() + FIND_FIRST_S

    @property
    def ends_at(self) -> float:
        if self._asking is not None:
            return self._asking.ends_at
        return self._deadline if self.is_seen else min(self._deadline, self._given_up_at)

    def ask(self, pipe: Pipe, *, api_key: str) -> CommandEvents:
        now = monotonic()
        if self._asking is not None and self._runs:
            return pipe.execute_stream(self._asking.request(now), api_key=api_key, timeout_s=self._deadline - now)
        request = WatchCommandRequest(command_id=self.cursor.command_id, from_seq=self.cursor.next_seq)
        return pipe.watch(request, api_key=api_key, timeout_s=self._deadline - now)

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


async def _followed(pipes: Pipes, trail: Trail, *, api_key: str) -> CommandEvents:
    turns = pipes.turns()
    while (pipe := await turns.next(trail.ends_at)) is not None:
        try:
            async with aclosing(trail.ask(pipe, api_key=api_key)) as events:
                async for event in events:
                    if event.HasField("result"):
                        check_answered(event.result)
                    trail.is_seen = True
                    for shown in trail.cursor.show(event):
                        yield shown
            return
        except OpenlineError as failure:
            trail.failed(failure)
    raise trail.given_up()
