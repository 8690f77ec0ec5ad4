"""A process that can be killed, frozen, stopped and started again, with its log in a file; ended by its pid alone."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

# Kubernetes gives a pod so long between TERM and KILL.
STOP_S = 30.0


class Process:
    """One program of the installation, under the same name and the same flags each time."""

    def __init__(self, name: str, command: list[str], log: Path, *, ready: str) -> None:
        """`ready` is in the line of its log that says that it has started."""
        self.name = name
        self._ready = ready
        self._log_begins = 0
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        # What a fault is doing to it; only one at a time.
        self.is_busy = False
        # Beside those that were killed.
        self.bad_ends: list[str] = []
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        with self._log.open("ab") as out:
            self._log_begins = out.seek(0, 2)
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def until_ready(self) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(STOP_S):
            while self._ready not in self._log.read_bytes()[self._log_begins :].decode(errors="replace"):
                await asyncio.sleep(0.05)

    def check(self) -> None:
        """A process that nobody has killed runs."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self.bad_ends.append(f"{self.name} ended by itself with {code}")
            self._process = None

    async def kill(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            await asyncio.to_thread(process.wait)

    async def stop(self) -> None:
        """TERM: it must end with 0 within 30 s."""
        if self._process is None:
            return
        process, self._process = self._process, None
        began = time.monotonic()
        process.terminate()
        try:
            code = await asyncio.to_thread(process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self.bad_ends.append(f"{self.name} had not stopped after {STOP_S:g} s")
            process.kill()
            await asyncio.to_thread(process.wait)
        else:
            if code != 0:
                self.bad_ends.append(f"{self.name} stopped with {code} after {time.monotonic() - began:.1f} s")

    @contextlib.asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def open_files(self, *, without: int) -> int:
        """Sockets included, but for those to this port: a pool keeps as many open as were ever needed at once."""
        files = Path(f"/proc/{self.pid}/fd")
        links = []
        for file in files.iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.append(str(file.readlink()))
        rows = [line.split() for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]]
        left_out = {f"socket:[{row[9]}]" for row in rows if int(row[2].rpartition(":")[2], 16) == without}
        return sum(link not in left_out for link in links)

    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def complaints(self) -> list[str]:
        """Lines of its log that tell of a defect."""
        signs = ('"level":"error"', '"level":"critical"', "Traceback", "was never retrieved")
        return [line for line in self._log.read_text(errors="replace").splitlines() if any(s in line for s in signs)]
