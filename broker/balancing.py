"""Evens out the executors over the replicas, a few at a time, while this one runs."""

import asyncio
import random

import structlog

from broker.core.balance import Balance
from broker.replica import Replica

REASON = "another replica has fewer executors"

log = structlog.get_logger()


async def balance_forever(replica: Replica, *, every_s: float) -> None:
    """Until it is cancelled by its owner."""
    balance = Balance()
    while True:
        # With jitter: two replicas that have too many should not think of it in the same moment.
        await asyncio.sleep(every_s * random.uniform(0.5, 1.5))  # noqa: S311  (jitter)
        elsewhere = [each.executors for each in replica.hearing.replicas if not each.draining]
        moving = balance.choose(list(replica.ledger.connections), elsewhere)
        for connection in moving:
            replica.dispatcher.move(connection, reason=REASON)
        if moving:
            log.info("replica.balanced", moving=len(moving), executors=len(replica.ledger.connections))
