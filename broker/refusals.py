"""Callers and executors who show no good credential: counted, told of in the log, and answered late."""

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic

import structlog

from broker.core.suspicion import Kind, Suspicion

log = structlog.get_logger()


class Refusals:
    """Of one replica, whichever way they came."""

    def __init__(self) -> None:
        self._suspicion = Suspicion()

    def __repr__(self) -> str:
        return f"<Refusals {self._suspicion!r}>"

    @property
    def counts(self) -> Mapping[Kind, int]:
        """How many there were since the start."""
        return self._suspicion.refused

    def count(self, kind: Kind, *, peer: str) -> float:
        """A credential was refused; returns for how long the answer must be held back. `peer` is for the log."""
        now = monotonic()
        hold_s = self._suspicion.refuse(kind, now=now)
        if since := self._suspicion.tell(now=now):
            log.warning("credentials.refused", **{f"{each}s": count for each, count in since.items()}, last_from=peer)
        return hold_s

    def hold_back(self, answer: Callable[[], None], kind: Kind, *, peer: str) -> None:
        """As `count`, and calls `answer` when it may be given."""
        if hold_s := self.count(kind, peer=peer):
            asyncio.get_running_loop().call_later(hold_s, answer)
        else:
            answer()

    async def hold(self, kind: Kind, *, peer: str) -> None:
        """As `count`, and returns when the answer may be given."""
        await asyncio.sleep(self.count(kind, peer=peer))
