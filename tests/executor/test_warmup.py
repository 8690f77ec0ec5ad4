"""Warming up kubectl's cache."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from executor.kubectl import Kubectl
from executor.warmup import NICENESS, Warmup
from tests import programs


@pytest.fixture(autouse=True)
def fresh_logs() -> None:
    """Lines can be captured, whatever other tests have set up."""
    structlog.reset_defaults()


async def warmed(warmup: Warmup, until: Callable[[], bool], *, wants: int = 3) -> None:
    """Runs it, wanted a few times at once, until something holds."""
    task = asyncio.create_task(warmup.run())
    for _ in range(wants):
        warmup.want()
    await programs.until(until)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def test_discovery_runs_once_however_often_it_is_wanted(
    stub_kubectl: Callable[[str], Path], tmp_path: Path
) -> None:
    """Politely: it gives way to commands."""
    until_nice = f"until [ $(nice) -ge {NICENESS} ]; do sleep 0.02; done"
    kubectl = Kubectl(path=stub_kubectl(f"{until_nice}; echo $* >>$LOG"), home=tmp_path)
    await warmed(Warmup(kubectl), lambda: bool(lines(tmp_path / "log")))
    await asyncio.sleep(0.3)
    (line,) = lines(tmp_path / "log")
    assert line.startswith("api-resources --cached=false")


async def test_it_runs_again_after_a_while(stub_kubectl: Callable[[str], Path], tmp_path: Path) -> None:
    kubectl = Kubectl(path=stub_kubectl("echo ran >>$LOG"), home=tmp_path)
    warmup = Warmup(kubectl, every_s=0.05)

    def twice() -> bool:
        warmup.want()
        return len(lines(tmp_path / "log")) >= 2

    await warmed(warmup, twice)


async def test_stopping_kills_it(stub_kubectl: Callable[[str], Path], tmp_path: Path) -> None:
    kubectl = Kubectl(path=stub_kubectl("echo $$ >>$LOG; trap '' TERM; while :; do sleep 1; done"), home=tmp_path)
    await warmed(Warmup(kubectl), lambda: bool(lines(tmp_path / "log")))
    (pid,) = lines(tmp_path / "log")
    assert not Path("/proc", pid).exists()  # noqa: ASYNC240


async def test_a_kubectl_that_fails_or_is_gone_is_only_logged(tmp_path: Path) -> None:
    for path in ("/bin/false", "/nowhere/kubectl"):
        warmup = Warmup(Kubectl(path=Path(path), home=tmp_path), every_s=0.0)
        with capture_logs() as logged:
            await warmed(warmup, lambda: bool(logged))
        assert logged[0]["event"] in ("discovery.finished", "discovery.failed")
