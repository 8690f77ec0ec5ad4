"""Taking a call back: its commands are cancelled, at whichever gateway the call is.

What is in flight here is known here. What is at another gateway is looked for among the commands of the conversation,
and known by its id (see `naming`). That gateway sees a command of its call come back cancelled for this reason: so it
knows, begins no more, and cancels what else runs. Whether a command is the caller's own is for the broker to say; here
a call is known by its key as well, which nobody need have checked yet.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from gateway.callers import Caller
from gateway.calling_off import Commands, cancel_all, take_back
from gateway.mcp.naming import is_of
from gateway.mcp.searching import Crowded, Search, Searches
from gateway.stubs import Stubs
from openline.errors import TAKEN_BACK, OpenlineError
from openline.pipes import Pipes
from openline.reasons import Reason
from openline.v1.command_pb2 import COMMAND_STATE_DONE

log = structlog.get_logger()

# Lists are written behind the answers, and a call may go on beginning commands: the first look may come too early, and
# one that has found something does not find all.
LOOKS_AFTER_S = (0.0, 0.3, 0.7)


class InFlight:
    """What the calls that wait here have begun, by their API keys and names: as many as there are requests."""

    def __init__(self) -> None:
        self._commands: dict[tuple[str, str], Commands] = {}

    @contextmanager
    def hold(self, api_key: str, name: str | None, commands: Commands) -> Iterator[None]:
        if name is None:
            yield
            return
        self._commands[api_key, name] = commands
        try:
            yield
        finally:
            # A client that uses a number twice has the later call under it.
            if self._commands.get((api_key, name)) is commands:
                del self._commands[api_key, name]

    def find(self, api_key: str, name: str) -> Commands | None:
        """None for a call that does not wait here; empty where it has begun nothing yet."""
        return self._commands.get((api_key, name))


class TakingBack:
    """By name, whatever calls there are. Who cancels is told of a wrong key; what else goes wrong is only logged."""

    def __init__(self, pipes: Pipes, stubs: Stubs) -> None:
        self._pipes = pipes
        self._stubs = stubs
        self._searches = Searches(stubs)

    async def here(self, commands: Commands, caller: Caller) -> int:
        """Cancels what a call that waits here has begun, which begins no more; how many commands there were."""
        return await take_back(self._pipes, commands, api_key=caller.api_key)

    async def knows_key(self, caller: Caller) -> bool:
        """Whether it is one, as far as a broker says so in time. Raises UNAUTHENTICATED for one that is none.

        Nothing else is raised: some clients end their session when a message of theirs fails.
        """
        try:
            await self._stubs.check_key(caller)
        except OpenlineError as failure:
            if failure.reason is Reason.UNAUTHENTICATED:
                raise
            _say_not_cancelled(failure, caller)
            return False
        return True

    async def elsewhere(self, name: str, caller: Caller) -> int:
        """Cancels the commands of the call with this name, wherever it waits; how many there were.

        Takes up room for a while: the key is one that is known.
        """
        cancelled: set[str] = set()
        try:
            with self._searches.join(caller) as search:
                await self._cancel_found(name, caller, search, cancelled)
        except Crowded as why:
            exchange = caller.exchange
            log.warning("mcp.not_looked_for", request_id=exchange.request_id, why=str(why), **exchange.names)
        except OpenlineError as failure:
            _say_not_cancelled(failure, caller)
        return len(cancelled)

    async def _cancel_found(self, name: str, caller: Caller, search: Search, cancelled: set[str]) -> None:
        """What is found to be running, each once. Raises OpenlineError and Crowded."""
        seen: set[str] = set()
        for after_s in LOOKS_AFTER_S:
            await asyncio.sleep(after_s)
            listed = await search.look(caller)
            new = [each for each in listed if each.command_id not in seen and is_of(each.command_id, name)]
            seen.update(each.command_id for each in new)
            running = {each.command_id: each.correlation_id for each in new if each.state != COMMAND_STATE_DONE}
            await cancel_all(self._pipes, running, why=TAKEN_BACK, api_key=caller.api_key)
            cancelled.update(running)


def _say_not_cancelled(failure: OpenlineError, caller: Caller) -> None:
    exchange = caller.exchange
    log.warning("mcp.not_cancelled", request_id=exchange.request_id, reason=failure.reason, **exchange.names)
