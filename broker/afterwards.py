"""What is done with a command that has ended once its caller is answered: it is stored, listed and audited.

Not before the answers are on their way: whatever ends in one turn of the loop is put away in the next one.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from broker.audit import Audit
from broker.core.command import Command
from broker.records import outline, record
from broker.store.store import Store

log = structlog.get_logger()


class Afterwards:
    """`settled` is called with each command and whether the store has its result."""

    def __init__(self, store: Store, audit: Audit, settled: Callable[[Command, bool], None]) -> None:
        self._store = store
        self._audit = audit
        self._settled = settled
        # Results that were never stored, since the start.
        self.lost = 0
        self._loop = asyncio.get_running_loop()
        self._ended: list[Command] = []

    def __repr__(self) -> str:
        return f"<Afterwards ended={len(self._ended)}>"

    def add(self, command: Command) -> None:
        """The command has its result, and whoever waited for it was told."""
        if not self._ended:
            self._loop.call_soon(self._put_away)
        self._ended.append(command)

    def _put_away(self) -> None:
        ended, self._ended = self._ended, []
        for command in ended:
            try:
                self._keep(command)
            except Exception:
                # Its executor keeps the result, and the others' are not its business.
                log.exception("result.not_kept", **command.ask.names)

    def _keep(self, command: Command) -> None:
        done = record(command)
        if command.has_anothers_id:
            self._settled(command, False)
        elif not self._store.results.put(done, partial(self._answered, command)):
            self._lose(command, "too much waits for Redis")
        shown = outline(done)
        if not command.has_anothers_id:
            self._store.history.ended(shown)
        self._audit.command(shown, traceparent=command.ask.traceparent)

    def _answered(self, command: Command, has_it: bool) -> None:
        """Redis has the result, or has refused it for good."""
        if has_it:
            self._settled(command, True)
        else:
            self._lose(command, "Redis refused it")

    def _lose(self, command: Command, why: str) -> None:
        self.lost += 1
        log.error("result.dropped", **command.ask.names, why=why)
        self._settled(command, False)
