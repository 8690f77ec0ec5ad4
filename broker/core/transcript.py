"""What one command has written: the pieces as they came, for those who watch, and what is kept for the result.

An executor cuts the output of an ordinary command itself and sends head and tail at the end; all of that is here. The
output of a live command comes whole: its head and tail are kept here, and for watchers who are behind the newest part.
"""

from collections import deque

from broker.core.life import OutOfOrder
from openline.capture import Capture, Kept, share
from openline.v1 import command_pb2

# Of a live command: the newest output that is kept for watchers who are behind. Beyond it they are shown a gap.
MAX_RECENT_BYTES = 512 << 10
# What a piece costs beside its data.
PIECE_BYTES = 200

STDERR = command_pb2.OUTPUT_SOURCE_STDERR


class Transcript:
    """The output of one command, in order."""

    __slots__ = ("_captures", "_max_bytes", "_pieces", "_pieces_bytes", "first_seq", "next_seq", "skipped_bytes")

    def __init__(self, *, max_bytes: int, live: bool) -> None:
        self._max_bytes = max_bytes
        self._captures = (Capture(max_bytes), Capture(max_bytes)) if live else None
        self._pieces: deque[command_pb2.Output] = deque()
        self._pieces_bytes = 0
        # The pieces that are here are those from first_seq to next_seq; skipped_bytes came before them.
        self.first_seq = 0
        self.next_seq = 0
        self.skipped_bytes = 0

    def __repr__(self) -> str:
        return f"<Transcript {self.first_seq}..{self.next_seq} bytes={self._pieces_bytes}>"

    def take(self, output: command_pb2.Output) -> bool:
        """Keeps a piece; False for one that was had before. Raises OutOfOrder for a gap."""
        if output.seq < self.next_seq:
            return False
        if output.seq > self.next_seq:
            raise OutOfOrder(f"output {output.seq} where {self.next_seq} was due")
        self.next_seq += 1
        if self._captures is not None:
            self._captures[output.source == STDERR].feed(output.data)
            self._append(output)
            while self._pieces_bytes > MAX_RECENT_BYTES and len(self._pieces) > 1:
                self._skip(self._pieces.popleft())
        else:
            # An executor that does not cut is cut here, without a tail.
            room = max(0, self._max_bytes - self._pieces_bytes)
            if len(output.data) > room:
                output = command_pb2.Output(
                    command_id=output.command_id, seq=output.seq, source=output.source, data=output.data[:room]
                )
            if output.data:
                self._append(output)
        return True

    def since(self, seq: int) -> list[command_pb2.Output]:
        """The pieces from this seq on, as far as they are here."""
        return [piece for piece in self._pieces if piece.seq >= seq]

    def kept(self) -> tuple[Kept, Kept]:
        """What is kept of stdout and stderr."""
        if self._captures is not None:
            return share(*self._captures, max_bytes=self._max_bytes)
        whole = (b"".join(p.data for p in self._pieces if (p.source == STDERR) is wanted) for wanted in (False, True))
        stdout, stderr = (Kept(data, total_bytes=len(data), total_lines=data.count(b"\n")) for data in whole)
        return stdout, stderr

    def _append(self, output: command_pb2.Output) -> None:
        self._pieces.append(output)
        self._pieces_bytes += len(output.data) + (PIECE_BYTES if self._captures is not None else 0)

    def _skip(self, piece: command_pb2.Output) -> None:
        self._pieces_bytes -= len(piece.data) + PIECE_BYTES
        self.skipped_bytes += len(piece.data)
        self.first_seq = piece.seq + 1
