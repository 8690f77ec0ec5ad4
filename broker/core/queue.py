"""Who is next in one cluster: commands that wait for a place, a line for each share, taken in turn.

A share is a caller and its session or conversation. An AI agent in a loop fills its own line and waits in it while the
others' commands pass. Round robin over the lines, as in Nagle's fair queueing (RFC 970).
"""

from collections import OrderedDict
from collections.abc import Iterator

from broker.core.command import Command

Share = tuple[str, str]

MAX_WAITING = 1024
# A quarter of the room: four agents may loop at once before anybody else is refused.
MAX_WAITING_OF_SHARE = 256


class FairQueue:
    """Commands in state QUEUED."""

    def __init__(self) -> None:
        # Each share's commands in the order they came, by id; the share whose turn it is stands first.
        self._lines: OrderedDict[Share, OrderedDict[str, Command]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<FairQueue waiting={len(self)} shares={len(self._lines)}>"

    def __iter__(self) -> Iterator[Command]:
        return iter([command for line in self._lines.values() for command in line.values()])

    def has_room(self, share: Share) -> bool:
        return self._length < MAX_WAITING and len(self._lines.get(share, ())) < MAX_WAITING_OF_SHARE

    def put(self, command: Command) -> None:
        """At the end of its share's line. Whoever calls has asked `has_room`."""
        self._lines.setdefault(command.ask.share, OrderedDict())[command.command_id] = command
        self._length += 1

    def pop(self) -> Command | None:
        """The next command of the share whose turn it is; that share goes behind the others."""
        if not self._lines:
            return None
        share, line = self._lines.popitem(last=False)
        _, command = line.popitem(last=False)
        self._length -= 1
        if line:
            self._lines[share] = line
        return command

    def discard(self, command: Command) -> None:
        """The command does not wait any more: it expired or was cancelled."""
        line = self._lines.get(command.ask.share)
        if line is not None and line.pop(command.command_id, None) is not None:
            self._length -= 1
            if not line:
                del self._lines[command.ask.share]
