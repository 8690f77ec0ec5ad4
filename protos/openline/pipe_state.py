"""Who may use a pipe: its states, and which may follow which."""

from enum import Enum, auto


class PipeState(Enum):
    """Who may use a pipe now."""

    # Its opener: PipeHello is on its way. OPEN with the Welcome, ENDED without.
    OPENING = auto()
    # Everyone. LEAVING when the replica says GoAway, ENDED when the stream ends.
    OPEN = auto()
    # The calls that are open on it: the replica finishes them and takes no new ones. ENDED after the last.
    LEAVING = auto()
    # Nobody: every call has been answered or failed, and no call is taken.
    ENDED = auto()


NEXT: dict[PipeState, frozenset[PipeState]] = {
    PipeState.OPENING: frozenset({PipeState.OPEN, PipeState.ENDED}),
    PipeState.OPEN: frozenset({PipeState.LEAVING, PipeState.ENDED}),
    PipeState.LEAVING: frozenset({PipeState.ENDED}),
    PipeState.ENDED: frozenset(),
}
