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
    had_children, had_descriptors = before
    # Of what other tests have, some may end meanwhile.
    assert children() <= had_children
    assert descriptors() <= had_descriptors
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
    async with asyncio.timeout(60):
        end = await Run(Kubectl(path=Path("/bin/sh"), home=tmp_path), ["-c", script], max_bytes=1 << 20).run()
    assert isinstance(end, Ended)
    assert (end.exit_code, end.stdout.data, end.stderr.data) == (exit_code, stdout, stderr)


# In a process of its own: what is adopted must be all that there is. It ends the script when that asks for it; another
# command goes on until what has escaped is gone.
ADOPTING = """
import asyncio, os, signal, sys, uvloop
from pathlib import Path
from types import SimpleNamespace
from executor import orphans
from executor.kubectl import Kubectl
from executor.orphans import Orphans
from executor.runner import Run

script, pid, kill, gone = sys.argv[1], *(Path(name) for name in sys.argv[2:])
OTHER = f"(for _ in $(seq 5000); do [ -e {gone} ] && break; sleep 0.02; done) & wait; echo unharmed"

async def until(holds):
    while not holds():
        await asyncio.sleep(0.02)

async def main():
    async with Orphans() as ending:
        kubectl = Kubectl(path=Path("/bin/sh"), home=Path("/"), orphans=ending)
        other = asyncio.create_task(Run(kubectl, ["-c", OTHER], max_bytes=100).run())
        run = Run(kubectl, ["-c", script], max_bytes=100)
        killer = asyncio.create_task(until(kill.exists))
        killer.add_done_callback(lambda _: run.kill())
        await run.run()
        killer.cancel()
        await until(lambda: not Path("/proc", pid.read_text().strip()).exists())
        gone.touch()
        print((await other).stdout.data.decode(), end="")
    print("children:", Path(f"/proc/self/task/{os.getpid()}/children").read_text())

if "sh_ends" in script:  # by itself, after our children were looked at and before it is asked for
    def waitpid(pid, options):
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return os.waitpid(pid, options)

    orphans.os = SimpleNamespace(**vars(os) | {"waitpid": waitpid})
uvloop.run(main())
"""


@pytest.mark.parametrize(
    "script",
    [
        "setsid sh -c 'echo $$ >{pid}; exec sleep 600' >/dev/null 2>&1 & {until_written}",
        "setsid sh -c 'echo $$ >{pid}; exec sleep 600' & {until_written}; echo >{kill}; sleep 600",
        "setsid sh -c 'setsid sh -c \"echo \\$\\$ >{pid}; exec sleep 600\" & exit' & {until_written}",
        "setsid sh -c 'sleep 600 & echo $! >{pid}; wait # sh_ends' >/dev/null 2>&1 & {until_written}",
    ],
    ids=["daemon", "holds the output and outlives a kill", "daemon twice", "ends by itself and leaves a child"],
)
def test_what_escapes_the_group_is_ended(tmp_path: Path, script: str) -> None:
    """A grandchild in a session of its own: the executor gets it, kills it and reaps it."""
    files = {name: tmp_path / name for name in ("pid", "kill", "gone")}
    pid = files["pid"]
    script = script.format(**files, until_written=f"until [ -s {pid} ]; do sleep 0.02; done")
    run = subprocess.run(
        [sys.executable, "-c", ADOPTING, script, *map(str, files.values())],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert run.returncode == 0, run.stderr
    assert "unharmed\n" in run.stdout
    assert run.stdout.splitlines()[-1] == "children: "
    assert not Path(f"/proc/{int(pid.read_text())}").exists()
