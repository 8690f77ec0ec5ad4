"""What the executor remembers of commands that have ended: results until they are acknowledged, ids after that.

Bounded both ways. A result that is pushed out is gone; its id still keeps it from being run again.
"""

from collections import OrderedDict
from collections.abc import Iterable

from executor.life import Command, Event
from executor.results import result_bytes
from openline.reasons import NO, YES
from openline.v1 import command_pb2

MAX_RESULTS = 1000
# Half of what a stream's outbox takes, so that all of it can be sent anew on one connection.
MAX_RESULTS_BYTES = 32 << 20
# Far more than can be written to one stream without being answered.
MAX_IDS = 10_000


class Memory:
    """Commands in state FINISHED, oldest first, and the ids of those that are FORGOTTEN."""

    def __init__(self) -> None:
        self._finished: OrderedDict[str, Command] = OrderedDict()
        # What each cost when it came; a live command's result becomes smaller as its output arrives.
        self._cost: dict[str, int] = {}
        self._bytes = 0
        self._executed: OrderedDict[str, command_pb2.Executed.ValueType] = OrderedDict()

    def __len__(self) -> int:
        return len(self._finished)

    def __repr__(self) -> str:
        return f"<Memory results={len(self._finished)} bytes={self._bytes} ids={len(self._executed)}>"

    @property
    def unacked(self) -> Iterable[Command]:
        return self._finished.values()

    def finished(self, command_id: str) -> Command | None:
        """The command whose result is kept under this id."""
        return self._finished.get(command_id)

    def executed(self, command_id: str) -> command_pb2.Executed.ValueType | None:
        """Whether a forgotten command was executed; None for an id that is not remembered."""
        return self._executed.get(command_id)

    def keep(self, command: Command) -> list[Command]:
        """Keeps the result of a finished command. Returns those whose results had to make room; it stays itself."""
        self._finished[command.command_id] = command
        self._cost[command.command_id] = result_bytes(command)
        self._bytes += self._cost[command.command_id]
        pushed_out = []
        while len(self._finished) > MAX_RESULTS or (self._bytes > MAX_RESULTS_BYTES and len(self._finished) > 1):
            oldest = next(iter(self._finished.values()))
            pushed_out.append(oldest)
            self.settle(oldest.command_id)
        return pushed_out

    def settle(self, command_id: str) -> None:
        """The result under this id, if there is one, need not be kept any more."""
        command = self._finished.get(command_id)
        if command is not None and command.apply(Event.SETTLED):
            self.forget(command)

    def forget(self, command: Command) -> None:
        """Leaves of a command its id, so that it is not run again."""
        if self._finished.pop(command.command_id, None) is not None:
            self._bytes -= self._cost.pop(command.command_id)
        self._executed[command.command_id] = YES if command.executed else NO
        if len(self._executed) > MAX_IDS:
            self._executed.popitem(last=False)
