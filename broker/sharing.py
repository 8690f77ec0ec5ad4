"""What callers have used of their quotas, shared with the other replicas: behind the commands, never on their way."""

import asyncio
import time

import structlog

from broker.core.quotas import Quotas
from broker.store.quotas import QuotaRecords
from openline.ids import new_id

TELL_EVERY_S = 0.25
# While Redis is away this replica goes on with what it knows.
PAUSE_S = 2.0
# What goes to Redis in one round trip.
MAX_BATCH = 200

log = structlog.get_logger()


async def share_forever(quotas: Quotas, records: QuotaRecords) -> None:
    """Tells what has changed and hears what the others have, until it is cancelled; nothing is sent without changes."""
    counter_id = new_id()
    is_away = False
    while True:
        await asyncio.sleep(PAUSE_S if is_away else TELL_EVERY_S)
        telling = quotas.to_tell(at_most=MAX_BATCH, now=time.time())
        if not telling:
            continue
        said = [(usage, usage.says(time.time())) for usage in telling]
        others = await records.tell(counter_id, [(usage.owner, counts) for usage, counts in said])
        heard = [(usage, counts, told) for (usage, counts), told in zip(said, others, strict=True) if told is not None]
        quotas.heard(heard, now=time.time())
        if is_away != (not heard):
            is_away = not heard
            log.info("quotas.alone" if is_away else "quotas.shared")
