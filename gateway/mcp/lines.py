"""Lines in by stdin and out by stdout, whatever they are: pipes, files, a terminal.

Both are used by threads of their own, which may stand still for as long as the client does, without anything else
standing still, and which the process does not wait for when it ends. So they use the descriptors themselves: Python's
own streams have locks, which a thread that stands still would hold to the end, and past it.
"""

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

MAX_LINE_BYTES = 1 << 20
# Read and not yet taken, and given and not yet written.
MAX_WAITING = 64
_CHUNK_BYTES = 64 << 10


class LinesIn:
    """Reads ahead a little."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(MAX_WAITING)
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        threading.Thread(target=self._read, name="mcp-stdin", daemon=True).start()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Each without its end, and no empty ones. Of one that is too long there is the bound and a byte more."""
        while (line := await self._lines.get()) is not None:
            self._room.release()
            yield line

    def _read(self) -> None:
        for line in split_lines(self._chunks()):
            self._room.acquire()
            _call(self._loop, self._lines.put_nowait, line)
        _call(self._loop, self._lines.put_nowait, None)

    def _chunks(self) -> Iterator[bytes]:
        # An error is an end as well: the client has closed it, or it was never open.
        with contextlib.suppress(OSError):
            while chunk := os.read(self._descriptor, _CHUNK_BYTES):
                yield chunk


def split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a text that comes in pieces, without what is around them; the last one may have no end."""
    begun = bytearray()
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            begun += piece
            if line := bytes(begun[: MAX_LINE_BYTES + 1]).strip():
                yield line
            begun.clear()
        # What is beyond the bound is not kept, but for how much shows that there is something.
        begun += rest[: max(0, MAX_LINE_BYTES + 1 - len(begun))]
    if line := bytes(begun).strip():
        yield line


class LinesOut:
    """Writes in the order in which lines are given. When nobody reads any more, `gone` is set."""

    def __init__(self, descriptor: int) -> None:
        self.gone = asyncio.Event()
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(MAX_WAITING)
        threading.Thread(target=self._write, name="mcp-stdout", daemon=True).start()

    async def put(self, line: bytes) -> None:
        """Returns when it is written, or nobody reads."""
        async with self._room:
            written: asyncio.Future[None] = self._loop.create_future()
            self._waiting.put((line, written))
            await written

    def _write(self) -> None:
        while True:
            line, written = self._waiting.get()
            left = memoryview(line + b"\n")
            try:
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError:
                _call(self._loop, self.gone.set)
            _call(self._loop, _done, written)


def _done(written: "asyncio.Future[None]") -> None:
    if not written.done():
        written.set_result(None)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: object) -> None:
    """Calls it in the loop, if there is one still."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)
