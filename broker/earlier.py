"""Commands that were asked for before: what an idempotency key or a command id stands for already."""

import asyncio
from dataclasses import replace
from functools import partial
from time import monotonic

from broker.core.command import Ask, Command
from broker.dispatcher import Dispatcher
from broker.execution import Execution
from broker.rpc.finding import Found
from broker.rpc.peers import Peers
from broker.store.claims import Claim, fingerprint
from broker.store.store import Store
from openline import errors
from openline.reasons import NO, Reason
from openline.v1 import command_pb2

# How long a second request with an idempotency key waits to find the command of the first; and of each that comes to
# have the key while it waits.
REPLAY_WAIT_S = 1.0
REPLAY_EVERY_S = 0.02


class Earlier:
    """Looks here, in the store and on the other replicas."""

    def __init__(self, dispatcher: Dispatcher, store: Store, peers: Peers) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._peers = peers

    async def by_key(self, ask: Ask, key: str, execution: Execution) -> Command | command_pb2.Command | None:
        """The command that an earlier request with this key made; None when the key is claimed for this one now.

        Raises IDEMPOTENCY_CONFLICT, CANCELLED when nobody waits any more, STORE_UNAVAILABLE, or what `dispatch` does.
        """
        claims = self._store.claims
        own = Claim(fingerprint(ask.cluster_id, ask.session_id, *ask.argv), ask.command_id)
        runs_s = ask.wait_for_cluster_s + ask.timeout_s
        until, before = 0.0, None
        while (held := await claims.claim(ask.owner, key, own, runs_s=runs_s)) is not None:
            if held.fingerprint != own.fingerprint:
                raise _conflict()
            if held != before:
                until, before = monotonic() + REPLAY_WAIT_S, held
            if held.command_id == ask.command_id and ask.attach:
                # This caller's own first try, on a replica that broke off: it is looked for like any other command.
                # That replica may find only now that it cannot go on, and must not free the key then.
                if not await claims.take_over(ask.owner, key, held, own):
                    continue
                execution.release = partial(claims.release, ask.owner, key, own)
                return None
            began = monotonic()  # a replica that is frozen may take all of the time
            found = await self._find(replace(ask, command_id=held.command_id))
            if execution.over:
                raise errors.OpenlineError(errors.error(Reason.CANCELLED, "nobody waits any more", executed=NO))
            if found is not None:
                return found
            if began > until:
                # Its replica may be gone, and its executor is not back yet.
                is_anothers = held.command_id != ask.command_id
                if not is_anothers and not await claims.take_over(ask.owner, key, held, own):
                    continue
                sought = replace(ask, command_id=held.command_id, attach=True, is_anothers=is_anothers)
                command = self._dispatcher.dispatch(sought)
                if not is_anothers:
                    execution.release = partial(claims.release, ask.owner, key, own)
                return command
            # The first one is between its claim and its dispatch, or was refused and is about to free the key.
            await asyncio.sleep(REPLAY_EVERY_S)
        execution.release = partial(claims.release, ask.owner, key, own)
        return None

    async def by_id(self, ask: Ask) -> command_pb2.Command | None:
        """The stored command, if this one's id is not new and it has a result: nothing runs twice.

        Raises INVALID_COMMAND when it is another command's; STORE_UNAVAILABLE, but not for what is looked for anyway.
        """
        if not ask.attach and not self._dispatcher.may_be_done(ask.command_id):
            return None
        try:
            stored = await self._store.results.get(ask.command_id)
        except errors.OpenlineError:
            if not ask.attach:
                raise
            return None
        if stored is not None and not ask.is_same(stored):
            wrong = [("command_id", "another command has it")]
            raise errors.OpenlineError(errors.error(Reason.INVALID_COMMAND, "command_id is in use", violations=wrong))
        return stored

    async def _find(self, ask: Ask) -> Command | command_pb2.Command | None:
        """The command that a key stands for. Raises IDEMPOTENCY_CONFLICT when it is not this caller's to have."""
        if (command := self._dispatcher.find(ask.command_id)) is not None:
            _check_same(ask, command.ask)
            return command
        if (stored := await self._store.results.get(ask.command_id)) is not None:
            _check_same(ask, stored)
            return stored
        found = await self._peers.find(ask.command_id)
        if isinstance(found, Found):
            _check_same(ask, found.record)
            return self._dispatcher.dispatch(ask, known_to=found.replica_id)
        return None


def _check_same(ask: Ask, earlier: Ask | command_pb2.Command) -> None:
    # The key stands for the same words, by their fingerprint; but its command may have been asked for with other
    # scopes, or under an id that is somebody else's.
    if not ask.is_same(earlier):
        raise _conflict()


def _conflict() -> errors.OpenlineError:
    message = "this idempotency key was used for another request"
    return errors.OpenlineError(errors.error(Reason.IDEMPOTENCY_CONFLICT, message))
