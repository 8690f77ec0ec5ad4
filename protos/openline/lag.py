"""How much too late the event loop wakes: whatever holds it up holds up every command."""

import asyncio
from time import monotonic

from openline.tally import Histogram

LOOK_EVERY_S = 0.5


async def measure_lag(lag: Histogram) -> None:
    """Observes until it is cancelled."""
    while True:
        due = monotonic() + LOOK_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)
        lag.observe(max(0.0, monotonic() - due))
