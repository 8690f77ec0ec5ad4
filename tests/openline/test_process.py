"""What the programs ask of the kernel for themselves, seen from outside."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openline import process

SCRIPTS = Path(sys.executable).parent
# What each program needs to start, and what its log says then.
PROGRAMS = {
    "openline-broker": (["--listen", "127.0.0.1:0"], "broker.started"),
    "openline-gateway": (["--listen", "127.0.0.1:0", "--broker", "127.0.0.1:1"], "gateway.listening"),
    "openline-executor": (
        [
            "--broker",
            "127.0.0.1:1",
            "--cluster-id",
            "c",
            "--token",
            "the-token-of-c",
            "--kubectl",
            str(SCRIPTS / "kubectl"),
        ],
        "executor.started",
    ),
}


@pytest.fixture(params=PROGRAMS)
def pid(request: pytest.FixtureRequest) -> Iterator[int]:
    """Each program, started by somebody whose processes may dump as much as they like, and open few files."""
    arguments, started = PROGRAMS[request.param]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENLINE_")}
    script = 'ulimit -S -c "$(ulimit -H -c)"; ulimit -S -n 1000; exec "$0" "$@"'
    running = subprocess.Popen(
        ["/bin/sh", "-c", script, SCRIPTS / request.param, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert running.stderr is not None
    try:
        said = ""
        for line in running.stderr:
            said += line
            if started in line:
                break
        else:
            pytest.fail(said)
        yield running.pid
    finally:
        running.kill()
        running.communicate()


def limit(pid: int, name: str) -> list[str]:
    """The soft and the hard limit of a process."""
    [row] = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith(name)]
    return row.removeprefix(name).split()[:2]


def test_no_program_leaves_a_core(pid: int) -> None:
    """Nor does what it starts, such as the broker's Valkey, whatever was allowed to whoever has started it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in [pid, *map(int, children)]:
        assert limit(each, "Max core file size") == ["0", "0"]


def test_files_up_to_the_hard_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or up to a bound of ours, where nothing is a limit; a limit that is higher already stays."""
    limits = {}
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits[which])
    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    unlimited = resource.RLIM_INFINITY
    for given, taken, counted in (
        ((1024, 4096), (4096, 4096), 4096),
        ((1024, 1_000_000_000), (process.MAX_OPEN_FILES, 1_000_000_000), process.MAX_OPEN_FILES),
        ((1024, unlimited), (process.MAX_OPEN_FILES, unlimited), process.MAX_OPEN_FILES),
        ((100_000, 200_000), (100_000, 200_000), 100_000),
        ((unlimited, unlimited), (unlimited, unlimited), process.MAX_OPEN_FILES),
    ):
        limits[resource.RLIMIT_NOFILE] = given
        process.allow_open_files()
        assert limits[resource.RLIMIT_NOFILE] == taken
        assert process.open_files() == counted
