"""What waits to leave on one stream, and when it may: the batching rule, without I/O.

One message costs about the same, some 100 µs of CPU on each side, whether it carries one frame or five hundred. So at
most one message is unanswered at a time; what collects meanwhile leaves together when the peer's next message arrives
or the linger has passed. A stream that is idle sends at once, and one that waits for no answer is idle.
"""

from collections import deque
from typing import Generic, Protocol, TypeVar

LINGER_S = 0.001
# gRPC refuses messages over 4 MiB by default, and a refused message kills the whole stream.
MAX_BATCH_BYTES = 1 << 20
MAX_BATCH_FRAMES = 1024
# A peer that does not read: beyond this the stream is given up rather than memory.
MAX_WAITING_BYTES = 64 << 20
# The smallest frames take a hundred times their size here. Output comes against credit, and is no such frame.
MAX_WAITING_CONTROL_FRAMES = 200_000


class Frame(Protocol):
    """A protobuf message."""

    def ByteSize(self) -> int: ...  # noqa: N802


F = TypeVar("F", bound=Frame)


class Overflow(Exception):
    """The peer does not take what is sent to it; the stream must be given up."""


class Outbox(Generic[F]):
    """Frames in the order they leave: control frames before output, each kind in the order it was put."""

    __slots__ = ("_asking", "_control", "_output", "answered_at", "waiting_bytes", "written_at")

    def __init__(self) -> None:
        self._control: deque[tuple[F, int]] = deque()
        self._output: deque[tuple[F, int]] = deque()
        # Whether some of what waits will be answered.
        self._asking = False
        self.waiting_bytes = 0
        # -inf, so that a new stream counts as idle.
        self.written_at = float("-inf")
        self.answered_at = float("-inf")

    def __len__(self) -> int:
        return len(self._control) + len(self._output)

    def __repr__(self) -> str:
        return f"<Outbox control={len(self._control)} output={len(self._output)} bytes={self.waiting_bytes}>"

    def put(self, frame: F, *, output: bool = False, answered: bool = True) -> None:
        """Adds a frame; one that the peer does not answer holds nothing back. Raises Overflow when too much waits.

        Only frames that nothing else must overtake or follow go as `output`: a command's Finished goes behind its
        Output frames and so is put as output as well.
        """
        size = frame.ByteSize()
        if self.waiting_bytes + size > MAX_WAITING_BYTES:
            raise Overflow(f"{self.waiting_bytes} bytes wait for a peer that does not read")
        if not output and len(self._control) >= MAX_WAITING_CONTROL_FRAMES:
            raise Overflow(f"{len(self._control)} frames wait for a peer that does not read")
        self.waiting_bytes += size
        if answered:
            self._asking = True
        (self._output if output else self._control).append((frame, size))

    def hold_s(self, now: float) -> float:
        """How long the next message must be held back; 0 when it may leave now."""
        if self.answered_at >= self.written_at:
            return 0.0
        return max(0.0, self.written_at + LINGER_S - now)

    def take(self, now: float) -> list[F]:
        """The next message's frames, at least one if any waits; unanswered from now on if one is to be answered."""
        frames: list[F] = []
        room = MAX_BATCH_BYTES
        for queue in (self._control, self._output):
            while queue and len(frames) < MAX_BATCH_FRAMES:
                frame, size = queue[0]
                if frames and size > room:
                    break
                queue.popleft()
                frames.append(frame)
                room -= size
                self.waiting_bytes -= size
            if queue:
                break
        if self._asking:
            self.written_at = now
            self._asking = len(self) > 0
        return frames

    def answered(self, now: float) -> None:
        """A message has arrived from the peer."""
        self.answered_at = now
