"""What a kubectl process is started with: limits, environment, files that are its own."""

import asyncio
import resource
import sys
from pathlib import Path

import pytest

from executor import kubectl as limits
from executor.actions import Ended, NotStarted
from executor.kubectl import Kubectl
from executor.runner import Run

REAL = Path(sys.executable).with_name("kubectl")
# The limits are set from outside, when the process runs already: this is set last.
CONFINED = f'until read score </proc/$$/oom_score_adj && [ "$score" = {limits.OOM_SCORE_ADJ} ]; do sleep 0.02; done'


async def run(kubectl: Kubectl, *argv: str) -> Ended:
    async with asyncio.timeout(20):
        end = await Run(kubectl, argv, max_bytes=1 << 20).run()
    assert isinstance(end, Ended)
    return end


@pytest.fixture
def sh(tmp_path: Path) -> Kubectl:
    return Kubectl(path=Path("/bin/sh"), home=tmp_path)


async def test_the_limits_are_those_of_the_table(sh: Kubectl) -> None:
    end = await run(sh, "-c", f"{CONFINED}; exec cat /proc/self/limits /proc/self/oom_score_adj")
    told = end.stdout.data.decode()
    rows = {line[:26].strip(): line[26:].split()[:2] for line in told.splitlines()}
    assert rows["Max core file size"] == ["0", "0"]
    assert rows["Max file size"] == [str(limits.LIMITS[resource.RLIMIT_FSIZE])] * 2
    assert rows["Max data size"] == [str(limits.LIMITS[resource.RLIMIT_DATA])] * 2
    assert rows["Max cpu time"] == [str(limits.LIMITS[resource.RLIMIT_CPU])] * 2
    assert rows["Max open files"] == [str(limits.LIMITS[resource.RLIMIT_NOFILE])] * 2
    assert told.endswith(f"{limits.OOM_SCORE_ADJ}\n")


async def test_the_executors_own_limits_stay() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE), resource.getrlimit(resource.RLIMIT_NOFILE)
    await run(Kubectl(path=Path("/bin/true"), home=Path("/")))
    assert (resource.getrlimit(resource.RLIMIT_FSIZE), resource.getrlimit(resource.RLIMIT_NOFILE)) == before


async def test_a_file_cannot_grow_without_end(sh: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limits.LIMITS, resource.RLIMIT_FSIZE, 4096)
    end = await run(sh, "-c", f"{CONFINED}; head -c 100000 /dev/zero >{tmp_path}/file")
    assert end.exit_code != 0
    assert (tmp_path / "file").stat().st_size == 4096


async def test_what_it_writes_is_for_this_user_only(sh: Kubectl, tmp_path: Path) -> None:
    await run(sh, "-c", f"echo x >{tmp_path}/file; mkdir {tmp_path}/directory")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "directory").stat().st_mode & 0o777 == 0o700


def test_there_is_no_search_path_unless_one_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/local/evil")
    assert "PATH" not in Kubectl(path=REAL, home=tmp_path).environment()
    assert Kubectl(path=REAL, home=tmp_path, plugin_path="/opt/plugins").environment()["PATH"] == "/opt/plugins"


async def test_the_real_kubectl_runs_within_the_limits(tmp_path: Path) -> None:
    end = await run(Kubectl(path=REAL, home=tmp_path), "version", "--client", "-o", "json")
    assert end.exit_code == 0, end.stderr.data


async def test_a_process_that_cannot_be_confined_is_not_left_running(
    sh: Kubectl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No limits, no process: it is killed and reaped, and the answer says why."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(limits.resource, "prlimit", refuse)
    end = await Run(sh, ["-c", f"sleep 5; touch {tmp_path}/ran"], max_bytes=10).run()
    assert end == NotStarted("Operation not permitted")
    assert not (tmp_path / "ran").exists()
