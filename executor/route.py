"""Which broker is dialed next, and how long to wait before: in rounds over all addresses. Pure.

A broker that is gone says nothing about its neighbours, so they are tried within moments of each other. Only when a
whole round has come to nothing does the wait grow, as `pace` says.
"""

from collections.abc import Sequence

from executor.pace import Pace
from openline.settings import Address

# The wait before the next address of a round is random below this: the executors of a broker that was killed all notice
# it in the same moment.
HOP_S = 0.2


class Route:
    """The addresses in this executor's own order, and how far the round over them is."""

    def __init__(self, addresses: Sequence[Address], pace: Pace) -> None:
        self._addresses = addresses
        self._pace = pace
        self._at = 0
        self._untried = len(addresses) - 1  # in this round, beside the one that is dialed
        self._refusals = 0  # in this round

    def __repr__(self) -> str:
        return f"<Route at={self.address} untried={self._untried}>"

    @property
    def address(self) -> Address:
        """The one to dial."""
        return self._addresses[self._at]

    @property
    def following(self) -> Address:
        """The one after that, whatever becomes of it: never the same if there is another."""
        return self._addresses[(self._at + 1) % len(self._addresses)]

    def ended(self, lived_s: float, *, moved: bool, refused: bool, urgent: bool, chance: float) -> float:
        """A connection to `address` has ended: takes the next one, and returns the wait before it is dialed.

        `lived_s` is 0 for one that never stood, `moved` means that the broker said GoAway, `urgent` that a command is
        held; `chance` is random in 0..1.
        """
        self._at = (self._at + 1) % len(self._addresses)
        if self._pace.stood(lived_s):
            self._begin_round()
        self._refusals += refused
        if self._untried:
            self._untried -= 1
            return 0.0 if moved else HOP_S * chance
        # Where all refuse, to come again soon does not help; where some are just away, they may be back soon.
        all_refused = self._refusals == len(self._addresses)
        self._begin_round()
        return self._pace.refused(chance) if all_refused else self._pace.lost(lived_s, chance, urgent=urgent)

    def _begin_round(self) -> None:
        self._untried = len(self._addresses) - 1
        self._refusals = 0
