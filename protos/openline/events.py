"""A call of a pipe whose events come as they happen: kept until they are fetched, up to a bound.

The pipe never waits for its callers. Beyond the bound, for each call and for the pipe as a whole, output is left out,
and an OutputGap in its place says how much, as a broker does for output that it cannot keep. Fetching the rest again
would load the stream that the caller already failed to keep up with; what is kept of the output is in the result.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from openline.errors import OpenlineError
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ReplyFrame

# For one call: a moment of a flood, so that a caller who is merely busy misses nothing.
MAX_WAITING_BYTES = 2 << 20
# For all calls of a pipe: a hundred slow callers must not be a gigabyte.
MAX_ALL_WAITING_BYTES = 32 << 20
# What an event takes beyond its bytes.
_EVENT_BYTES = 256

CommandEvents = AsyncGenerator[command_pb2.CommandEvent, None]


@dataclass(slots=True)
class Space:
    """How much of what the calls of one pipe may keep is in use."""

    used_bytes: int = 0


class Events:
    """A call whose events are kept until they are fetched, in order; the last is the result."""

    __slots__ = ("_arrived", "_failure", "_missed", "_space", "_state", "_waiting", "_waiting_bytes", "is_done")

    def __init__(self, space: Space) -> None:
        self._space = space
        self._waiting: deque[tuple[command_pb2.CommandEvent, int]] = deque()
        self._waiting_bytes = 0
        # Set while the caller is behind: what it will be told when it has fetched everything.
        self._missed: command_pb2.OutputGap | None = None
        # The last state that was left out.
        self._state: command_pb2.CommandEvent | None = None
        self._failure: OpenlineError | None = None
        self._arrived = asyncio.Event()
        self.is_done = False

    def __repr__(self) -> str:
        return f"<Events waiting={len(self._waiting)} bytes={self._waiting_bytes} missed={self._missed}>"

    def take(self, kind: str, frame: ReplyFrame) -> bool:
        if kind == "error":
            self.fail(OpenlineError(frame.error))
            return True
        what = frame.event.WhichOneof("event") if kind == "event" else None
        if what is None:
            return False
        if not self.is_done:
            self._take(what, frame.event)
        return True

    def fail(self, failure: OpenlineError) -> None:
        if not self.is_done:
            self._tell_missed()
            self._failure = failure
            self.is_done = True
            self._arrived.set()

    async def fetch(self) -> command_pb2.CommandEvent | None:
        """The next event, or None after the result. Raises what failed the call, after all that came before."""
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            if self.is_done:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        event, size = self._waiting.popleft()
        self._free(size)
        return event

    def close(self) -> None:
        """Nobody fetches any more."""
        self.is_done = True
        self._waiting.clear()
        self._free(self._waiting_bytes)

    def _take(self, what: str, event: command_pb2.CommandEvent) -> None:
        size = event.ByteSize() + _EVENT_BYTES
        if self._missed is None and not self._has_room(size):
            self._missed = command_pb2.OutputGap()
        if self._missed is not None:
            # Until everything has been fetched, so that one long gap is told rather than many short ones.
            if what != "result" and self._waiting:
                self._miss(self._missed, what, event)
                return
            self._tell_missed()
        self._put(event, size)
        self.is_done = what == "result"

    def _has_room(self, size: int) -> bool:
        """Whoever has fetched everything may have one more, however much the others have left."""
        return not self._waiting or (
            self._waiting_bytes + size <= MAX_WAITING_BYTES and self._space.used_bytes + size <= MAX_ALL_WAITING_BYTES
        )

    def _miss(self, missed: command_pb2.OutputGap, what: str, event: command_pb2.CommandEvent) -> None:
        match what:
            case "output":
                missed.next_seq = event.output.seq + 1
                missed.missed_bytes += len(event.output.data)
            case "gap":
                missed.next_seq = event.gap.next_seq
                missed.missed_bytes += event.gap.missed_bytes
            case "state":
                self._state = event

    def _tell_missed(self) -> None:
        missed, self._missed = self._missed, None
        state, self._state = self._state, None
        if missed is not None and missed.ByteSize():
            self._put(command_pb2.CommandEvent(gap=missed), _EVENT_BYTES)
        if state is not None:
            self._put(state, _EVENT_BYTES)

    def _put(self, event: command_pb2.CommandEvent, size: int) -> None:
        self._waiting.append((event, size))
        self._waiting_bytes += size
        self._space.used_bytes += size
        self._arrived.set()

    def _free(self, size: int) -> None:
        self._waiting_bytes -= size
        self._space.used_bytes -= size
