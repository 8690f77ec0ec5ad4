"""What one command still has to tell the broker: its output, then Finished. Pure.

    seq 0 ┄┄ arrived, dropped ┄┄ first_seq ── sent, perhaps not arrived ── next_seq ── not sent on this connection

What was cut into a frame once stays that frame: the same seq always has the same bytes, whatever connection it goes out
on, so that a frame which arrives twice changes nothing. What waits is cut when it is sent, as large as credit allows;
when the process has ended, the rest is cut at once, and from then on the report can also be on disk.
"""

from collections import deque
from collections.abc import Iterator
from typing import TypeAlias

from openline import limits
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

Source: TypeAlias = command_pb2.OutputSource.ValueType
STDOUT = command_pb2.OUTPUT_SOURCE_STDOUT
STDERR = command_pb2.OUTPUT_SOURCE_STDERR

# Whatever credit a broker gives: no more of a live command than this is kept for a reconnect.
MOST_LIVE_BYTES = 4 << 20
# What a frame costs here beside its data: one small number in a deque.
_FRAME_COST_BYTES = 8


class Report:
    """The output of one command, counted in bytes and frames, and its Finished when there is one.

    Of a `live` command, credit means arrival, and what has arrived is dropped; of any other everything is kept.
    """

    __slots__ = (
        "_cut", "_data", "_offset", "_runs", "_sent", "_unconfirmed",
        "command_id", "credit_bytes", "ended_at", "finished", "first_seq", "frame_bytes", "held", "live", "severed",
        "told",
    )  # fmt: skip

    def __init__(self, command_id: str, *, live: bool = False, first_seq: int = 0) -> None:
        self.command_id = command_id
        self.live = live
        self.first_seq = first_seq
        # Frames from first_seq on, then what has not been cut yet.
        self._data = bytearray()
        # Of each frame: its size, doubled, plus one for stderr. Numbers, because frames may be a byte long.
        self._cut: deque[int] = deque()
        self._runs: deque[tuple[Source, int]] = deque()
        # On this connection: so many of the frames were sent, and `_data` begins to be unsent here.
        self._sent = 0
        self._offset = 0
        self._unconfirmed = 0  # bytes that credit says have arrived, of a frame that has not arrived whole
        self.credit_bytes = 0
        self.frame_bytes = limits.MAX_FRAME_BYTES
        self.finished: wire.Finished | None = None
        self.ended_at = 0.0
        self.told = False  # Finished was sent on this connection
        self.held = False  # the process is not read from
        self.severed = False  # a frame is missing that the broker asks for: nothing more can follow

    def __repr__(self) -> str:
        return f"<Report {self.command_id} {self.first_seq}..{self.next_seq} {self.kept_bytes} bytes>"

    @property
    def next_seq(self) -> int:
        """The seq of the frame that is sent next."""
        return self.first_seq + self._sent

    @property
    def waiting_bytes(self) -> int:
        """What has not been sent on this connection."""
        return len(self._data) - self._offset

    @property
    def next_bytes(self) -> int:
        """The least credit that the next frame takes, if anything waits."""
        return self._cut[self._sent] >> 1 if self._sent < len(self._cut) else 1

    @property
    def kept_bytes(self) -> int:
        return len(self._data) + _FRAME_COST_BYTES * len(self._cut)

    def write(self, source: Source, data: bytes) -> None:
        """Takes what the process wrote next."""
        if self.severed or not data:
            return
        self._data += data
        size = len(data)
        if self._runs and self._runs[-1][0] == source:
            size += self._runs.pop()[1]
        self._runs.append((source, size))

    def put(self, output: command_pb2.Output) -> None:
        """Takes a frame that was cut before, as it was."""
        self._data += output.data
        self._cut.append(len(output.data) << 1 | (output.source == STDERR))

    def close(self, finished: wire.Finished, now: float) -> None:
        """The process has ended and all its output is here: the rest is cut into frames."""
        self.finished = finished
        self.ended_at = now
        self.held = False
        while self._runs:
            self._cut_frame(self.frame_bytes)
        if self.severed:
            self._own_up()

    def take(self, room_bytes: int) -> command_pb2.Output | None:
        """The next frame, if this report's credit and `room_bytes` on the stream allow one."""
        room_bytes = min(room_bytes, self.credit_bytes)
        if self._sent == len(self._cut) and self._runs and room_bytes > 0:
            self._cut_frame(min(room_bytes, self.frame_bytes))
        if self._sent == len(self._cut) or self.next_bytes > room_bytes:
            return None
        output = self._frame(self._sent, self._offset)
        self._sent += 1
        self._offset += len(output.data)
        self.credit_bytes -= len(output.data)
        if self.live:
            while self._sent and self.kept_bytes > MOST_LIVE_BYTES:
                self._drop_first()
        return output

    def grant(self, credit_bytes: int) -> None:
        """More may be sent; so much of what was sent on this connection has arrived."""
        self.credit_bytes += credit_bytes
        if self.live:
            self._unconfirmed = min(self._unconfirmed + credit_bytes, self._offset)
            while self._sent and self._cut[0] >> 1 <= self._unconfirmed:
                self._unconfirmed -= self._cut[0] >> 1
                self._drop_first()

    def resume(self, next_seq: int, *, credit_bytes: int, frame_bytes: int) -> bool:
        """Goes on at `next_seq`, since the broker has what is before. False, and no change, if that cannot be had."""
        last_seq = self.first_seq + len(self._cut)
        if self.finished is not None:
            next_seq = min(next_seq, last_seq)  # no frame will follow that could be taken for another
        if not (self.severed or self.first_seq <= next_seq <= last_seq):
            return False
        self.credit_bytes = credit_bytes
        self.frame_bytes = frame_bytes
        self.told = False
        self._unconfirmed = self._sent = self._offset = 0
        if self.severed:
            return True
        for _ in range(next_seq - self.first_seq):
            self._offset += self._cut[self._sent] >> 1
            self._sent += 1
            if self.live:
                self._drop_first()
        if any(cut >> 1 > frame_bytes for cut in self._cut):
            self._cut_anew()
        return True

    def sever(self) -> None:
        """Gives up the output: what the broker asks for is not here, and what is here would leave a gap."""
        self.severed = True
        self.told = False
        for queue in (self._data, self._cut, self._runs):
            queue.clear()
        self._sent = self._offset = self._unconfirmed = 0
        self._own_up()

    def ending(self, now: float) -> wire.Finished | None:
        """Finished, when all output before it has been sent on this connection; once on each."""
        if self.finished is None or self.told or self.waiting_bytes:
            return None
        self.told = True
        self.finished.timings.return_s = now - self.ended_at
        return self.finished

    def frames(self) -> Iterator[command_pb2.Output]:
        """Every frame that is kept."""
        offset = 0
        for index, cut in enumerate(self._cut):
            yield self._frame(index, offset)
            offset += cut >> 1

    def _frame(self, index: int, offset: int) -> command_pb2.Output:
        cut = self._cut[index]
        return command_pb2.Output(
            command_id=self.command_id,
            seq=self.first_seq + index,
            source=STDERR if cut & 1 else STDOUT,
            data=bytes(self._data[offset : offset + (cut >> 1)]),
        )

    def _cut_frame(self, most_bytes: int) -> None:
        source, run_bytes = self._runs.popleft()
        size = min(run_bytes, most_bytes)
        self._cut.append(size << 1 | (source == STDERR))
        if size < run_bytes:
            self._runs.appendleft((source, run_bytes - size))

    def _cut_anew(self) -> None:
        """For a broker that takes only smaller frames than those before it: the unsent ones are made smaller."""
        smaller = deque(list(self._cut)[: self._sent])
        for cut in list(self._cut)[self._sent :]:
            size = cut >> 1
            for start in range(0, size, self.frame_bytes):
                smaller.append(min(self.frame_bytes, size - start) << 1 | cut & 1)
        self._cut = smaller

    def _drop_first(self) -> None:
        size = self._cut.popleft() >> 1
        del self._data[:size]
        self.first_seq += 1
        self._sent -= 1
        self._offset -= size

    def _own_up(self) -> None:
        """A severed report tells that nothing of the output is known to be there."""
        if self.finished is not None:
            for summary in (self.finished.stdout_summary, self.finished.stderr_summary):
                summary.cut_bytes, summary.cut_lines = summary.total_bytes, summary.total_lines
