"""How many of its executors a replica should ask to move, and which: gently, so that nobody notices.

After a scale-out the new replica has none, and executors stay where they are for as long as their streams live. Pure.
"""

from collections import OrderedDict
from collections.abc import Sequence

from broker.core.connections import Connection, Instance

# So much over the average is as good as even, and never less than two.
TOLERANCE = 0.1
# Of this replica's executors, in one round.
PART = 0.05
# An executor that was asked and came back knows no other replica; it is not asked again.
MAX_ASKED = 10_000


class Balance:
    """What this replica has asked of whom."""

    def __init__(self) -> None:
        self._asked: OrderedDict[Instance, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Balance asked={len(self._asked)}>"

    def choose(self, here: Sequence[Connection], elsewhere: Sequence[int]) -> list[Connection]:
        """Those of the connections `here` that should move, given how many executors each other replica has.

        Idle ones first: they take nothing along.
        """
        if not elsewhere:
            return []
        average = (len(here) + sum(elsewhere)) / (1 + len(elsewhere))
        excess = len(here) - average
        if excess < max(2.0, TOLERANCE * average):
            return []
        most = max(1, int(PART * len(here)))
        willing = [c for c in here if c.takes_commands and c.instance not in self._asked]
        chosen = sorted(willing, key=lambda connection: len(connection.commands))[: min(most, int(excess))]
        for connection in chosen:
            self._asked[connection.instance] = None
            if len(self._asked) > MAX_ASKED:
                self._asked.popitem(last=False)
        return chosen
