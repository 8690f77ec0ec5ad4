"""Hands on whole lines, since nearly everything that is to be masked stands on one line.

A line that does not end in `LONGEST_BYTES` is cut, behind a value of JSON or at a space if there is one: annotations of
an object are 256 KiB at most together, so that only lists without line ends are that long. A value across such a cut
may not be recognised.
"""

LONGEST_BYTES = 512 << 10
_NEAR_BYTES = 64 << 10


class Lines:
    """The second stage."""

    def __init__(self) -> None:
        self._unfinished = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """All lines that have ended; nothing, if none has."""
        end = chunk.rfind(b"\n") + 1
        if end:
            whole = bytes(self._unfinished) + chunk[:end] if self._unfinished else chunk[:end]
            self._unfinished = bytearray(chunk[end:])
            return whole
        self._unfinished += chunk
        if len(self._unfinished) <= LONGEST_BYTES:
            return b""
        return self._take(self._seam())

    def finish(self) -> bytes:
        """The line without an end."""
        return self._take(len(self._unfinished))

    def _seam(self) -> int:
        near = len(self._unfinished) - _NEAR_BYTES
        for seam in (b"},", b'",', b" "):
            if (found := self._unfinished.rfind(seam, near)) >= 0:
                return found + len(seam)
        return len(self._unfinished)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._unfinished[:size])
        del self._unfinished[:size]
        return taken
