"""Fills kubectl's discovery cache when the cluster turns active, so that the commands that follow find it warm."""

import asyncio

import structlog

from executor.actions import Ended
from executor.kubectl import Kubectl
from executor.runner import Run

# Asks the API server for everything it has and writes that into the cache under HOME, where every kubectl looks.
DISCOVERY = ("api-resources", "--cached=false", "-o", "name")
# kubectl uses its cache for hours; but what is installed in a cluster changes.
EVERY_S = 600.0
TIMEOUT_S = 30.0
NICENESS = 10

log = structlog.get_logger()


class Warmup:
    """Runs discovery whenever `want` was called, one at a time and not more often than `every_s`."""

    def __init__(self, kubectl: Kubectl, *, every_s: float = EVERY_S) -> None:
        self._kubectl = kubectl
        self._every_s = every_s
        self._wanted = asyncio.Event()

    def want(self) -> None:
        """The cluster is active."""
        self._wanted.set()

    async def run(self) -> None:
        """Runs until it is cancelled by its owner, which also kills a discovery that runs."""
        while True:
            await self._wanted.wait()
            await self._discover()
            await asyncio.sleep(self._every_s)
            self._wanted.clear()

    async def _discover(self) -> None:
        """Not a command: it has no id, holds no place, and its output is of no interest."""
        run = Run(self._kubectl, DISCOVERY, max_bytes=0, niceness=NICENESS)
        timer = asyncio.get_running_loop().call_later(TIMEOUT_S, run.kill)
        try:
            end = await run.run()
        finally:
            timer.cancel()
        if isinstance(end, Ended):
            log.info("discovery.finished", exit_code=end.exit_code, ms=round(end.run_s * 1000))
        else:
            log.warning("discovery.failed", why=end.why)
