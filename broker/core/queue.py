"""Who is next in one cluster: commands that wait for a place, callers in turn, and each caller's conversations in turn.

An AI agent in a loop fills its own line and waits in it while the others' commands pass. Callers come first because a
conversation is whatever its caller says: a new one for each command wins nothing. Round robin, as in Nagle's fair
queueing (RFC 970).
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator

from broker.core.command import Command

# A caller and its session or conversation.
Share = tuple[str, str]
Line = OrderedDict[str, Command]

MAX_WAITING = 1024
# What one caller leaves to the others, however many conversations it has.
MAX_WAITING_OF_CALLER = 768
# Three agents may loop at once before another one of the same caller is refused.
MAX_WAITING_OF_SHARE = 256


class FairQueue:
    """Commands in state QUEUED."""

    def __init__(self) -> None:
        # By caller and by conversation, commands in the order they came, by id; whose turn it is stands first.
        self._callers: OrderedDict[str, OrderedDict[str, Line]] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<FairQueue waiting={len(self)} callers={len(self._callers)}>"

    def __iter__(self) -> Iterator[Command]:
        """Those that wait now, whatever happens to them meanwhile."""
        lines = [line for lines in self._callers.values() for line in lines.values()]
        return iter([command for line in lines for command in line.values()])

    def has_room(self, share: Share) -> bool:
        owner, conversation = share
        line = self._callers.get(owner, OrderedDict()).get(conversation, ())
        return (
            len(line) < MAX_WAITING_OF_SHARE
            and self._waiting[owner] < MAX_WAITING_OF_CALLER
            and self._length < MAX_WAITING
        )

    def put(self, command: Command) -> None:
        """At the end of its conversation's line. Whoever calls has asked `has_room`."""
        owner, conversation = command.ask.share
        lines = self._callers.setdefault(owner, OrderedDict())
        lines.setdefault(conversation, OrderedDict())[command.command_id] = command
        self._waiting[owner] += 1
        self._length += 1

    def pop(self) -> Command | None:
        """The next command of the caller whose turn it is; both it and the conversation go behind the others."""
        if not self._callers:
            return None
        owner, lines = next(iter(self._callers.items()))
        conversation, line = next(iter(lines.items()))
        command = next(iter(line.values()))
        self._callers.move_to_end(owner)
        lines.move_to_end(conversation)
        self.discard(command)
        return command

    def discard(self, command: Command) -> None:
        """The command does not wait any more: it has a place, it expired or it was cancelled."""
        owner, conversation = command.ask.share
        lines = self._callers.get(owner, OrderedDict())
        line = lines.get(conversation, OrderedDict())
        if line.pop(command.command_id, None) is None:
            return
        self._length -= 1
        self._waiting[owner] -= 1
        if not line:
            del lines[conversation]
        if not lines:
            del self._callers[owner], self._waiting[owner]
