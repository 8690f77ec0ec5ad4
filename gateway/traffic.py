"""What requests there were, in numbers: by route, never by path, so that nobody can make labels up."""

from openline.tally import Histogram

# What names no route of ours, and methods that none of them has.
NO_ROUTE = "none"
OTHER_METHOD = "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# Route, method, class of the status, whether it was an agent call.
Answered = tuple[str, str, str, bool]


class Traffic:
    def __init__(self) -> None:
        self.answered: dict[Answered, int] = {}
        # By route and whether it was an agent call.
        self.durations: dict[tuple[str, bool], Histogram] = {}
        self.in_flight = 0
        self.event_streams = 0

    def count(self, route: str | None, method: str, status: int, *, is_agent_call: bool, head_s: float) -> None:
        """A request was answered; the head of its answer came after so many seconds."""
        name = route or NO_ROUTE
        answered = (name, method if method in METHODS else OTHER_METHOD, f"{status // 100}xx", is_agent_call)
        self.answered[answered] = self.answered.get(answered, 0) + 1
        if (durations := self.durations.get((name, is_agent_call))) is None:
            durations = self.durations[name, is_agent_call] = Histogram()
        durations.observe(head_s)
