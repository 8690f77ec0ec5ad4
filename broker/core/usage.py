"""What one caller has used of its quotas: counted on this replica, and heard from the others.

Windows are fixed, and begin at the same time on every replica, as far as their clocks agree; each owner's at another
second, so that not everybody who waits for one comes back at once.
"""

import hashlib
from dataclasses import dataclass

WINDOW_S = 60.0
# What is known of others in flight counts for so long: a replica that was killed says nothing any more.
IN_FLIGHT_TTL_S = 15.0


@dataclass(frozen=True, slots=True)
class Told:
    """What one replica says of one owner, or what the others say together."""

    window: int
    commands: int
    in_flight: int


class Usage:
    """What one owner has used: counted here, and heard from the others."""

    __slots__ = (
        "_others",
        "_others_at",
        "_shift_s",
        "commands",
        "in_flight",
        "is_forgotten",
        "owner",
        "told",
        "told_at",
        "window",
    )

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._shift_s = int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4], "big") / 2**32 * WINDOW_S
        self.window = -1
        self.commands = 0
        self.in_flight = 0
        self._others = Told(-1, 0, 0)
        self._others_at = float("-inf")
        # What the others were told last, and when.
        self.told: Told | None = None
        self.told_at = float("-inf")
        # There was no room for it any more: it counts for what it has admitted, and is told to nobody.
        self.is_forgotten = False

    def __repr__(self) -> str:
        return f"<Usage {self.owner} commands={self.commands} in_flight={self.in_flight} others={self._others}>"

    def turn(self, now: float) -> None:
        """Begins a new window if it is time. A clock that was put back begins one as well."""
        window = int((now + self._shift_s) // WINDOW_S)
        if window != self.window:
            self.window = window
            self.commands = 0

    def reset_s(self, now: float) -> float:
        """Until the window ends."""
        return WINDOW_S - (now + self._shift_s) % WINDOW_S

    def hear(self, others: Told, now: float) -> None:
        self._others = others
        self._others_at = now

    def all_commands(self) -> int:
        """Of this window, on all replicas."""
        return self.commands + (self._others.commands if self._others.window == self.window else 0)

    def all_in_flight(self, now: float) -> int:
        # A clock that was put back must not keep them for ever.
        is_fresh = abs(now - self._others_at) < IN_FLIGHT_TTL_S
        return self.in_flight + (self._others.in_flight if is_fresh else 0)

    def says(self, now: float) -> Told:
        self.turn(now)
        return Told(self.window, self.commands, self.in_flight)
