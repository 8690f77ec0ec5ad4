"""One end of a bidirectional stream of batched frames, over grpc.aio: one reader, one writer, a watch for silence.

Both services that are streams (Connect and Pipe) and both ends of each use it. What frames mean is not known here; the
batching rule is in `outbox`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError

from openline.outbox import MAX_BATCH_FRAMES, Frame, Outbox, Overflow

I = TypeVar("I", bound=Frame)  # noqa: E741  (in)
O = TypeVar("O", bound=Frame)  # noqa: E741  (out)


# How long the peer may take to end a stream that was ended from here.
GOODBYE_S = 1.0
# A timer that fires so late means that this process was stopped or starved, not the peer.
OVERSLEPT_S = 1.0
# All frames of a message are handled in one turn of the loop, and small ones fit into one by the hundred thousand.
MAX_RECEIVED_FRAMES = 4 * MAX_BATCH_FRAMES


class StreamFrozen(Exception):
    """Nothing came from the peer for longer than agreed: it is frozen, or the way to it is lost."""


class StreamGarbled(Exception):
    """The peer sent what is not a message of the contract, or not the one that was due."""


class FrameStream(Generic[I, O]):
    """A stream that has been opened and is driven by `run`, in one task of its owner.

    `read` returns the next message or grpc.aio.EOF, `write` takes one; both are a grpc.aio call's or servicer
    context's. `pack` makes a message of frames, `unpack` gives a message's frames. `done_writing` is a client call's: a
    servicer ends its stream by returning.
    """

    def __init__(
        self,
        *,
        read: Callable[[], Awaitable[Any]],
        write: Callable[[Any], Awaitable[None]],
        pack: Callable[[Sequence[O]], Any],
        unpack: Callable[[Any], Sequence[I]],
        done_writing: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._read = read
        self._write = write
        self._pack = pack
        self._unpack = unpack
        self._done_writing = done_writing
        self._outbox: Outbox[O] = Outbox()
        # Instants are time.monotonic's: uvloop's own clock has whole milliseconds only.
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._linger: asyncio.Handle | None = None
        self._silence: asyncio.Handle | None = None
        self._closing = False
        self._broken: Exception | None = None
        self._breaking = asyncio.Event()
        self.received_at = monotonic()

    def __repr__(self) -> str:
        state = "broken" if self._broken else "closing" if self._closing else "open"
        return f"<FrameStream {state} {self._outbox!r}>"

    @property
    def waiting_bytes(self) -> int:
        """What is queued and not written yet."""
        return self._outbox.waiting_bytes

    def send(self, frame: O, *, output: bool = False, answered: bool = True) -> None:
        """Queues a frame; the writer sends it within this turn of the loop or the linger. Never blocks.

        The next message waits a little for the answer to this one, if it is `answered`.

        A frame for a stream that is closing is dropped: whoever waits for its effect learns of the end of the stream.
        """
        if self._closing or self._broken:
            return
        try:
            self._outbox.put(frame, output=output, answered=answered)
        except Overflow as overflow:
            self.break_off(overflow)
        else:
            # Frames come many at a time: the first one decides when they leave.
            if not self._wake.is_set():
                self._wake_writer()

    def close(self) -> None:
        """Ends `run` after what is queued has been written."""
        self._closing = True
        self._wake.set()

    def break_off(self, why: Exception) -> None:
        """Ends `run` at once, raising `why` there."""
        self._broken = self._broken or why
        self._breaking.set()

    async def receive(self) -> Sequence[I] | None:
        """The next message's frames, or None when the peer has ended the stream; for the handshake, before `run`.

        Raises StreamGarbled.
        """
        # Bytes that cannot be parsed are None from a client's call, and protobuf's own error from a servicer's context.
        try:
            message = await self._read()
        except DecodeError:
            message = None
        if message is grpc.aio.EOF:
            return None
        if message is None:
            raise StreamGarbled("bytes that are not a message")
        self.received_at = monotonic()
        self._outbox.answered(self.received_at)
        frames = self._unpack(message)
        if len(frames) > MAX_RECEIVED_FRAMES:
            raise StreamGarbled(f"a message of more than {MAX_RECEIVED_FRAMES} frames")
        return frames

    async def flush(self) -> None:
        """Writes what is queued in the caller's own task; for the handshake, before `run`."""
        while len(self._outbox):
            await self._write(self._pack(self._outbox.take(monotonic())))

    async def run(self, handle: Callable[[Sequence[I]], None], *, silence_s: float) -> None:
        """Hands every message's frames to `handle`, in order, until the peer ends the stream or it is closed here.

        Raises StreamFrozen after `silence_s` without a message, StreamGarbled, whatever `break_off` was given, whatever
        `handle` raises, and grpc's errors as they are.
        """
        reader = asyncio.create_task(self._read_all(handle), name="stream-reader")
        writer = asyncio.create_task(self._write_all(), name="stream-writer")
        watch = asyncio.create_task(self._watch(), name="stream-watch")
        tasks = (reader, writer, watch)
        self._listen(silence_s, monotonic())
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if done == {writer} and writer.exception() is None and self._done_writing is not None:
                # Cancelling a read cancels a client's call, and with it what was written and has not arrived.
                await self._done_writing()
                await asyncio.wait({reader}, timeout=GOODBYE_S)
        finally:
            self._closing = True
            for timer in (self._linger, self._silence):
                if timer is not None:
                    timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _read_all(self, handle: Callable[[Sequence[I]], None]) -> None:
        while (frames := await self.receive()) is not None:
            handle(frames)
            if len(self._outbox):
                self._wake_writer()

    async def _write_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            # One batch, then a look at the rule again: what is put while this write waits leaves together.
            if len(self._outbox) and (self._closing or self._outbox.hold_s(monotonic()) == 0.0):
                await self._write(self._pack(self._outbox.take(monotonic())))
            if len(self._outbox):
                self._wake_writer()
            elif self._closing:
                return

    def _wake_writer(self) -> None:
        """Wakes the writer now or when the linger has passed, as the batching rule says."""
        if self._closing:
            self._wake.set()
            return
        hold_s = self._outbox.hold_s(monotonic())
        if hold_s == 0.0:
            self._wake.set()
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
        elif self._linger is None:
            self._linger = self._loop.call_later(hold_s, self._linger_over)

    def _linger_over(self) -> None:
        self._linger = None
        self._wake.set()

    async def _watch(self) -> None:
        await self._breaking.wait()
        if self._broken is not None:
            raise self._broken

    def _listen(self, silence_s: float, due: float) -> None:
        """Breaks the stream off when the peer has said nothing for so long, or looks again when that could be."""
        now = monotonic()
        if now - due > OVERSLEPT_S:
            # It was this process that stood still: what the peer sent meanwhile has not been read yet.
            self.received_at = now
        left_s = self.received_at + silence_s - now
        if left_s > 0:
            self._silence = self._loop.call_later(left_s, self._listen, silence_s, now + left_s)
        else:
            self.break_off(StreamFrozen(f"no frame for {silence_s:g} s"))
