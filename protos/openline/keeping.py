"""Keeps a pipe to one replica open: opens it, and again whenever it has ended or the replica asks to be left.

A pipe that is being left is carried to its end beside the next one: its calls may take longer than a restart does.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog
from structlog.typing import FilteringBoundLogger

from openline.errors import OpenlineError
from openline.limits import RECONNECT_MIN_S
from openline.pipe import Pipe

# Callers of pipes are few, so there is no storm to spread out as there is with executors.
RECONNECT_MAX_S = 2.0
# A pipe that lived so long was healthy: the next wait starts small again.
HEALTHY_AFTER_S = 10.0
# A replica that asks to be left is left alone for so long at least, and no longer than this, whatever it says.
MIN_RECONNECT_AFTER_S = 1.0
MAX_RECONNECT_AFTER_S = 60.0


class Keeper:
    """The pipe to one replica, which `run` keeps open in a task of its owner; `opened` is called whenever one opens."""

    def __init__(
        self,
        address: str,
        open_pipe: Callable[[], Awaitable[Pipe]],
        opened: Callable[[], None],
        *,
        log: FilteringBoundLogger | None = None,
    ) -> None:
        self._log: FilteringBoundLogger = log or structlog.get_logger()
        self._address = address
        self._open_pipe = open_pipe
        self._opened = opened
        # The last one that was opened, until it has ended.
        self.pipe: Pipe | None = None

    async def run(self) -> None:
        """Opens the pipe, waits until it takes no more calls, then with full jitter, and again; until cancelled."""
        bound_s = RECONNECT_MIN_S
        async with asyncio.TaskGroup() as carried:
            while True:
                wait_s = 0.0
                try:
                    pipe = await self._open_pipe()
                except OpenlineError as failure:
                    # The first time it is news; the same every second is not.
                    say = self._log.warning if bound_s == RECONNECT_MIN_S else self._log.debug
                    say("pipe.refused", broker=self._address, why=failure.error.message)
                else:
                    opened_at = monotonic()
                    carried.create_task(self._carry(pipe), name=f"pipe {self._address}")
                    await pipe.left.wait()
                    if pipe.reconnect_after_s is not None:
                        wait_s = min(max(pipe.reconnect_after_s, MIN_RECONNECT_AFTER_S), MAX_RECONNECT_AFTER_S)
                    if monotonic() - opened_at > HEALTHY_AFTER_S:
                        bound_s = RECONNECT_MIN_S
                await asyncio.sleep(wait_s + random.uniform(0, bound_s))  # noqa: S311  (jitter)
                bound_s = min(RECONNECT_MAX_S, 2 * bound_s)

    async def _carry(self, pipe: Pipe) -> None:
        """Offers an open pipe to callers until it ends."""
        self._log.info("pipe.opened", broker=self._address, replica_id=pipe.replica_id, protocol=pipe.agreed.version)
        why = "the broker ended it"
        self.pipe = pipe
        self._opened()
        try:
            await pipe.run()
        except OpenlineError as broken:
            why = broken.error.message
        finally:
            if self.pipe is pipe:
                self.pipe = None
        self._log.info(
            "pipe.closed",
            broker=self._address,
            replica_id=pipe.replica_id,
            why=why,
            ignored_frames=pipe.ignored_frames,
        )
