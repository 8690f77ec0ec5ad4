"""How much each caller may ask, and each conversation: commands in a window of time, and commands at one time.

Each replica counts by itself and knows what the others had counted a moment ago, so a limit is held by all of them
together, approximately: a burst that comes to several of them at once may pass before they have heard of each other.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from broker.core.remembered import Remembered
from broker.core.usage import IN_FLIGHT_TTL_S, WINDOW_S, Told, Usage
from openline import errors
from openline.reasons import Reason
from openline.v1 import command_pb2, command_service_pb2

QuotaState = command_service_pb2.QuotaState

# When a place in flight will be free is not known; commands take a second, mostly.
IN_FLIGHT_RETRY_S = 1.0
# More than there are keys; of owners, the one whose last command is the longest ago is forgotten first.
MAX_OWNERS = 20_000
# Of conversations, of which whoever asks can make up as many as he likes: one owner's push out its own.
MAX_CONVERSATIONS = 20_000
MAX_CONVERSATIONS_OF_OWNER = 5_000
# Nobody else hears of one that has asked for less: most never ask for more, and made up ones do not fill Redis.
CONVERSATION_TOLD_FROM = 2
# What has not changed is told again after this.
TELL_AGAIN_S = IN_FLIGHT_TTL_S / 3


class Name(StrEnum):
    """What is limited; as callers read it."""

    COMMANDS = "commands"
    IN_FLIGHT = "in-flight"
    CONVERSATION_COMMANDS = "conversation-commands"
    CONVERSATION_IN_FLIGHT = "conversation-in-flight"
    # Not a caller's but a connection's: what one may have open at one time.
    OPEN_CALLS = "open-calls"


@dataclass(frozen=True, slots=True)
class Quota:
    """What one caller may ask, or one conversation; zero is no limit."""

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

    A key with numbers of its own is an owner by itself here (`Caller.counted_as`), and so is a conversation where it is
    conversations that are counted (`of_conversations`).

    `now` is seconds since 1970, since windows are the same on all replicas.
    """

    def __init__(
        self,
        default: Quota,
        *,
        max_owners: int = MAX_OWNERS,
        max_of_owner: int = MAX_OWNERS,
        names: tuple[Name, Name] = (Name.COMMANDS, Name.IN_FLIGHT),
        whose: str = "the",
        told_from: int = 1,
    ) -> None:
        """Of usages with fewer commands in their window than `told_from` no other replica hears."""
        self._default = default
        self._names = names
        self._whose = whose
        self._told_from = told_from
        self._usages: Remembered[Usage] = Remembered(most=max_owners, most_of_owner=max_of_owner)
        # Whoever's counts have changed since they were told, in the order of that; or who has commands in flight.
        self._active: OrderedDict[Usage, None] = OrderedDict()
        self.refused: dict[Name, int] = dict.fromkeys(names, 0)

    @classmethod
    def of_conversations(
        cls,
        quota: Quota,
        *,
        max_conversations: int = MAX_CONVERSATIONS,
        max_of_owner: int = MAX_CONVERSATIONS_OF_OWNER,
    ) -> Self:
        """Each by itself, within what their owners may ask: it is against an agent that loops, not against one that
        makes up a conversation for each command."""
        return cls(
            quota,
            max_owners=max_conversations,
            max_of_owner=max_of_owner,
            names=(Name.CONVERSATION_COMMANDS, Name.CONVERSATION_IN_FLIGHT),
            whose="this conversation's",
            told_from=CONVERSATION_TOLD_FROM,
        )

    def __repr__(self) -> str:
        return f"<Quotas {self._default} owners={len(self._usages)} active={len(self._active)}>"

    def __len__(self) -> int:
        return len(self._usages)

    def applying(self, own: Quota | None) -> Quota | None:
        """The quota of a caller with these numbers of its own; None when it has no limit at all."""
        return (self._default if own is None else own) or None

    def admit(self, who: str, quota: Quota, *, of: str, again: bool, now: float) -> Admitted:
        """Counts a command as `who`'s, which is one of the owner `of`. Raises QUOTA_EXCEEDED.

        One that was asked for before, and may be anywhere, is counted `again` and may exceed the limit by as much:
        callers of a replica that was killed must find their commands, and whoever always says so wins no more.
        """
        usage = self._usage(who, of, now)
        factor = 2 if again else 1
        if 0 < quota.commands * factor <= usage.all_commands():
            raise self._refusal(usage, self.states(who, quota, of=of, now=now)[0])
        if 0 < quota.in_flight * factor <= usage.all_in_flight(now):
            raise self._refusal(usage, self.states(who, quota, of=of, now=now)[-1])
        usage.commands += 1
        usage.in_flight += 1
        self.changed(usage)
        return Admitted(usage, usage.window, self)

    def states(self, who: str, quota: Quota, *, of: str, now: float) -> list[QuotaState]:
        """What is left of each limit that there is: commands first, then in flight."""
        usage = self._usage(who, of, now)
        found = []
        if quota.commands:
            remaining = max(0, quota.commands - usage.all_commands())
            reset_s = usage.reset_s(now)
            found.append(
                QuotaState(
                    name=self._names[0], limit=quota.commands, remaining=remaining, window_s=WINDOW_S, reset_s=reset_s
                )
            )
        if quota.in_flight:
            remaining = max(0, quota.in_flight - usage.all_in_flight(now))
            found.append(QuotaState(name=self._names[1], limit=quota.in_flight, remaining=remaining))
        return found

    # What replicas tell each other

    def changed(self, usage: Usage) -> None:
        is_told = usage in self._active or usage.commands >= self._told_from
        if is_told and not usage.is_forgotten:
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
        message = f"{self._whose} quota of {state.limit} commands{within} is used up"
        return errors.OpenlineError(_error(state, message, retry_after_s=state.reset_s or IN_FLIGHT_RETRY_S))

    def _usage(self, who: str, of: str, now: float) -> Usage:
        usage = self._usages.use(who)
        if usage is None:
            usage = Usage(who)
            if (forgotten := self._usages.add(who, usage, owner=of)) is not None:
                # Else it and the next of that name would both be told as what it has used.
                forgotten.is_forgotten = True
                self._active.pop(forgotten, None)
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
