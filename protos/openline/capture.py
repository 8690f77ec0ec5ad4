"""How much of a process's output is kept, and exact counts of what is not.

A command has one allowance for stdout and stderr together. Each stream keeps a head and a tail up to the whole
allowance while the process runs; when it has ended, `share` divides the allowance: a stream that needs less than half
gets what it needs and the other gets the rest; two that need more get half each. So an error message survives a flood
on stdout, and a silent stderr costs stdout nothing.

Where something was cut, it was cut in the middle of what is kept: the first half, rounded up, is the head.
"""

from dataclasses import dataclass

from openline import limits

# A broker may allow more than the default; what one command may occupy here is bounded all the same.
MOST_OUTPUT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of one stream. `data` is everything, or its head and tail with `cut_bytes` missing between them.

    Lines are line ends; an unfinished last line counts in the total as well.
    """

    data: bytes = b""
    total_bytes: int = 0
    total_lines: int = 0
    cut_bytes: int = 0
    cut_lines: int = 0


class Capture:
    """One stream while the process runs; takes one and a half times `max_bytes` of memory, for moments three times."""

    __slots__ = ("_head", "_head_bytes", "_line_ends", "_tail", "_tail_bytes", "_unfinished", "total_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._head_bytes = (max_bytes + 1) // 2
        self._tail_bytes = max_bytes // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._line_ends = 0
        self._unfinished = False
        self.total_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Takes what the process wrote next."""
        if not chunk:
            return
        self.total_bytes += len(chunk)
        self._line_ends += chunk.count(b"\n")
        self._unfinished = not chunk.endswith(b"\n")
        room = self._head_bytes - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        self._tail += chunk
        # Trimmed only when it has doubled: each byte is moved once on average, however small the chunks.
        if len(self._tail) > 2 * self._tail_bytes:
            del self._tail[: len(self._tail) - self._tail_bytes]

    def keep(self, share_bytes: int) -> Kept:
        """What is left when the stream may keep `share_bytes`, which is at most the `max_bytes` given at first."""
        kept = bytes(self._head + self._tail)
        if self.total_bytes > share_bytes:
            tail_from = len(kept) - share_bytes // 2
            kept = kept[: (share_bytes + 1) // 2] + kept[tail_from:]
        return Kept(
            data=kept,
            total_bytes=self.total_bytes,
            total_lines=self._line_ends + self._unfinished,
            cut_bytes=self.total_bytes - len(kept),
            cut_lines=self._line_ends - kept.count(b"\n"),
        )


def allowance(max_bytes: int) -> int:
    """The allowance of a command whose OutputLimits say `max_bytes`."""
    return min(max_bytes or limits.DEFAULT_MAX_OUTPUT_BYTES, MOST_OUTPUT_BYTES)


def share(stdout: Capture, stderr: Capture, *, max_bytes: int) -> tuple[Kept, Kept]:
    """What is kept of both, `max_bytes` together."""
    half = max_bytes // 2
    for_stderr = min(stderr.total_bytes, max(half, max_bytes - stdout.total_bytes))
    return stdout.keep(max_bytes - for_stderr), stderr.keep(for_stderr)
