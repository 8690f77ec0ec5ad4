"""Looking for the commands of calls that wait at another gateway: in the list of their conversation.

Calls of one conversation that are looked for at one time share their looks, so that a client may cancel many at once;
looks in many conversations take turns, a few of each key at one time, so that nobody who cancels much is in the way of
others. Whoever looks has shown a key that there is. All of it is bounded.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic

from gateway.callers import Caller
from gateway.fanout_models import MAX_CLUSTERS
from gateway.stubs import Stubs
from openline.errors import OpenlineError
from openline.v1.command_pb2 import Command
from openline.v1.command_service_pb2 import ListCommandsRequest

# Lists that are asked for at one time here, and those for one key.
MOST_LOOKS = 8
MOST_LOOKS_OF_KEY = 4
# So long a look waits for its turn.
TURN_S = 5.0
# Calls that are looked for, at some 20 KB each, and those of one key.
MOST_CALLS = 1000
MOST_CALLS_OF_KEY = 250
# The newest of a conversation: all of one call, and some that have come since.
MOST_LISTED = MAX_CLUSTERS + 50
# Calls that come within this time share a look; so there are no more than twenty a second in a conversation.
GATHER_S = 0.05


class Crowded(Exception):
    """There is no room for one more, or its turn has not come; says which."""


class Search:
    """In one conversation, with one key. `read` is what lists it, and raises OpenlineError and Crowded."""

    def __init__(self, read: Callable[[Caller], Awaitable[Sequence[Command]]]) -> None:
        self._read = read
        self.calls = 0
        self._reading = asyncio.Lock()
        # How many lists were asked for, and what came of the last one.
        self._begun = 0
        self._listed: Sequence[Command] | OpenlineError | Crowded = ()

    async def look(self, caller: Caller) -> Sequence[Command]:
        """What is listed from now on: a list that was asked for before may be too old. Raises what `read` does."""
        wanted = self._begun + 1
        async with self._reading:
            if self._begun < wanted:
                await asyncio.sleep(GATHER_S)
                self._begun += 1
                try:
                    self._listed = await self._read(caller)
                except (OpenlineError, Crowded) as failure:
                    self._listed = failure
            listed = self._listed
        if isinstance(listed, Exception):
            raise listed
        return listed


@dataclass(slots=True)
class _OfKey:
    """What is looked for with one key."""

    calls: int = 0
    # By conversation.
    searches: dict[str, Search] = field(default_factory=dict)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_LOOKS_OF_KEY))


class Searches:
    """Those that go on here."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs
        self._calls = 0
        self._of_keys: dict[str, _OfKey] = {}
        self._turns = asyncio.Semaphore(MOST_LOOKS)

    @contextmanager
    def join(self, caller: Caller) -> Iterator[Search]:
        """The search in the caller's conversation, for one more call. Raises Crowded."""
        mine = self._of_keys.get(caller.api_key) or _OfKey()
        if self._calls >= MOST_CALLS or mine.calls >= MOST_CALLS_OF_KEY:
            raise Crowded("too many calls are looked for")
        self._of_keys[caller.api_key] = mine
        conversation = caller.exchange.given_correlation_id
        search = mine.searches.setdefault(conversation, Search(partial(self._read, mine)))
        self._calls += 1
        mine.calls += 1
        search.calls += 1
        try:
            yield search
        finally:
            self._calls -= 1
            mine.calls -= 1
            search.calls -= 1
            if not search.calls:
                del mine.searches[conversation]
            if not mine.calls:
                del self._of_keys[caller.api_key]

    async def _read(self, mine: _OfKey, caller: Caller) -> Sequence[Command]:
        """What is in the caller's conversation, when it is this key's turn."""
        request = ListCommandsRequest(correlation_id=caller.exchange.given_correlation_id, page_size=MOST_LISTED)
        async with self._turn(mine):
            # Whoever has cancelled does not wait for it, so it has the time of a lookup of its own.
            asked = replace(caller, wait_s=None, asked_at=monotonic())
            return (await self._stubs.list_commands(request, asked)).commands

    @asynccontextmanager
    async def _turn(self, mine: _OfKey) -> AsyncIterator[None]:
        """A key has a line of its own, and in that of all no more than it has turns."""
        try:
            async with asyncio.timeout(TURN_S) as waiting, mine.turns, self._turns:
                waiting.reschedule(None)
                yield
        except TimeoutError:
            raise Crowded("its turn has not come") from None
