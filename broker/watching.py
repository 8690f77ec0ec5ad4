"""Watching commands: each watcher reads a command's events at its own pace, and can hold up nobody.

The command keeps its newest output; a watcher who falls behind that is shown a gap and told how much it missed.
"""

import asyncio
from collections.abc import AsyncIterator

from broker.core.command import Command
from broker.core.life import State
from broker.records import events
from openline.v1 import command_pb2

CommandEvent = command_pb2.CommandEvent

# As a `from_seq`: behind all output that there will ever be.
NO_OUTPUT = (1 << 64) - 1
# What is taken at a time, so that the writer behind it stays close.
TAKE_BYTES = 256 << 10


class Watch:
    """One watcher of one command that this replica holds."""

    def __init__(self, command: Command, *, from_seq: int) -> None:
        self.command = command
        self._seq = from_seq
        # How many bytes came before `_seq`; None when it is not known.
        self._offset = command.transcript.offset(from_seq)
        self._state: State | None = None
        self._changed = asyncio.Event()
        self._changed.set()

    def wake(self) -> None:
        """Something has happened to the command."""
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[CommandEvent]:
        """The events from `from_seq` on, each once and in order; the last one is the result."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for event in self._take():
                yield event
                if event.HasField("result"):
                    return

    def _take(self) -> list[CommandEvent]:
        """What has happened since the last time, or a part of it."""
        command, transcript = self.command, self.command.transcript
        taken: list[CommandEvent] = []
        if command.state is not self._state and command.state is not State.DONE:
            self._state = command.state
            taken.append(CommandEvent(state=command.state.value, command_id=command.command_id))
        if self._seq < transcript.first_seq:
            missed = 0 if self._offset is None else transcript.skipped_bytes - self._offset
            taken.append(CommandEvent(gap=command_pb2.OutputGap(next_seq=transcript.first_seq, missed_bytes=missed)))
            self._seq, self._offset = transcript.first_seq, transcript.skipped_bytes
        room = TAKE_BYTES
        for piece in transcript.since(self._seq):
            if room <= 0:
                self._changed.set()
                return taken
            output = command_pb2.Output(
                command_id=command.command_id, seq=piece.seq, source=piece.source, data=piece.data
            )
            taken.append(CommandEvent(output=output))
            self._seq = piece.seq + 1
            if self._offset is not None:
                self._offset += len(piece.data)
            room -= len(piece.data)
        if command.result is not None:
            taken.append(CommandEvent(result=command.result))
        return taken


class Replay:
    """One watcher of a command that is done and in the store."""

    def __init__(self, stored: command_pb2.Command, *, from_seq: int) -> None:
        self._stored = stored
        self._from_seq = from_seq

    async def __aiter__(self) -> AsyncIterator[CommandEvent]:
        for event in events(self._stored, from_seq=self._from_seq):
            yield event
