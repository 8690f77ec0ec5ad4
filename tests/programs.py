"""Programs as processes of their own, for tests that start, freeze, kill and stop them; and a kubectl that writes down
every run.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
# Kubernetes gives a pod so long between TERM and KILL.
STOP_S = 30.0

# `get pods NAME -n WHAT`, as the policy writes it anew: says that it has begun, writes NAME down, and takes as long as
# WHAT says, and as NAME is held. In this order, so that what is known to run has said so.
KUBECTL = """#!/bin/sh
[ "$1 $2" = "get pods" ] || { echo '{}'; exit 0; }
echo "begun $3"
echo "$3" >> "%(here)s/runs"
what="${4#--namespace=}"
case "$what" in
    sleep-*) sleep "${what#sleep-}" ;;
    tenths-*) sleep "0.${what#tenths-}" ;;
    flood-*) head -c "${what#flood-}" /dev/zero ;;
    ticks-*) for tick in $(seq "${what#ticks-}"); do sleep 0.1; echo "tick $tick"; done ;;
    fail-*) echo "failed $3" >&2; exit "${what#fail-}" ;;
    tree) sh -c 'sleep 300 & echo $! >> "%(here)s/pids"; wait' & echo $! $$ >> "%(here)s/pids"; wait ;;
esac
while [ -e "%(here)s/held-$3" ]; do sleep 0.05; done
echo "done $3"
"""


def kubectl_in(here: Path) -> Path:
    """It writes into `runs`, and the processes of `tree` into `pids`, which are both there."""
    kubectl = here / "kubectl"
    kubectl.write_text(KUBECTL % {"here": here})
    kubectl.chmod(0o755)
    (here / "runs").touch()
    (here / "pids").touch()
    return kubectl


@contextlib.contextmanager
def held(here: Path, *names: str) -> Iterator[None]:
    """Commands of these names, of the kubectl that is there, do not end before this does."""
    files = [here / f"held-{name}" for name in names]
    for file in files:
        file.touch()
    try:
        yield
    finally:
        for file in files:
            file.unlink()


async def until(holds: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """What `holds` gives, as soon as that is something."""
    async with asyncio.timeout(within_s):
        while not (held := holds()):
            await asyncio.sleep(0.02)
    return held


# The ports that a process has for its programs, and how many it has given out: in turns, since what was given out just
# now is free until the program runs.
ROOM = 100
_given = itertools.count()


def free_ports(count: int) -> list[int]:
    """Neighbours that nobody listens on, below those that connections are given: still free after a restart."""
    first = 20_000 + ROOM * (os.getpid() % 120)
    for _ in range(ROOM):
        ports = [first + next(_given) % ROOM for _ in range(count)]
        with ExitStack() as stack, contextlib.suppress(OSError):
            for port in ports:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            if ports[-1] - ports[0] == count - 1:
                return ports
    raise AssertionError("no free ports")


def free_port() -> int:
    [port] = free_ports(1)
    return port


class Program:
    """One process at a time, with the same flags each time; its log is a file, ended by its pid alone."""

    def __init__(
        self,
        name: str,
        log: Path,
        *command: str | Path,
        address: str = "",
        ready: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`ready` is in its log when it has started; without it, somebody listens at the address then."""
        self.name = name
        self.address = address
        self.log = log
        self._command = [str(part) for part in command]
        self._ready = ready
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        # Where in the log its last start is.
        self._begins = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def text(self) -> str:
        """What it has logged since it was started."""
        return self.log.read_bytes()[self._begins :].decode(errors="replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Those of this event; not the one that is being written."""
        written = self.text.rpartition("\n")[0]
        found = [json.loads(line) for line in written.splitlines() if f'"{event}"' in line]
        return [line for line in found if line["event"] == event]

    def said(self, event: str, **fields: Any) -> int:
        """How often it has logged this, with these fields among others."""
        return sum(fields.items() <= line.items() for line in self.lines(event))

    def complaints(self) -> list[str]:
        """Lines that tell of a defect."""
        signs = ('"level":"error"', '"level":"critical"', "Traceback", "was never retrieved")
        return [f"{self.name}: {line}" for line in self.text.splitlines() if any(sign in line for sign in signs)]

    def begin(self) -> Callable[[], bool]:
        """Starts it; gives what tells whether it has started."""
        with self.log.open("ab") as log:
            self._begins = log.seek(0, os.SEEK_END)
            process = self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

        def has_started() -> bool:
            assert process.poll() is None, self.text
            return self._ready in self.text if self._ready else _listens(self.address)

        return has_started

    async def start(self) -> None:
        await until(self.begin())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, if it was started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def ended(self) -> int:
        """The exit code, when it has ended."""
        process = self.process
        await until(lambda: process.poll() is not None)
        return process.returncode

    async def stop(self) -> None:
        """TERM, as Kubernetes does it: it ends by itself, in time and with 0."""
        self.signal(signal.SIGTERM)
        try:
            code = await asyncio.to_thread(self.process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} had not stopped after {STOP_S:g} s: {self.text}") from None
        assert code == 0, f"{self.name} stopped with {code}: {self.text}"

    def close(self) -> None:
        """Ends it, in whatever state it is."""
        if not self.runs:
            return
        self.process.terminate()
        self.signal(signal.SIGCONT)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False
