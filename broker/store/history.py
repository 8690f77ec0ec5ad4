"""Lists of commands in Redis, by owner, conversation and session: written behind the answer, read in either order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from broker.store import keys
from broker.store.behind import WriteBehind
from broker.store.client import Client, ask
from broker.store.gathering import Gathering
from broker.store.lists import newest, oldest, put_on
from broker.store.single import RedisCommand
from openline.v1 import command_pb2

# Commands that are not on their lists yet; some 500 bytes each.
MAX_WAITING = 20_000
ID_LENGTH = 36


@dataclass(frozen=True, slots=True)
class Listed:
    """A command as it goes onto its lists: each list with its bound."""

    lists: tuple[tuple[str, int], ...]
    member: bytes


# What a command is by the time it is written down; None if that is not, or no more, for this replica to say.
Look = Callable[[], command_pb2.Command | None]


class History:
    def __init__(self, redis: Client, behind: WriteBehind, *, ttl_s: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s
        self._gathering = Gathering[Listed | Look](behind, self._render, name="history", max_waiting=MAX_WAITING)
        self.flush = self._gathering.flush

    @property
    def lost(self) -> int:
        """How many were never stored, since the start."""
        return self._gathering.lost

    def begun(self, look: Look) -> None:
        """A command has been dispatched. What it is is asked when it is written: most have ended by then."""
        self._gathering.add(look)

    def ended(self, done: command_pb2.Command) -> None:
        """A command has its result, which comes without output here."""
        self._gathering.add(_listed(done))

    async def page(
        self, listing: str, *, shown: str, since: str, count: int, oldest_first: bool = False
    ) -> list[tuple[str, command_pb2.Command | None]]:
        """So many of a list, newest first, that come after the one with the id `shown` (empty: from the first one on),
        and not from before what sorts as `since`.

        A command that took its time is there twice: as it ended, and as it ran, which is the older one.
        Raises STORE_UNAVAILABLE.
        """
        if oldest_first:
            read = oldest(listing, behind=shown, since=since, count=count)
        else:
            read = newest(listing, before=shown, since=since, count=count)
        [members] = await ask(self._redis, read)
        return [(member[:ID_LENGTH].decode(errors="replace"), _read(member)) for member in members]

    def _render(self, items: Sequence[Listed | Look]) -> Iterable[RedisCommand]:
        """A few commands for each list, however many go onto it."""
        lists: dict[tuple[str, int], list[bytes]] = {}
        for item in items:
            if not isinstance(item, Listed):
                if (command := item()) is None:
                    continue
                item = _listed(command)
            for listing in item.lists:
                lists.setdefault(listing, []).append(item.member)
        for (name, most), members in lists.items():
            yield from put_on(name, members, most=most, ttl_s=self._ttl_s)


def _listed(command: command_pb2.Command) -> Listed:
    lists = [(keys.owned_commands(command.owner), keys.MAX_OWNED_COMMANDS)]
    if command.correlation_id:
        conversation = keys.conversation_commands(command.owner, command.correlation_id)
        lists.append((conversation, keys.MAX_GROUPED_COMMANDS))
    if command.session_id:
        lists.append((keys.session_commands(command.session_id), keys.MAX_GROUPED_COMMANDS))
    is_done = b"1" if command.state == command_pb2.COMMAND_STATE_DONE else b"0"
    return Listed(tuple(lists), command.command_id.encode() + is_done + command.SerializeToString())


def _read(member: bytes) -> command_pb2.Command | None:
    """None for somebody else's bytes."""
    try:
        return command_pb2.Command.FromString(member[ID_LENGTH + 1 :])
    except DecodeError:
        return None
