"""The calls that are open on a pipe: what the broker sends for one of them reaches whoever waits for it.

Every call has left the table before its caller goes on, however it ends.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from openline.errors import OpenlineError, error
from openline.reasons import NO, UNKNOWN, Reason
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb

# The next call is refused, since what grows must have a bound.
MAX_OPEN_CALLS = 50_000


def broker_unavailable(why: str, *, executed: command_pb2.Executed.ValueType) -> OpenlineError:
    """No replica has answered: `executed` is NO for what never left this process, UNKNOWN for what may have."""
    return OpenlineError(error(Reason.BROKER_UNAVAILABLE, why, executed=executed))


class Call(Protocol):
    """What a pipe has in its table."""

    @property
    def is_done(self) -> bool: ...

    def take(self, kind: str, frame: pb.ReplyFrame) -> bool:
        """Takes a frame of this call; False for one that means nothing to it."""

    def fail(self, failure: OpenlineError) -> None:
        """Ends the call, unless it is done."""


class Answer:
    """A call that one frame of the given kind ends, or an error."""

    __slots__ = ("_kind", "frame")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.frame: asyncio.Future[pb.ReplyFrame] = asyncio.get_running_loop().create_future()

    @property
    def is_done(self) -> bool:
        return self.frame.done()

    def take(self, kind: str, frame: pb.ReplyFrame) -> bool:
        if kind == "error":
            self.fail(OpenlineError(frame.error))
        elif kind != self._kind:
            return False
        elif not self.frame.done():
            self.frame.set_result(frame)
        return True

    def fail(self, failure: OpenlineError) -> None:
        if not self.frame.done():
            self.frame.set_exception(failure)


def expire(call: Call, timeout_s: float) -> None:
    """The caller's time is up. Unknown even if the request has not left: it leaves with the next batch all the same."""
    if not call.is_done:
        call.fail(broker_unavailable(f"no answer from the broker within {timeout_s:g} s", executed=UNKNOWN))


class Calls:
    """The table, by call id. Ids grow, and requests leave in their order."""

    __slots__ = ("_last_id", "_open", "_written_id", "ignored_frames")

    def __init__(self) -> None:
        self._open: dict[int, Call] = {}
        self._last_id = 0
        # Requests above this one are still here.
        self._written_id = 0
        # Those that meant nothing to the calls they were for.
        self.ignored_frames = 0

    def __len__(self) -> int:
        return len(self._open)

    def add(self, call: Call) -> int:
        """The id under which the call is open from now on. Raises OpenlineError when there are too many."""
        if len(self._open) >= MAX_OPEN_CALLS:
            raise broker_unavailable(f"{MAX_OPEN_CALLS} calls are open", executed=NO)
        self._last_id += 1
        self._open[self._last_id] = call
        return self._last_id

    def written(self, frames: Sequence[pb.CallerFrame]) -> None:
        """These frames are leaving."""
        for frame in reversed(frames):
            if frame.call_id and not frame.HasField("abandon"):
                self._written_id = frame.call_id
                return

    def take(self, kind: str, frame: pb.ReplyFrame) -> None:
        """A frame that belongs to a call has come."""
        call = self._open.get(frame.call_id)
        # Given up meanwhile, or about to be: then the broker is told to stop, whatever it still sends.
        if call is None or call.is_done:
            return
        if not call.take(kind, frame):
            self.ignored_frames += 1
        elif call.is_done:
            del self._open[frame.call_id]

    def remove(self, call_id: int) -> bool:
        """Whether it was still open: neither answered nor failed with its stream, so it expired or was given up."""
        return self._open.pop(call_id, None) is not None

    def fail_all(self) -> None:
        """Tells every call that its stream is gone; whether it may have run depends on whether it had left.

        How the stream ended is for the logs: it may name addresses, which callers need not know.
        """
        calls, self._open = self._open, {}
        for call_id, call in calls.items():
            executed = UNKNOWN if call_id <= self._written_id else NO
            call.fail(broker_unavailable("the stream to the broker has ended", executed=executed))
