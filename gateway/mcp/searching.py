"""Looking for the commands of calls that wait at another gateway: in the list of their conversation.

Calls of one conversation that are looked for at one time share their looks, so that a client may cancel many at once.
What they are for may be made up, so all of it is bounded.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway.callers import Caller
from gateway.fanout_models import MAX_CLUSTERS
from gateway.stubs import Stubs
from openline.errors import OpenlineError
from openline.v1.command_pb2 import Command
from openline.v1.command_service_pb2 import ListCommandsRequest

# Conversations that are searched at one time here, and those of one key.
MOST_SEARCHES = 8
MOST_SEARCHES_OF_KEY = 4
# Calls that are looked for in one of them.
MOST_OF_SEARCH = 50
# The newest of a conversation: all of one call, and some that have come since.
MOST_LISTED = MAX_CLUSTERS + 50
# Calls that come within this time share a look; so there are no more than twenty a second in a conversation.
GATHER_S = 0.05


class Search:
    """In one conversation, with one key."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs
        self.calls = 0
        self._reading = asyncio.Lock()
        # How many lists were asked for, and what came of the last one.
        self._begun = 0
        self._listed: Sequence[Command] | OpenlineError = ()

    async def look(self, caller: Caller) -> Sequence[Command]:
        """What is listed from now on: a list that was asked for before may be too old. Raises OpenlineError."""
        wanted = self._begun + 1
        async with self._reading:
            if self._begun < wanted:
                await asyncio.sleep(GATHER_S)
                self._begun += 1
                self._listed = await self._list(caller)
            listed = self._listed
        if isinstance(listed, OpenlineError):
            raise listed
        return listed

    async def _list(self, caller: Caller) -> Sequence[Command] | OpenlineError:
        request = ListCommandsRequest(correlation_id=caller.exchange.given_correlation_id, page_size=MOST_LISTED)
        try:
            return (await self._stubs.list_commands(request, caller)).commands
        except OpenlineError as failure:
            return failure


class Searches:
    """Those that go on here."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs
        # By API key and conversation.
        self._searches: dict[tuple[str, str], Search] = {}

    @contextmanager
    def join(self, caller: Caller) -> Iterator[Search | None]:
        """The search in the caller's conversation, for one more call; None where there is no room for it."""
        name = (caller.api_key, caller.exchange.given_correlation_id)
        search = self._searches.get(name)
        if search is None and self._has_room(caller.api_key):
            search = self._searches[name] = Search(self._stubs)
        if search is None or search.calls >= MOST_OF_SEARCH:
            yield None
            return
        search.calls += 1
        try:
            yield search
        finally:
            search.calls -= 1
            if not search.calls:
                del self._searches[name]

    def _has_room(self, api_key: str) -> bool:
        of_key = sum(key == api_key for key, _ in self._searches)
        return len(self._searches) < MOST_SEARCHES and of_key < MOST_SEARCHES_OF_KEY
