"""One process, from its start to its end, on both event loops: uvloop's, which the program uses, and asyncio's."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from executor.actions import Ended, NotStarted
from executor.kubectl import Kubectl
from executor.runner import LINGERING_S, Run
from openline import limits
from tests.programs import until

Script = Callable[[str], Path]
OnLoop = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def on_loop(request: pytest.FixtureRequest) -> OnLoop:
    def run(scenario: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(scenario)

    return run


@pytest.fixture
def sh(tmp_path: Path) -> Kubectl:
    """A shell in the place of kubectl: argv is ["-c", script]."""
    return Kubectl(path=Path("/bin/sh"), home=tmp_path)


async def run(
    kubectl: Kubectl, *argv: str, max_bytes: int = 1 << 20, kill_when: Awaitable[object] | None = None
) -> Ended:
    process = Run(kubectl, argv, max_bytes=max_bytes)

    async def kill(when: Awaitable[object]) -> None:
        await when
        process.kill()

    async with asyncio.timeout(100), asyncio.TaskGroup() as tasks:
        if kill_when is not None:
            tasks.create_task(kill(kill_when))
        end = await process.run()
    assert isinstance(end, Ended)
    return end


async def written(path: Path) -> None:
    """Waits until a script has come so far that it has written something there."""
    await until(lambda: path.exists() and path.stat().st_size)


def gone(pid: int) -> bool:
    """Whether a process is gone or a zombie, soon: between KILL and that, the kernel has something to do."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.fixture(autouse=True)
def leaves_no_child() -> Iterator[None]:
    """Nothing that a test here started is left; what other tests keep running is not ours."""
    before = children()
    yield
    assert children() <= before


def test_output_exit_code_and_times(on_loop: OnLoop, sh: Kubectl) -> None:
    end = on_loop(run(sh, "-c", "echo out; echo err >&2; exit 7"))
    assert (end.exit_code, end.stdout.data, end.stderr.data) == (7, b"out\n", b"err\n")
    assert 0 < end.run_s < 10
    assert abs(end.finished_at - time.time()) < 10


def test_a_process_killed_by_a_signal_has_a_shells_exit_code(on_loop: OnLoop, sh: Kubectl) -> None:
    assert on_loop(run(sh, "-c", "kill -SEGV $$")).exit_code == 128 + signal.SIGSEGV


def test_stdin_is_closed_and_the_process_leads_its_group(on_loop: OnLoop, sh: Kubectl) -> None:
    end = on_loop(run(sh, "-c", 'cat; cut -d" " -f1,5,6 /proc/$$/stat; ls /proc/$$/fd'))
    ids, *opened = end.stdout.data.decode().split("\n")
    assert len(set(ids.split())) == 1  # its pid is its group's and its session's
    assert set("".join(opened)) <= set("0123")  # nothing of this process is open in it


def test_the_environment_is_only_what_kubectl_needs(
    on_loop: OnLoop, sh: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable of the executor's own reaches kubectl, but the in-cluster ones do."""
    monkeypatch.setenv("OPENLINE_TOKEN", "hush")
    monkeypatch.setenv("HTTPS_PROXY", "http://evil")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    kubectl = Kubectl(path=sh.path, home=sh.home, kubeconfig=tmp_path / "config")
    end = on_loop(run(kubectl, "-c", "/usr/bin/env"))
    environment = dict(line.split("=", 1) for line in end.stdout.data.decode().splitlines())
    assert environment["HOME"] == str(tmp_path)
    assert environment["KUBECONFIG"] == str(tmp_path / "config")
    assert environment["KUBECTL_KUBERC"] == "false"
    assert environment["KUBERNETES_SERVICE_HOST"] == "10.0.0.1"
    assert not {"OPENLINE_TOKEN", "HTTPS_PROXY"} & environment.keys()


def test_a_process_that_ignores_term_is_killed_with_its_grandchildren(
    on_loop: OnLoop, sh: Kubectl, tmp_path: Path
) -> None:
    """TERM, a moment, KILL: the group is gone, and the output so far is there."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM; echo so far; (trap '' TERM; sleep 60) & echo $$ $! >{pids}; while :; do sleep 1; done"
    end = on_loop(run(sh, "-c", script, kill_when=written(pids)))
    assert (end.exit_code, end.stdout.data) == (128 + signal.SIGKILL, b"so far\n")
    assert end.run_s >= limits.KILL_AFTER_S * 0.9
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_a_process_that_heeds_term_may_finish_its_output(
    on_loop: OnLoop, sh: Kubectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KILL_AFTER_S", 20.0)
    script = f"trap 'echo last words; exit 9' TERM; echo >{tmp_path}/trap; while :; do sleep 0.02; done"
    end = on_loop(run(sh, "-c", script, kill_when=written(tmp_path / "trap")))
    assert (end.exit_code, end.stdout.data) == (9, b"last words\n")


def test_what_a_process_leaves_behind_does_not_hold_up_its_end(on_loop: OnLoop, sh: Kubectl, tmp_path: Path) -> None:
    """A grandchild that keeps the output open is waited for a moment, then killed."""
    pid = tmp_path / "pid"
    began = time.monotonic()
    end = on_loop(run(sh, "-c", f"sleep 60 & echo $! >{pid}; echo done"))
    assert (end.exit_code, end.stdout.data) == (0, b"done\n")
    assert LINGERING_S * 0.9 < time.monotonic() - began < 30
    assert gone(int(pid.read_text()))


def test_what_has_left_the_group_cannot_hold_up_the_end_either(on_loop: OnLoop, sh: Kubectl, tmp_path: Path) -> None:
    """It escapes the kill, but the pipes are closed all the same."""
    pid = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ >{pid}; exec sleep 30' & until [ -s {pid} ]; do sleep 0.02; done; echo done"
    end = on_loop(run(sh, "-c", script))
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert end.stdout.data == b"done\n"


def test_a_flood_is_cut_and_counted(on_loop: OnLoop, sh: Kubectl) -> None:
    """256 MiB through a cap of 64 KiB: exact counts, both ends."""
    end = on_loop(run(sh, "-c", "echo first; yes 0123456 | head -c 268435456; echo last", max_bytes=64 << 10))
    assert end.stdout.total_bytes == 268435456 + 6 + 5
    assert end.stdout.total_lines == 268435456 // 8 + 2
    assert end.stdout.cut_bytes == end.stdout.total_bytes - (64 << 10)
    assert end.stdout.data.startswith(b"first\n0123456\n")
    assert end.stdout.data.endswith(b"0123456\nlast\n")


def test_a_flood_leaves_turns_for_others(on_loop: OnLoop, sh: Kubectl, tmp_path: Path) -> None:
    """While one process floods, another one on the same loop comes and goes."""
    floods = tmp_path / "floods"

    async def both() -> None:
        overtaken = asyncio.Event()
        script = f"yes | head -c 10000000; echo >{floods}; exec yes"
        flood = asyncio.create_task(run(sh, "-c", script, kill_when=overtaken.wait()))
        await written(floods)
        await run(sh, "-c", "echo quick")
        assert not flood.done()
        overtaken.set()
        await flood

    on_loop(both())


@pytest.mark.parametrize("path", ["/nowhere/kubectl", "/etc/passwd"])
def test_a_program_that_cannot_be_started(on_loop: OnLoop, tmp_path: Path, path: str) -> None:
    """Vanished, or not executable: NotStarted, and no descriptor is left open."""

    async def attempt() -> NotStarted | Ended:
        before = descriptors()
        end = await Run(Kubectl(path=Path(path), home=tmp_path), ["get"], max_bytes=10).run()
        assert descriptors() <= before  # of other tests, some may close meanwhile
        return end

    assert isinstance(on_loop(attempt()), NotStarted)


def test_no_room_for_another_process(on_loop: OnLoop, sh: Kubectl, monkeypatch: pytest.MonkeyPatch) -> None:
    """EAGAIN from the kernel is an answer, not a crash."""

    def refuse(*_args: object, **_options: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    async def attempt() -> NotStarted | Ended:
        return await Run(sh, ["-c", "exit"], max_bytes=10).run()

    monkeypatch.setattr("executor.kubectl.subprocess.Popen", refuse)
    assert on_loop(attempt()) == NotStarted("Resource temporarily unavailable")


def test_what_is_killed_first_never_starts(on_loop: OnLoop, sh: Kubectl, tmp_path: Path) -> None:
    async def attempt() -> NotStarted | Ended:
        process = Run(sh, ["-c", f"touch {tmp_path}/ran"], max_bytes=10)
        process.kill()
        process.kill()
        return await process.run()

    assert isinstance(on_loop(attempt()), NotStarted)
    assert not (tmp_path / "ran").exists()


def test_a_cancelled_run_leaves_nothing(on_loop: OnLoop, sh: Kubectl) -> None:
    """The task is cancelled: the group is killed and reaped before the cancellation goes on."""

    async def attempt() -> None:
        task = asyncio.create_task(run(sh, "-c", "sleep 60 & sleep 60"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    on_loop(attempt())


def test_many_runs_leave_no_descriptor_and_no_process(on_loop: OnLoop, sh: Kubectl) -> None:
    async def many() -> tuple[int, int]:
        await run(sh, "-c", "exit")
        before = descriptors()
        for _ in range(5):
            await asyncio.gather(*(run(sh, "-c", "echo x", kill_when=asyncio.sleep(0.001 * n)) for n in range(8)))
        return before, descriptors()

    before, after = on_loop(many())
    assert after <= before


def test_the_real_kubectl_runs(on_loop: OnLoop, tmp_path: Path) -> None:
    """kubectl of the test environment tells its version, without a home of its own."""
    kubectl = Kubectl(path=Path(sys.executable).with_name("kubectl"), home=tmp_path)
    end = on_loop(run(kubectl, "version", "--client"))
    assert end.exit_code == 0
    assert end.stdout.data.startswith(b"Client Version: v1.")
