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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import structlog

from executor.actions import Ended, NotStarted
from executor.report import STDERR, STDOUT, Source
from openline import limits
from openline.capture import Capture, share

READ_BYTES = 64 << 10  # what a pipe holds on Linux
# When the process has ended but something it started still holds its output open.
LINGERING_S = 0.5
# At the end of a process: all that its pipe holds, and the pipe's end.
LAST_READS = 3
# From KILL to the end: the kernel's business, unless it hangs in a driver or on a dead network file system.
REAP_S = 2.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kubectl:
    """What every kubectl process is started with."""

    path: Path
    home: Path  # private: kubectl keeps its discovery cache there
    kubeconfig: Path | None = None

    def environment(self) -> dict[str, str]:
        """Nothing is inherited but the search path (for credential plugins) and where the cluster's own API is."""
        given: Mapping[str, str | None] = {
            "HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig) if self.kubeconfig else None,
            # Otherwise aliases and default flags could come from a file that no policy has seen.
            "KUBECTL_KUBERC": "false",
            **{name: os.environ.get(name) for name in ("PATH", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")},
        }
        return {name: value for name, value in given.items() if value is not None}


class Run:
    """One process, from `run` to its end. `started` is called when it exists.

    With `wrote`, its output goes there piece by piece and only counts are kept; without, `max_bytes` of it are kept.
    """

    def __init__(
        self,
        kubectl: Kubectl,
        argv: Sequence[str],
        *,
        max_bytes: int,
        niceness: int = 0,
        started: Callable[[], None] = lambda: None,
        wrote: Callable[[Source, bytes], None] | None = None,
    ) -> None:
        self._kubectl = kubectl
        self._argv = argv
        self._max_bytes = 0 if wrote else max_bytes
        self._niceness = niceness
        self._started = started
        self._wrote = wrote
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
            process = subprocess.Popen(  # noqa: S603, ASYNC220  (no shell; vfork is faster than handing it to a thread)
                [str(self._kubectl.path), *self._argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=self._kubectl.environment(),
                cwd="/",
                start_new_session=True,
            )
        except OSError as problem:
            return NotStarted(problem.strerror or str(problem))
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError as problem:
            with process:  # closes its pipes and reaps it
                _kill_group(process, signal.SIGKILL)
            return NotStarted(f"pidfd_open: {problem.strerror}")
        try:
            self._loop.add_reader(pidfd, self._has_exited, pidfd)
            if self._niceness:
                os.setpriority(os.PRIO_PGRP, process.pid, self._niceness)
            self._read(process.stdout, STDOUT)
            self._read(process.stderr, STDERR)
            self._started()
            await self._until_over(process)
        finally:
            # What is left of the group: something that has closed its output, or all of it when this task is cancelled.
            _kill_group(process, signal.SIGKILL)
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
            self._read_last()
            for pipe in list(self._open):
                self._close(pipe)
            exit_code = _reap(process)
        stdout, stderr = share(self._captured[STDOUT], self._captured[STDERR], max_bytes=self._max_bytes)
        if self._wrote:  # all of it was passed on
            stdout, stderr = (replace(kept, cut_bytes=0, cut_lines=0) for kept in (stdout, stderr))
        ended_at = self._exited.result() if self._exited.done() else time.monotonic()
        return Ended(exit_code, stdout, stderr, run_s=ended_at - started_at, finished_at=time.time())

    async def _until_over(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for the end, or brings it about; every wait but the first is bounded."""
        await asyncio.wait({self._exited, self._killed}, return_when=asyncio.FIRST_COMPLETED)
        if self._exited.done():
            self._read_last()
            await asyncio.wait({self._closed}, timeout=LINGERING_S)
        else:
            _kill_group(process, signal.SIGTERM)
            self._read_last()
            await asyncio.wait({self._exited, self._closed}, timeout=limits.KILL_AFTER_S)
        if not (self._exited.done() and self._closed.done()):
            _kill_group(process, signal.SIGKILL)
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
        self._captured[source].feed(chunk)
        if self._wrote:
            self._wrote(source, chunk)
        return True

    def _read_last(self) -> None:
        """Takes what is in the pipes of a process that has ended or been told to, also when it is held up."""
        for pipe in list(self._open):
            for _ in range(LAST_READS):
                if not self._readable(pipe):
                    break

    def _close(self, pipe: IO[bytes]) -> None:
        self._loop.remove_reader(pipe.fileno())
        pipe.close()
        del self._open[pipe]
        if not self._open and not self._closed.done():
            self._closed.set_result(None)


def _kill_group(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signals the group; its leader has not been reaped, so the number is still ours."""
    try:
        os.killpg(process.pid, how)
    except ProcessLookupError:
        return


def _reap(process: subprocess.Popen[bytes]) -> int:
    """The exit code as a shell says it: 128 + n for a process killed by signal n."""
    try:
        code = process.wait(timeout=0.2)  # a zombie already, unless KILL did not help
    except subprocess.TimeoutExpired:
        log.warning("process.unreaped", pid=process.pid)
        return 128 + signal.SIGKILL
    return code if code >= 0 else 128 - code
