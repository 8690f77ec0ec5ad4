"""One kubectl process: started without a shell, read within bounds, killed as a group, always reaped.

It uses `subprocess.Popen` and a pidfd rather than the event loop's own subprocesses. Popen starts a process with vfork,
in 0.4 ms where uvloop's fork took 7 ms of the loop's time beside grpc's threads (grpcio 1.85, uvloop 0.23). And a pidfd
tells of the end before the process is reaped: as long as it is a zombie, the number of its group cannot be given to
anybody else, so that killing the group can never hit a stranger.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import IO

from executor.actions import Ended, NotStarted
from executor.kubectl import Kubectl, kill_group
from executor.masking.stream import MASK_ALL, Masked
from executor.report import STDERR, STDOUT, Source
from openline import limits
from openline.capture import Capture, share
from openline.policy import Masking

READ_BYTES = 64 << 10  # what a pipe holds on Linux
# When the process has ended but something it started still holds its output open.
LINGERING_S = 0.5
# At the end of a process: all that its pipe holds, and the pipe's end.
LAST_READS = 3
# From KILL to the end: the kernel's business, unless it hangs in a driver or on a dead network file system.
REAP_S = 2.0


class Run:
    """One process, from `run` to its end. `started` is called when it exists.

    `names` are for lines of the log that concern it. With `wrote`, its output goes there piece by piece and only counts
    are kept; without, `max_bytes` of it are kept.
    """

    def __init__(
        self,
        kubectl: Kubectl,
        argv: Sequence[str],
        *,
        max_bytes: int,
        masking: Masking = MASK_ALL,
        niceness: int = 0,
        names: Mapping[str, object] = {},
        traceparent: str = "",
        started: Callable[[], None] = lambda: None,
        wrote: Callable[[Source, bytes], None] | None = None,
    ) -> None:
        self._kubectl = kubectl
        self._argv = argv
        self._max_bytes = 0 if wrote else max_bytes
        self._niceness = niceness
        self.names = names
        self._traceparent = traceparent
        self.pid = 0  # until there is a process
        self._started = started
        self._wrote = wrote
        self._masked = {STDOUT: Masked(masking), STDERR: Masked(masking)}
        self._captured = {STDOUT: Capture(self._max_bytes), STDERR: Capture(self._max_bytes)}
        self._loop = asyncio.get_running_loop()
        self._killed = self._loop.create_future()
        self._exited = self._loop.create_future()  # it is a zombie; the result is when
        self._closed = self._loop.create_future()  # nothing holds its output open any more
        self._open: dict[IO[bytes], Source] = {}

    def hold(self) -> None:
        """Stops reading: as soon as the pipes are full, the process waits."""
        for pipe in self._open:
            self._loop.remove_reader(pipe.fileno())

    def resume(self) -> None:
        """Reads again."""
        for pipe in self._open:
            self._loop.add_reader(pipe.fileno(), self._readable, pipe)

    def kill(self) -> None:
        """Ends the process group, TERM first. At any time, also before `run`."""
        if not self._killed.done():
            self._killed.set_result(None)

    async def run(self) -> Ended | NotStarted:
        """Runs the process to its end. When it returns, nothing of it is left."""
        if self._killed.done():
            return NotStarted("it was stopped first")
        started_at = time.monotonic()  # not the loop's time, which uvloop counts in milliseconds
        try:
            # In the loop's own thread: vfork is faster than handing it to another one.
            process = self._kubectl.start(self._argv, niceness=self._niceness, traceparent=self._traceparent)
        except OSError as problem:
            return NotStarted(problem.strerror or str(problem))
        self.pid = process.pid
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError as problem:
            with process:  # closes its pipes
                kill_group(process, signal.SIGKILL)
                self._kubectl.reap(process, self.names)
            return NotStarted(f"pidfd_open: {problem.strerror}")
        try:
            self._loop.add_reader(pidfd, self._has_exited, pidfd)
            self._read(process.stdout, STDOUT)
            self._read(process.stderr, STDERR)
            self._started()
            await self._until_over(process)
        finally:
            # What is left of the group: something that has closed its output, or all of it when this task is cancelled.
            kill_group(process, signal.SIGKILL)
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
            self._read_last()
            for pipe in list(self._open):
                self._close(pipe)
            exit_code = self._kubectl.reap(process, self.names)
        stdout, stderr = share(self._captured[STDOUT], self._captured[STDERR], max_bytes=self._max_bytes)
        if self._wrote:  # all of it was passed on
            stdout, stderr = (replace(kept, cut_bytes=0, cut_lines=0) for kept in (stdout, stderr))
        ended_at = self._exited.result() if self._exited.done() else time.monotonic()
        return Ended(
            exit_code,
            stdout,
            stderr,
            run_s=ended_at - started_at,
            finished_at=time.time(),
            masked_values=sum(masked.masked_values for masked in self._masked.values()),
        )

    async def _until_over(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for the end, or brings it about; every wait but the first is bounded."""
        await asyncio.wait({self._exited, self._killed}, return_when=asyncio.FIRST_COMPLETED)
        if self._exited.done():
            self._read_last()
            await asyncio.wait({self._closed}, timeout=LINGERING_S)
        else:
            kill_group(process, signal.SIGTERM)
            self._read_last()
            await asyncio.wait({self._exited, self._closed}, timeout=limits.KILL_AFTER_S)
        if not (self._exited.done() and self._closed.done()):
            kill_group(process, signal.SIGKILL)
            await asyncio.wait({self._exited}, timeout=REAP_S)
            # Not forever: something that has left the group may hold it open.
            await asyncio.wait({self._closed}, timeout=0.1)

    def _has_exited(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        self._exited.set_result(time.monotonic())

    def _read(self, pipe: IO[bytes] | None, source: Source) -> None:
        assert pipe is not None  # noqa: S101  (Popen was asked for pipes)
        os.set_blocking(pipe.fileno(), False)
        self._open[pipe] = source
        self._loop.add_reader(pipe.fileno(), self._readable, pipe)

    def _readable(self, pipe: IO[bytes]) -> bool:
        """Takes one piece a turn of the loop, so that a flood leaves turns for others; whether there was one."""
        try:
            chunk = os.read(pipe.fileno(), READ_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._close(pipe)
            return False
        source = self._open[pipe]
        self._take(source, self._masked[source].feed(chunk))
        return True

    def _take(self, source: Source, text: bytes) -> None:
        """Keeps or passes on what may leave the cluster; nothing else stays in memory."""
        if text:
            self._captured[source].feed(text)
            if self._wrote:
                self._wrote(source, text)

    def _read_last(self) -> None:
        """Takes what is in the pipes of a process that has ended or been told to, also when it is held up."""
        for pipe in list(self._open):
            for _ in range(LAST_READS):
                if not self._readable(pipe):
                    break

    def _close(self, pipe: IO[bytes]) -> None:
        self._loop.remove_reader(pipe.fileno())
        pipe.close()
        source = self._open.pop(pipe)
        self._take(source, self._masked[source].finish())
        if not self._open and not self._closed.done():
            self._closed.set_result(None)
