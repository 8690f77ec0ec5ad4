"""Commands by id, for those who may see them: found here, in the store when they are done, or on another replica."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterable, Iterator
from functools import partial

from broker.audit import Audit
from broker.core import whereabouts
from broker.core.command import Ask, Command
from broker.core.credentials import Caller
from broker.core.life import State
from broker.dispatcher import Dispatcher
from broker.execution import Source
from broker.records import record
from broker.rpc.finding import Found
from broker.rpc.peers import Peers
from broker.store.store import Store
from broker.watching import Replay
from openline import errors
from openline.ids import is_command_id, made_at
from openline.reasons import Reason
from openline.v1 import command_pb2, command_service_pb2

# The clock of whoever made an id may be off by so much.
CLOCK_SLACK_S = 60.0
# What another replica is allowed for its answer beyond the time that it is to wait.
ANSWER_S = 2.0


class Lookups:
    def __init__(self, dispatcher: Dispatcher, store: Store, peers: Peers, audit: Audit) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._peers = peers
        self._audit = audit

    async def find(self, command_id: str, caller: Caller) -> Source:
        """The command, if it is the caller's own or the caller is an admin, and of a cluster that the caller sees.

        Any other goes the way of one that there is not, and takes as long.
        Raises COMMAND_UNKNOWN, RESULT_EXPIRED, STORE_UNAVAILABLE.
        """
        if not is_command_id(command_id):
            wrong = [("command_id", "must be a UUIDv7 in lower case")]
            raise errors.OpenlineError(
                errors.error(Reason.INVALID_COMMAND, "command_id is not valid", violations=wrong)
            )
        found = await self._find(command_id, caller)
        if found is None and caller.is_peer:
            is_expected = command_id in self._dispatcher.expected
            say = whereabouts.expected if is_expected else whereabouts.unknown
            raise errors.OpenlineError(say(began_us=self._peers.began_us))
        if found is not None:
            return found
        if made_at(command_id) < time.time() - self._store.results.ttl_s - CLOCK_SLACK_S:
            raise errors.OpenlineError(errors.error(Reason.RESULT_EXPIRED, "the result of this command has expired"))
        raise errors.OpenlineError(errors.error(Reason.COMMAND_UNKNOWN, "no such command"))

    @contextlib.contextmanager
    def watch(self, source: Source, *, from_seq: int) -> Iterator[AsyncIterable[command_pb2.CommandEvent]]:
        """The events of a command, from an output seq on; read at the watcher's own pace until the block is left.

        Of one that this replica holds as they happen, of a stored one as they were.
        """
        match source:
            case Command():
                with self._dispatcher.audience.watch(source, from_seq=from_seq) as events:
                    yield events
            case Found():
                yield self._peers.watch(source.replica_id, source.record.command_id, from_seq=from_seq)
            case _:
                yield Replay(source, from_seq=from_seq)

    async def cancel(self, command_id: str, caller: Caller, *, why: str) -> command_service_pb2.CancelCommandResponse:
        """Asks for the command to be stopped; says the state it was in. Raises as `find` does."""
        found = await self.find(command_id, caller)
        why = errors.short(why) or "cancelled by the caller"
        match found:
            case Command():
                state = record(found).state
                self._dispatcher.cancel(found, why=why)
                asked: Ask | command_pb2.Command = found.ask
            case Found():
                asked = found.record
                try:
                    state = await self._peers.cancel(found.replica_id, command_id, why=why)
                except BaseException:
                    self._tell_of_cancel(caller, asked, command_id, f"{why} (broken off: may have been done)")
                    raise
            case _:
                state = found.state
                asked = found
        # Another replica has told of it already.
        if state != command_pb2.COMMAND_STATE_DONE:
            self._tell_of_cancel(caller, asked, command_id, why)
        return command_service_pb2.CancelCommandResponse(state=state, correlation_id=asked.correlation_id)

    def _tell_of_cancel(self, caller: Caller, asked: Ask | command_pb2.Command, command_id: str, why: str) -> None:
        if not caller.is_peer:
            self._audit.acted(
                "cancel",
                caller,
                cluster_id=asked.cluster_id,
                session_id=asked.session_id,
                correlation_id=asked.correlation_id,
                command_id=command_id,
                detail=f"asked by {asked.owner}: {why}",
            )

    async def get(self, command_id: str, caller: Caller, *, wait_s: float) -> command_pb2.Command:
        """The command as it is when it has ended, or when the time is up. Raises as `find` does."""
        found = await self.find(command_id, caller)
        match found:
            case Command():
                if wait_s > 0:
                    await self._until_done(found, wait_s)
                return record(found)
            case Found() if wait_s > 0:
                request = command_service_pb2.GetCommandRequest(command_id=command_id, wait_s=wait_s)
                return await self._peers.get(found.replica_id, request, timeout_s=wait_s + ANSWER_S)
            case Found():
                return found.record
            case _:
                return found

    async def _find(self, command_id: str, caller: Caller) -> Source | None:
        here = self._here(command_id, caller)
        if here is not None and (here.state is not State.FORWARDED or here.result is not None):
            return here
        failure: errors.OpenlineError | None = None
        if here is None:
            try:
                stored = await self._store.results.get(command_id)
                if stored is not None and may_see(caller, stored):
                    return stored
            except errors.OpenlineError as unavailable:
                failure = unavailable
        if not caller.is_peer:
            # Also of one that this replica has forwarded: the one that runs it knows its output.
            elsewhere = await self._peers.find(command_id, wanted=partial(may_see, caller))
            if isinstance(elsewhere, Found):
                return elsewhere
        # Its record may have been written while the store was asked, and taken off the ledger before.
        here = self._here(command_id, caller)
        if here is not None and caller.is_peer and here.state is State.FORWARDED and here.result is None:
            raise errors.OpenlineError(whereabouts.elsewhere(here, began_us=self._peers.began_us))
        if here is not None:
            return here
        if failure is not None:
            raise failure
        return None

    def _here(self, command_id: str, caller: Caller) -> Command | None:
        here = self._dispatcher.find(command_id)
        return here if here is not None and may_see(caller, here.ask) else None

    async def _until_done(self, command: Command, timeout_s: float) -> None:
        over = asyncio.Event()

        def done(_command: Command) -> None:
            over.set()

        audience = self._dispatcher.audience
        audience.attach(command, done)
        try:
            async with asyncio.timeout(timeout_s):
                await over.wait()
        except TimeoutError:
            return
        finally:
            audience.leave(command, done)


def may_see(caller: Caller, command: Ask | command_pb2.Command) -> bool:
    """Whether the command exists for the caller."""
    return caller.sees(command.cluster_id) and (command.owner == caller.owner or "admin" in caller.scopes)
