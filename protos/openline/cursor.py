"""How far one caller has seen a command's events, by whichever streams: nothing twice, nothing left out unsaid.

Pure. A stream that was attached again may begin with what was shown already, or behind what comes next.
"""

from openline.v1 import command_pb2

_TAKEN = frozenset(
    {command_pb2.COMMAND_STATE_ACCEPTED, command_pb2.COMMAND_STATE_RUNNING, command_pb2.COMMAND_STATE_DONE}
)


class Cursor:
    """Every event goes through `show`, which gives those that the caller is to see."""

    __slots__ = ("_gap", "_state", "command_id", "is_taken", "next_seq")

    def __init__(self, command_id: str, *, next_seq: int = 0) -> None:
        # As the caller named it, until an event says it: an idempotency key may stand for an older command.
        self.command_id = command_id
        # The first output seq that has not been shown.
        self.next_seq = next_seq
        self._state = command_pb2.COMMAND_STATE_UNSPECIFIED
        # An executor has it, as far as has been shown.
        self.is_taken = False
        # The last gap, until output has followed it.
        self._gap: command_pb2.OutputGap | None = None

    def __repr__(self) -> str:
        return f"<Cursor {self.command_id} next_seq={self.next_seq}>"

    def show(self, event: command_pb2.CommandEvent) -> list[command_pb2.CommandEvent]:
        match event.WhichOneof("event"):
            case "output":
                return self._show_output(event)
            case "gap":
                return self._show_gap(event)
            case "state":
                self.command_id = event.command_id or self.command_id
                if event.state == self._state:
                    return []
                self._state = event.state
                self.is_taken = self.is_taken or event.state in _TAKEN
            case "result":
                self.command_id = event.result.command_id or self.command_id
        return [event]

    def _show_output(self, event: command_pb2.CommandEvent) -> list[command_pb2.CommandEvent]:
        seq = event.output.seq
        self.command_id = event.output.command_id or self.command_id
        self.is_taken = True
        if seq < self.next_seq:
            return []
        # A stream that leaves something out says so itself; for one that did not, how much it was is not known.
        unsaid = [command_pb2.CommandEvent(gap=command_pb2.OutputGap(next_seq=seq))] if seq > self.next_seq else []
        self.next_seq = seq + 1
        self._gap = None
        return [*unsaid, event]

    def _show_gap(self, event: command_pb2.CommandEvent) -> list[command_pb2.CommandEvent]:
        # At `next_seq` it may be one between what was shown and what follows; before it, it is of no concern.
        if event.gap.next_seq < self.next_seq or event.gap == self._gap:
            return []
        self.is_taken = True
        self.next_seq = event.gap.next_seq
        self._gap = event.gap
        return [event]
