"""The kill switch: every command of a session, an owner, a cluster or a conversation is cancelled, on all replicas.

Nothing is forbidden by it: a command that is asked for a moment later runs. Who is to ask no more loses the key first.
"""

import asyncio
from dataclasses import dataclass

import structlog

from broker.core.whose import Whose
from broker.dispatcher import Dispatcher
from broker.rpc.everywhere import cancel_all
from broker.rpc.peers import Peers
from broker.waiting import Waiting

# Between two turns of the loop: so many frames are written, and results made, in a few milliseconds.
AT_A_TIME = 500

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Killed:
    """What has come of it."""

    command_ids: frozenset[str]
    # Replicas that may have some left.
    unreached: tuple[str, ...]

    def told(self, whose: Whose, why: str) -> str:
        """For the audit trail."""
        without = f", without {' '.join(self.unreached)}" if self.unreached else ""
        return f"{whose}: {len(self.command_ids)} commands{without}: {why}"


class Killing:
    def __init__(self, dispatcher: Dispatcher, waiting: Waiting, peers: Peers) -> None:
        self._dispatcher = dispatcher
        self._waiting = waiting
        self._peers = peers

    async def everywhere(self, whose: Whose, *, why: str) -> Killed:
        """On this replica and on all others at the same time; each cancels what it has to do with.

        A command is known where it was asked for and where it runs, so it is met on one of the two wherever it is
        between them.
        """
        async with asyncio.TaskGroup() as tasks:
            told = tasks.create_task(cancel_all(self._peers, whose, why=why))
            here = await self.here(whose, why=why)
        elsewhere, unreached = told.result()
        return Killed(frozenset(here | elsewhere), tuple(sorted(unreached)))

    async def here(self, whose: Whose, *, why: str) -> set[str]:
        """What this replica has to do with; the ids of those that had not ended."""
        # In one step: nothing that waits for Redis can become a command in between.
        command_ids = self._waiting.cancel(whose, why=why)
        commands = self._dispatcher.of(whose)
        for number, command in enumerate(commands, start=1):
            # Before its end, which may follow at once.
            command.cancelled_with = whose.more_than(command.ask) or command.cancelled_with
            self._dispatcher.cancel(command, why=why)
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)
        command_ids.update(command.command_id for command in commands)
        log.info("killing.cancelled", whose=str(whose), commands=len(command_ids), why=why)
        return command_ids
