"""What one command has written: the pieces as they came, for those who watch, and what is kept for the result.

An executor cuts the output of an ordinary command itself and sends head and tail at the end; all of that is here. The
output of a live command comes whole: its head and tail are kept here, and for watchers who are behind the newest part.
"""

from collections import deque
from typing import NamedTuple

from broker.core.life import OutOfOrder
from openline.capture import Capture, Kept, share
from openline.v1 import command_pb2

# Of a live command: the newest output that is kept for watchers who are behind. Beyond it they are shown a gap.
MAX_RECENT_BYTES = 512 << 10
# What a piece costs beside its data.
PIECE_BYTES = 200
# Of a live command: how many frames are remembered as numbers, for those who come after its end.
MAX_FRAMES = 8192

STDERR = command_pb2.OUTPUT_SOURCE_STDERR
_NOTHING = Kept()


class Piece(NamedTuple):
    """An Output frame's content, copied: the frame itself would keep the whole message that it came in."""

    seq: int
    source: command_pb2.OutputSource.ValueType
    data: bytes


class Transcript:
    """The output of one command, in order."""

    __slots__ = (
        "_captures",
        "_frames",
        "_frames_from",
        "_max_bytes",
        "_pieces",
        "_pieces_bytes",
        "first_seq",
        "next_seq",
        "skipped_bytes",
    )

    def __init__(self, *, max_bytes: int, live: bool) -> None:
        self._max_bytes = max_bytes
        self._captures = (Capture(max_bytes), Capture(max_bytes)) if live else None
        # Only of a live command are they taken out again in front; an empty deque alone takes 600 bytes.
        self._pieces: deque[Piece] | list[Piece] = deque() if live else []
        self._pieces_bytes = 0
        # The frames that the captures are made of, see `frames`; None when there were too many, or some are missing.
        self._frames: list[int] | None = []
        self._frames_from = 0
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
        data = output.data
        if self._captures is not None:
            is_stderr = output.source == STDERR
            self._captures[is_stderr].feed(data)
            if self._frames is not None:
                self._frames.append(len(data) << 1 | is_stderr)
                if len(self._frames) > MAX_FRAMES:
                    self._frames = None
            self._append(Piece(output.seq, output.source, data))
            while self._pieces_bytes > MAX_RECENT_BYTES and len(self._pieces) > 1:
                self._skip(self._pieces[0])
                del self._pieces[0]
        else:
            # An executor that does not cut is cut here, without a tail.
            data = data[: max(0, self._max_bytes - self._pieces_bytes)]
            if data:
                self._append(Piece(output.seq, output.source, data))
        return True

    def skip_to(self, seq: int, *, missed_bytes: int = 0) -> None:
        """What came before this seq is not to be had here any more."""
        for piece in self._pieces:
            self._skip(piece)
        self._pieces.clear()
        self.skipped_bytes += missed_bytes
        self.first_seq = self.next_seq = max(seq, self.next_seq)
        if self._frames:
            self._frames = None
        else:
            self._frames_from = self.next_seq

    def offset(self, seq: int) -> int | None:
        """How many bytes came before this seq; None when that cannot be told (any more, or yet)."""
        if seq == 0:
            return 0
        if not self.first_seq <= seq <= self.next_seq:
            return None
        return self.skipped_bytes + sum(len(piece.data) for piece in self._pieces if piece.seq < seq)

    def since(self, seq: int) -> list[Piece]:
        """The pieces from this seq on, as far as they are here."""
        return [piece for piece in self._pieces if piece.seq >= seq]

    def frames(self) -> tuple[int, list[int]]:
        """The frames that a live command's output came in, by the seq of the first: size, doubled, plus one for stderr.

        None of them when what is kept is not all of them.
        """
        if self._captures is None or self._frames is None:
            return 0, []
        if sum(capture.total_bytes for capture in self._captures) > self._max_bytes:
            return 0, []
        return self._frames_from, self._frames

    def kept(self) -> tuple[Kept, Kept]:
        """What is kept of stdout and stderr."""
        if self._captures is not None:
            return share(*self._captures, max_bytes=self._max_bytes)
        stdout = [piece.data for piece in self._pieces if piece.source != STDERR]
        stderr = [piece.data for piece in self._pieces if piece.source == STDERR]
        return _whole(stdout), _whole(stderr)

    def _append(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._pieces_bytes += len(piece.data) + (PIECE_BYTES if self._captures is not None else 0)

    def _skip(self, piece: Piece) -> None:
        self._pieces_bytes -= len(piece.data) + PIECE_BYTES
        self.skipped_bytes += len(piece.data)
        self.first_seq = piece.seq + 1


def _whole(pieces: list[bytes]) -> Kept:
    if not pieces:
        return _NOTHING
    data = b"".join(pieces)
    return Kept(data, total_bytes=len(data), total_lines=data.count(b"\n"))
