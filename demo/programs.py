"""The demo's programs as child processes: started, watched, and stopped for certain."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

STOP_TIMEOUT_S = 8.0
PR_SET_PDEATHSIG = 1


class StartFailed(Exception):
    """A program ended, or did not get ready, while the demo was starting."""


class Program:
    """A running program; its log is a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    def __repr__(self) -> str:
        return f"<Program {self.name} pid={self.process.pid} returncode={self.process.returncode}>"

    def check(self) -> None:
        """Raises StartFailed with the end of its log if it has ended."""
        if self.process.returncode is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines()
            raise StartFailed(f"{self.name} ended with code {self.process.returncode}: {lines[-1] if lines else ''}")


@contextlib.asynccontextmanager
async def program(
    name: str, *command: str | Path, logs: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """Runs a program until the block is left, then stops it: TERM, and KILL if that does not do."""
    log = logs / f"{name}.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Without the settings that the demo's own shell has for other openline programs.
            env={**_foreign(os.environ), **(environment or {})},
            # A Ctrl-C in the terminal is the demo's to pass on, in the right order.
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )
    try:
        yield Program(name, process, log)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # a person waits: what runs is given less time than by TERM
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
        await process.wait()


def _foreign(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("OPENLINE_")}


def _die_with_parent() -> Callable[[], object] | None:
    """What makes a child get TERM when the demo is killed with -9; on Linux only."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
