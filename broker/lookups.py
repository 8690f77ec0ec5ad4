"""Commands by id, for those who may see them: found here while they run, in the store when they are done."""

import asyncio
import time

from broker.core.command import Command
from broker.core.credentials import Caller
from broker.dispatcher import Dispatcher
from broker.execution import Source
from broker.store.store import Store
from openline import errors
from openline.ids import is_command_id, made_at
from openline.reasons import Reason
from openline.v1 import command_pb2

# The clock of whoever made an id may be off by so much.
CLOCK_SLACK_S = 60.0


class Lookups:
    def __init__(self, dispatcher: Dispatcher, store: Store) -> None:
        self._dispatcher = dispatcher
        self._store = store

    async def find(self, command_id: str, caller: Caller) -> Source:
        """The command, if it is the caller's own or the caller is an admin.

        Raises COMMAND_UNKNOWN, RESULT_EXPIRED, STORE_UNAVAILABLE.
        """
        if not is_command_id(command_id):
            wrong = [("command_id", "must be a UUIDv7 in lower case")]
            raise errors.OpenlineError(
                errors.error(Reason.INVALID_COMMAND, "command_id is not valid", violations=wrong)
            )
        found: Source | None = self._dispatcher.find(command_id)
        if found is None:
            found = await self._store.results.get(command_id)
        if found is None:
            # Its record may have been written while the store was asked, and taken off the ledger before.
            found = self._dispatcher.find(command_id)
        owner = found.ask.owner if isinstance(found, Command) else "" if found is None else found.owner
        if found is not None and (owner == caller.owner or "admin" in caller.scopes):
            return found
        if found is None and made_at(command_id) < time.time() - self._store.results.ttl_s - CLOCK_SLACK_S:
            raise errors.OpenlineError(errors.error(Reason.RESULT_EXPIRED, "the result of this command has expired"))
        raise errors.OpenlineError(errors.error(Reason.COMMAND_UNKNOWN, "no such command"))

    async def cancel(self, command_id: str, caller: Caller, *, why: str) -> command_pb2.CommandState.ValueType:
        """Asks for the command to be stopped; the state it was in. Raises as `find` does."""
        found = await self.find(command_id, caller)
        if not isinstance(found, Command):
            return found.state
        state = found.state
        self._dispatcher.cancel(found, why=errors.short(why) or "cancelled by the caller")
        return state.value

    async def until_done(self, command: Command, timeout_s: float) -> None:
        """Waits until the command has its result, or the time is up."""
        over = asyncio.Event()

        def done(_command: Command) -> None:
            over.set()

        self._dispatcher.attach(command, done)
        try:
            async with asyncio.timeout(timeout_s):
                await over.wait()
        except TimeoutError:
            return
        finally:
            self._dispatcher.leave(command, done)
