"""The kubectl program: what a process of it is started with, and what it may use."""

import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from executor.orphans import Orphans
from openline import limits
from openline.tracing.traceparent import has_form

# Limits of a process and its children: a backstop, since deadlines are kept by killing. No RLIMIT_AS, because a Go
# program reserves far more addresses than it uses; no RLIMIT_NPROC, because it counts a user's processes.
LIMITS = {
    resource.RLIMIT_CORE: 0,  # a core would hold tokens
    resource.RLIMIT_CPU: int(limits.MAX_TIMEOUT_S),  # seconds, should the executor be gone
    resource.RLIMIT_DATA: 2 << 30,  # what a Go heap counts towards: kubectl needs 0.1 GiB, and ten times its output
    resource.RLIMIT_FSIZE: 64 << 20,  # the largest file of its discovery cache has a few MiB
    resource.RLIMIT_NOFILE: 1024,
}
UMASK = 0o077
# When memory runs out, the kernel ends a kubectl before the executor.
OOM_SCORE_ADJ = 1000
# From KILL to a zombie, for which the whole loop waits.
REAP_S = 0.2

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kubectl:
    """What every kubectl process is started with. Nothing is inherited but where the cluster's own API is."""

    path: Path
    home: Path  # private: kubectl keeps its discovery cache there
    kubeconfig: Path | None = None
    # Where credential plugins of the kubeconfig are found by name; plugins of kubectl cannot run, being no verbs.
    plugin_path: str = ""
    # Who ends what kubectl processes leave behind outside of their groups.
    orphans: Orphans | None = None

    def environment(self, traceparent: str = "") -> dict[str, str]:
        """No variable of ours but the trace: not a token, not a proxy, not a search path."""
        given: Mapping[str, str | None] = {
            "HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig) if self.kubeconfig else None,
            # Otherwise aliases and default flags could come from a file that no policy has seen.
            "KUBECTL_KUBERC": "false",
            "PATH": self.plugin_path or None,
            # What a broker sends is believed to be a traceparent only if it looks like one.
            "TRACEPARENT": traceparent if has_form(traceparent) else None,
            **{name: os.environ.get(name) for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")},
        }
        return {name: value for name, value in given.items() if value is not None}

    def start(self, argv: Sequence[str], *, niceness: int = 0, traceparent: str = "") -> subprocess.Popen[bytes]:
        """A process with these arguments and pipes for its output, at the head of its own session and group.

        Raises OSError if it cannot be had; then there is none.
        """
        process = subprocess.Popen(  # noqa: S603  (no shell)
            [str(self.path), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=self.environment(traceparent),
            cwd="/",
            start_new_session=True,
            umask=UMASK,
        )
        if self.orphans is not None:
            self.orphans.spare(process.pid)
        try:
            _confine(process.pid)
            if niceness:
                os.setpriority(os.PRIO_PGRP, process.pid, niceness)
        except OSError:
            with process:  # closes its pipes
                kill_group(process, signal.SIGKILL)
                self.reap(process)
            raise
        return process

    def reap(self, process: subprocess.Popen[bytes], names: Mapping[str, object] = {}) -> int:
        """The exit code as a shell says it: 128 + n for a process killed by signal n. `names` are for the log."""
        try:
            code = process.wait(timeout=REAP_S)  # a zombie already, unless KILL did not help
        except subprocess.TimeoutExpired:
            log.warning("process.unreaped", pid=process.pid, **names)
            return 128 + signal.SIGKILL
        if self.orphans is not None:
            self.orphans.forget(process.pid)
        return code if code >= 0 else 128 - code


def kill_group(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signals the group; its leader has not been reaped, so the number is still ours."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, how)


def _confine(pid: int) -> None:
    """Sets the limits from outside, which needs no code between fork and exec.

    The process runs by then, for a tenth of a millisecond: too short to open, write or use much, and what it has
    used counts.
    """
    for which, most in LIMITS.items():
        _, hard = resource.getrlimit(which)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.prlimit(pid, which, (bound, bound))
    with suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as score:  # not everywhere there is a /proc
        score.write(str(OOM_SCORE_ADJ))
