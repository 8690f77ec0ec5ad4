"""A replica that is asked to stop, or to be without executors: they move to the others; what runs is seen to its end.

Executors take what they run along: the replica that they come to takes it over, and this one follows it there for the
callers that wait here. With no other replica that takes executors there is nowhere to go: then what runs is finished
first.
"""

import asyncio
import random
from collections.abc import Sequence
from time import monotonic

import structlog

from broker.core.connections import Connection
from broker.core.patterns import NO_CLUSTER
from broker.replica import Replica
from broker.rpc import everywhere
from broker.rpc.executors import ExecutorService
from broker.rpc.pipe import Pipes
from openline.errors import OpenlineError, error
from openline.reasons import NO, Reason

# Kubernetes gives a pod 30 s between TERM and KILL; the rest of the stop takes its part of them.
DRAIN_S = 20.0
# All executors at once would come to the others as a storm; each of them is on its way for some milliseconds only.
SPREAD_S = 5.0
PER_EXECUTOR_S = 0.005
# Somebody who has nowhere else to go dials this replica's successor until it is there.
CALLERS_RECONNECT_AFTER_S = 0.5
CALLERS_LEAVE_S = 2.0
LOOK_AGAIN_S = 0.02
# Another replica says within milliseconds whether it takes executors; one that is frozen takes none.
ANSWER_S = 1.0

REASON = "the replica is stopping"

log = structlog.get_logger()


class Draining:
    """Of one replica. Nothing but a restart undoes it, once executors were told to move."""

    def __init__(self, replica: Replica, executors: ExecutorService) -> None:
        self._replica = replica
        self._executors = executors
        # Tells executors to move on somebody's request, while the replica goes on to serve callers.
        self._moving: asyncio.Task[None] | None = None
        # Executors are told to move, or were.
        self._is_for_good = False

    async def begin(self, reason: str, *, spread_s: float) -> int:
        """Takes no executors from now on, and tells those that are here to move, over this time; how many are told.

        Asked again, it begins anew with those that were not told yet. Raises BROKER_UNAVAILABLE without another
        replica that takes executors: they would have nowhere to go.
        """
        # Before the others are asked: of two that begin at one time, each finds the other one, and neither goes on.
        self._refuse_new()
        try:
            has_another = await self._has_another()
        except BaseException:
            self._undo()
            raise
        if not has_another:
            self._undo()
            alone = "no other replica is there to take the executors"
            raise OpenlineError(error(Reason.BROKER_UNAVAILABLE, alone, executed=NO, retry_after_s=5.0))
        self._is_for_good = True
        connections = [connection for connection in self._refuse_new() if not connection.moving]
        if self._moving is not None:
            self._moving.cancel()
        pause_s = spread_s / max(1, len(connections))
        self._moving = asyncio.create_task(self._move(connections, reason=reason, pause_s=pause_s), name="drain")
        log.info("replica.draining", executors=len(connections), reason=reason, spread_s=spread_s)
        return len(connections)

    async def finish(self, pipes: Pipes) -> None:
        """The replica is stopping: returns when nothing is left to do here, at the latest after 20 s."""
        self._is_for_good = True
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.gather(self._moving, return_exceptions=True)
        replica, until = self._replica, monotonic() + DRAIN_S
        connections = self._refuse_new()
        log.info(
            "replica.draining", executors=len(connections), commands=len(replica.ledger.commands), pipes=len(pipes)
        )
        pipes.go_away(REASON, reconnect_after_s=CALLERS_RECONNECT_AFTER_S)
        is_alone = not await self._has_another()
        pause_s = min(PER_EXECUTOR_S, SPREAD_S / max(1, len(connections)))
        await self._move(connections, reason=REASON, pause_s=pause_s, drain_s=DRAIN_S / 2 if is_alone else 0.0)
        while self._is_busy() and monotonic() < until:
            for connection in connections:
                # One that has nothing left here need not be waited for.
                if not connection.commands:
                    replica.dispatcher.streams.let_go(connection)
            await asyncio.sleep(LOOK_AGAIN_S)
        # A request may have been on its way when its caller was told; then it leaves by itself.
        until = min(until, monotonic() + CALLERS_LEAVE_S)
        while len(pipes) and monotonic() < until:
            await asyncio.sleep(LOOK_AGAIN_S)
        log.info("replica.drained", executors=len(replica.ledger.connections), commands=len(replica.ledger.commands))

    def _refuse_new(self) -> list[Connection]:
        """Those that are here, in no order."""
        self._executors.is_draining = True
        self._replica.presence.is_draining = True
        connections = list(self._replica.ledger.connections)
        random.shuffle(connections)
        return connections

    def _undo(self) -> None:
        """Takes executors again, as nobody else does; unless some were told to move already."""
        if not self._is_for_good:
            self._executors.is_draining = False
            self._replica.presence.is_draining = False

    async def _has_another(self) -> bool:
        """Whether a replica answers, now, that takes executors."""
        heard = {each.replica_id: each.draining for each in self._replica.hearing.replicas}
        # An overview of nothing says what the replica is, and nothing that executors or callers have a part in.
        told = await everywhere.overviews(self._replica.peers, NO_CLUSTER, timeout_s=ANSWER_S)
        for replica_id, failure in told.failed.items():
            # One that does not know of overviews yet has answered as well.
            if failure is Reason.NOT_BUILT and not heard.get(replica_id, True):
                return True
        parts = [part for answer in told.answers.values() for part in answer.overview.replicas]
        return any(not part.replica.draining for part in parts)

    async def _move(
        self, connections: Sequence[Connection], *, reason: str, pause_s: float, drain_s: float = 0.0
    ) -> None:
        for connection in connections:
            self._replica.dispatcher.move(connection, reason=reason, drain_s=drain_s)
            await asyncio.sleep(pause_s)

    def _is_busy(self) -> bool:
        """Whether waiting is of use: executors are still here, or what they took along is followed to its end."""
        ledger, peers = self._replica.ledger, self._replica.peers
        return len(ledger.connections) > 0 or (len(ledger.commands) > 0 and bool(peers.reachable))
