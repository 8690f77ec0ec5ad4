"""What requests there were, in numbers: by route, never by path, so that nobody can make labels up."""

import ssl
from typing import Literal, get_args

from openline.fresh import Fresh
from openline.tally import Histogram

# What names no route of ours, and methods that none of them has.
NO_ROUTE = "none"
OTHER_METHOD = "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# Why a request was turned away before a broker was asked, or a connection closed without an answer.
Why = Literal[
    "no_key", "crowded", "large_head", "large_body", "slow_body", "malformed", "unheard", "slow_head", "stalled"
]

# Route, method, class of the status, whether it was an agent call.
Answered = tuple[str, str, str, bool]


class Traffic:
    def __init__(self) -> None:
        self.answered: dict[Answered, int] = {}
        # By route and whether it was an agent call.
        self.durations: dict[tuple[str, bool], Histogram] = {}
        self.in_flight = 0
        self.event_streams = 0
        self.connections = 0
        self.refused: dict[Why, int] = dict.fromkeys(get_args(Why), 0)
        self.lag = Histogram()
        # What is shown to callers; None where they come in plaintext.
        self.certificates: Fresh[ssl.SSLContext] | None = None

    def count(self, route: str | None, method: str, status: int, *, is_agent_call: bool, head_s: float) -> None:
        """A request was answered; the head of its answer came after so many seconds."""
        name = route or NO_ROUTE
        answered = (name, method if method in METHODS else OTHER_METHOD, f"{status // 100}xx", is_agent_call)
        self.answered[answered] = self.answered.get(answered, 0) + 1
        if (durations := self.durations.get((name, is_agent_call))) is None:
            durations = self.durations[name, is_agent_call] = Histogram()
        durations.observe(head_s)
