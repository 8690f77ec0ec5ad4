"""Ends what our processes have left behind: what a kubectl started in a session of its own escapes the group's kill.

The kernel gives such processes to the nearest ancestor that asked for them, or to process 1, which in a container is
the executor anyway; whoever gets them must reap them as well. Nothing that kubectl starts is meant to outlive it.
"""

import asyncio
import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# From KILL to the end, which may also make orphans of others. Not by SIGCHLD, which uvloop keeps for itself.
ROUND_S = 0.05
LAST_ROUNDS = 10

log = structlog.get_logger()


class Orphans:
    """Our children that we did not start. An async context manager: as long as it lasts, orphans are given to us.

    For a process whose other children are all known here.
    """

    def __init__(self) -> None:
        self._spared: set[int] = set()
        # Orphans are given to a process's main thread.
        self._children = Path(f"/proc/self/task/{os.getpid()}/children")
        self._expected = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            log.warning("orphans.not_adopted", why=os.strerror(ctypes.get_errno()))
        self._ending = asyncio.create_task(self._end_all(), name="orphans")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends those that are left, within bounds."""
        if self._ending is not None:
            self._ending.cancel()
            with suppress(asyncio.CancelledError):
                await self._ending
        for _ in range(LAST_ROUNDS):
            if not self._end():
                break
            await asyncio.sleep(ROUND_S)

    def spare(self, pid: int) -> None:
        """This child has an owner, and with it whatever is in its group; the owner reaps it."""
        self._spared.add(pid)

    def forget(self, pid: int) -> None:
        """The child has been reaped: what it left behind is ended, soon."""
        self._spared.discard(pid)
        self._expected.set()

    async def _end_all(self) -> None:
        while True:
            await self._expected.wait()
            self._expected.clear()
            while self._end():
                await asyncio.sleep(ROUND_S)

    def _end(self) -> int:
        """Kills and reaps what has no owner; how many there were, whose children may be ours now.

        A child keeps its number until it is reaped, so that no stranger is hit.
        """
        try:
            pids = [int(pid) for pid in self._children.read_text().split()]
        except OSError:
            return 0  # a kernel without this file: process 1 reaps them
        found = 0
        for pid in pids:
            if pid in self._spared:
                continue
            with suppress(ChildProcessError, ProcessLookupError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    if os.getpgid(pid) in self._spared:
                        continue
                    os.kill(pid, signal.SIGKILL)
                    log.warning("orphan.killed", pid=pid)
                found += 1
        return found
