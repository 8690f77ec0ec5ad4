"""What many processes, and ill-behaved ones, leave behind: nothing. `make hygiene` runs ten thousand."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from executor.actions import Ended
from executor.kubectl import Kubectl
from executor.runner import Run

RUNS = int(os.environ.get("OPENLINE_HYGIENE_RUNS", "500"))
AT_A_TIME = 8


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.timeout(60 + RUNS // 20)
async def test_many_runs_leave_no_process_no_descriptor_and_no_file(tmp_path: Path) -> None:
    kubectl = Kubectl(path=Path("/bin/true"), home=tmp_path)
    left = RUNS

    async def run_in_turn() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            end = await Run(kubectl, ["get", "pods"], max_bytes=1 << 20).run()
            assert isinstance(end, Ended)
            assert end.exit_code == 0

    await Run(kubectl, [], max_bytes=1).run()
    before = children(), descriptors()
    async with asyncio.TaskGroup() as runs:
        for _ in range(AT_A_TIME):
            runs.create_task(run_in_turn())
    assert (children(), descriptors()) == before
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("script", "exit_code", "stdout", "stderr"),
    [
        ("exec >&-; sleep 0.2; echo late >&2; exit 3", 3, b"", b"late\n"),
        ("cat; echo lost >&0; echo done", 0, b"done\n", b""),
        ("head -c 300000 /dev/zero | tr '\\0' '\\n' >&2", 0, b"", b"\n" * 300_000),
        ("kill -KILL $$", 128 + signal.SIGKILL, b"", b""),
        ("kill -PIPE $$", 128 + signal.SIGPIPE, b"", b""),
    ],
    ids=["closes its output early", "writes to its stdin", "fills stderr only", "killed", "a signal Python ignores"],
)
async def test_ill_behaved(tmp_path: Path, script: str, exit_code: int, stdout: bytes, stderr: bytes) -> None:
    async with asyncio.timeout(10):
        end = await Run(Kubectl(path=Path("/bin/sh"), home=tmp_path), ["-c", script], max_bytes=1 << 20).run()
    assert isinstance(end, Ended)
    assert (end.exit_code, end.stdout.data, end.stderr.data) == (exit_code, stdout, stderr)


# In a process of its own: what is adopted must be all that there is.
ADOPTING = """
import asyncio, os, sys, uvloop
from pathlib import Path
from executor.kubectl import Kubectl
from executor.orphans import Orphans
from executor.runner import Run

async def main():
    async with Orphans() as orphans:
        kubectl = Kubectl(path=Path("/bin/sh"), home=Path("/"), orphans=orphans)
        other = asyncio.create_task(Run(kubectl, ["-c", "sleep 1 & wait; echo unharmed"], max_bytes=100).run())
        run = Run(kubectl, ["-c", sys.argv[1]], max_bytes=100)
        asyncio.get_running_loop().call_later(0.5, run.kill)
        await run.run()
        print((await other).stdout.data.decode(), end="")
    print("children:", Path(f"/proc/self/task/{os.getpid()}/children").read_text())

uvloop.run(main())
"""


@pytest.mark.parametrize(
    "script",
    [
        "setsid sh -c 'echo $$ >{pid}; exec sleep 60' >/dev/null 2>&1 & sleep 0.2",
        "setsid sh -c 'echo $$ >{pid}; exec sleep 60' & sleep 60",
        "setsid sh -c 'setsid sh -c \"echo \\$\\$ >{pid}; exec sleep 60\" & exit' & sleep 0.2",
    ],
    ids=["daemon", "holds the output and outlives a kill", "daemon twice"],
)
def test_what_escapes_the_group_is_ended(tmp_path: Path, script: str) -> None:
    """A grandchild in a session of its own: the executor gets it, kills it and reaps it."""
    pid = tmp_path / "pid"
    run = subprocess.run(
        [sys.executable, "-c", ADOPTING, script.format(pid=pid)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert run.returncode == 0, run.stderr
    assert "unharmed\n" in run.stdout
    assert run.stdout.splitlines()[-1] == "children: "
    assert not Path(f"/proc/{int(pid.read_text())}").exists()
