"""A replica that is asked to stop: its executors and callers move to the others, and what runs is seen to its end.

Executors take what they run along: the replica that they come to takes it over, and this one follows it there for the
callers that wait here. With no other replica there is nowhere to go: then what runs is finished first.
"""

import asyncio
import random
from time import monotonic

import structlog

from broker.replica import Replica
from broker.rpc.pipe import Pipes

# Kubernetes gives a pod 30 s between TERM and KILL; the rest of the stop takes its part of them.
DRAIN_S = 20.0
# All executors at once would come to the others as a storm; each of them is on its way for some milliseconds only.
SPREAD_S = 5.0
PER_EXECUTOR_S = 0.005
# Somebody who has nowhere else to go dials this replica's successor until it is there.
CALLERS_RECONNECT_AFTER_S = 0.5
CALLERS_LEAVE_S = 2.0
LOOK_AGAIN_S = 0.02

REASON = "the replica is stopping"

log = structlog.get_logger()


def _is_busy(replica: Replica) -> bool:
    """Whether waiting is of use: executors are still here, or what they took along is followed to its end."""
    ledger = replica.ledger
    return len(ledger.connections) > 0 or (len(ledger.commands) > 0 and bool(replica.peers.reachable))


async def drain(replica: Replica, pipes: Pipes) -> None:
    """Returns when nothing is left to do here, at the latest after 20 s."""
    until = monotonic() + DRAIN_S
    connections = list(replica.ledger.connections)
    log.info("replica.draining", executors=len(connections), commands=len(replica.ledger.commands), pipes=len(pipes))
    is_alone = not replica.peers.reachable
    replica.presence.is_draining = True
    pipes.go_away(REASON, reconnect_after_s=CALLERS_RECONNECT_AFTER_S)
    random.shuffle(connections)
    pause_s = min(PER_EXECUTOR_S, SPREAD_S / max(1, len(connections)))
    for connection in connections:
        replica.dispatcher.move(connection, reason=REASON, drain_s=DRAIN_S / 2 if is_alone else 0.0)
        await asyncio.sleep(pause_s)
    while _is_busy(replica) and monotonic() < until:
        for connection in connections:
            # One that has nothing left here need not be waited for.
            if not connection.commands:
                replica.dispatcher.let_go(connection)
        await asyncio.sleep(LOOK_AGAIN_S)
    # A request may have been on its way when its caller was told; then it leaves by itself.
    until = min(until, monotonic() + CALLERS_LEAVE_S)
    while len(pipes) and monotonic() < until:
        await asyncio.sleep(LOOK_AGAIN_S)
    log.info("replica.drained", executors=len(replica.ledger.connections), commands=len(replica.ledger.commands))
