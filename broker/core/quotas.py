"""How much each caller may ask: commands in a window of time, and commands at one time.

Each replica counts by itself and knows what the others had counted a moment ago, so a limit is held by all of them
together, approximately: a burst that comes to several of them at once may pass before they have heard of each other.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from broker.core.usage import IN_FLIGHT_TTL_S, WINDOW_S, Told, Usage
from openline import errors
from openline.reasons import Reason
from openline.v1 import command_pb2, command_service_pb2

QuotaState = command_service_pb2.QuotaState

# When a place in flight will be free is not known; commands take a second, mostly.
IN_FLIGHT_RETRY_S = 1.0
# More than there are keys; of owners, the one whose last command is the longest ago is forgotten first.
MAX_OWNERS = 20_000
# What has not changed is told again after this.
TELL_AGAIN_S = IN_FLIGHT_TTL_S / 3


class Name(StrEnum):
    """What is limited; as callers read it."""

    COMMANDS = "commands"
    IN_FLIGHT = "in-flight"
    # Not a caller's but a connection's: what one may have open at one time.
    OPEN_CALLS = "open-calls"


@dataclass(frozen=True, slots=True)
class Quota:
    """What one caller may ask; zero is no limit."""

    commands: int = 0  # a window
    in_flight: int = 0  # at one time

    def __bool__(self) -> bool:
        return self.commands > 0 or self.in_flight > 0


@dataclass(slots=True)
class Admitted:
    """One command that was counted; in flight until `end` or `give_back`, of which the first counts."""

    usage: Usage
    window: int
    _quotas: "Quotas"
    _is_over: bool = False

    def end(self) -> None:
        """The command has ended."""
        if not self._is_over:
            self._is_over = True
            self.usage.in_flight -= 1
            self._quotas.changed(self.usage)

    def give_back(self) -> None:
        """The command was not run, for no fault of its caller's: it is as if it had not been asked for."""
        if not self._is_over and self.usage.window == self.window:
            self.usage.commands -= 1
        self.end()


class Quotas:
    """The usage of those owners who have a quota, and which of them the other replicas are to hear of.

    A key with numbers of its own is an owner by itself here (`Caller.counted_as`).

    `now` is seconds since 1970, since windows are the same on all replicas.
    """

    def __init__(self, default: Quota, *, max_owners: int = MAX_OWNERS) -> None:
        self._default = default
        self._max_owners = max_owners
        # Who asked last stands last.
        self._usages: OrderedDict[str, Usage] = OrderedDict()
        # Whoever's counts have changed since they were told, in the order of that; or who has commands in flight.
        self._active: OrderedDict[Usage, None] = OrderedDict()
        self.refused: dict[Name, int] = dict.fromkeys((Name.COMMANDS, Name.IN_FLIGHT), 0)

    def __repr__(self) -> str:
        return f"<Quotas {self._default} owners={len(self._usages)} active={len(self._active)}>"

    def __len__(self) -> int:
        return len(self._usages)

    def applying(self, own: Quota | None) -> Quota | None:
        """The quota of a caller with these numbers of its own; None when it has no limit at all."""
        return (self._default if own is None else own) or None

    def admit(self, owner: str, quota: Quota, *, again: bool, now: float) -> Admitted:
        """Counts a command. Raises QUOTA_EXCEEDED.

        One that was asked for before, and may be anywhere, is counted `again` and may exceed the limit by as much:
        callers of a replica that was killed must find their commands, and whoever always says so wins no more.
        """
        usage = self._usage(owner, now)
        factor = 2 if again else 1
        if 0 < quota.commands * factor <= usage.all_commands():
            raise self._refusal(usage, self.states(owner, quota, now=now)[0])
        if 0 < quota.in_flight * factor <= usage.all_in_flight(now):
            raise self._refusal(usage, self.states(owner, quota, now=now)[-1])
        usage.commands += 1
        usage.in_flight += 1
        self.changed(usage)
        return Admitted(usage, usage.window, self)

    def states(self, owner: str, quota: Quota, *, now: float) -> list[QuotaState]:
        """What is left of each limit that there is: commands first, then in flight."""
        usage = self._usage(owner, now)
        found = []
        if quota.commands:
            remaining = max(0, quota.commands - usage.all_commands())
            reset_s = usage.reset_s(now)
            found.append(
                QuotaState(
                    name=Name.COMMANDS, limit=quota.commands, remaining=remaining, window_s=WINDOW_S, reset_s=reset_s
                )
            )
        if quota.in_flight:
            remaining = max(0, quota.in_flight - usage.all_in_flight(now))
            found.append(QuotaState(name=Name.IN_FLIGHT, limit=quota.in_flight, remaining=remaining))
        return found

    # What replicas tell each other

    def changed(self, usage: Usage) -> None:
        self._active[usage] = None

    def to_tell(self, *, at_most: int, now: float) -> list[Usage]:
        """Whose counts the others are to hear now, the longest waiting first."""
        told: list[Usage] = []
        for usage in list(self._active):
            if len(told) == at_most:
                break
            says = usage.says(now)
            if says != usage.told or abs(now - usage.told_at) >= TELL_AGAIN_S:
                told.append(usage)
            elif not says.in_flight:
                del self._active[usage]
        return told

    def heard(self, told: Iterable[tuple[Usage, Told, Told]], *, now: float) -> None:
        """These usages were told, as said, and what the others say of them."""
        for usage, said, others in told:
            usage.told, usage.told_at = said, now
            usage.hear(others, now)
            if usage in self._active:
                self._active.move_to_end(usage)

    def _refusal(self, usage: Usage, state: QuotaState) -> errors.OpenlineError:
        self.refused[Name(state.name)] += 1
        # The others may be done with what it is refused for: they are asked soon.
        usage.told = None
        self.changed(usage)
        within = f" in {state.window_s:g} s" if state.window_s else " at one time"
        message = f"the quota of {state.limit} commands{within} is used up"
        return errors.OpenlineError(_error(state, message, retry_after_s=state.reset_s or IN_FLIGHT_RETRY_S))

    def _usage(self, owner: str, now: float) -> Usage:
        usage = self._usages.get(owner)
        if usage is None:
            usage = self._usages[owner] = Usage(owner)
            if len(self._usages) > self._max_owners:
                self._usages.popitem(last=False)
        else:
            self._usages.move_to_end(owner)
        usage.turn(now)
        return usage


def full(limit: int, message: str) -> command_pb2.Error:
    """The error of a call on a connection that has as many open as it may."""
    state = QuotaState(name=Name.OPEN_CALLS, limit=limit)
    return _error(state, message, retry_after_s=IN_FLIGHT_RETRY_S)


def _error(state: QuotaState, message: str, *, retry_after_s: float) -> command_pb2.Error:
    metadata = {
        "quota": state.name,
        "limit": str(state.limit),
        "remaining": str(state.remaining),
        "window_s": f"{state.window_s:g}",
        "reset_s": f"{state.reset_s:.3f}",
    }
    return errors.error(Reason.QUOTA_EXCEEDED, message, retry_after_s=retry_after_s, metadata=metadata)
