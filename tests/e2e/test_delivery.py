"""Delivery, as the table of promises has it: a real broker, real executors, a line between them that is cut, a kubectl
that writes down every run.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openline import ids
from openline.errors import OpenlineError
from openline.reasons import UNKNOWN, YES, Reason
from openline.v1 import command_pb2

PROGRAMS = Path(sys.executable).parent
# Longer than anything here takes, but for one test, which waits for its end.
GRACE_S, SHORT_GRACE_S = 30.0, 2.0
PATIENCE_S = 30.0
CLUSTERS = [f"cluster-{number}" for number in range(12)]


@dataclass(frozen=True)
class Broker:
    address: str
    pid: int

    def memory_mib(self, what: str) -> float:
        """What it occupies now (VmRSS), the most it ever did (VmHWM)."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(status[what].split()[0]) / 1024


@contextmanager
def running_broker(log: Path, *, grace_s: float) -> Iterator[Broker]:
    command = [
        str(PROGRAMS / "openline-broker"), "--listen", "127.0.0.1:0", "--log-format", "json",
        "--reconnect-grace", str(grace_s), "--api-keys", "test:test-key:execute+read",
        "--executor-tokens", ",".join(f"{cluster_id}:token-of-{cluster_id}" for cluster_id in CLUSTERS),
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (started := [line for line in log.read_text().splitlines() if "broker.started" in line]):
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield Broker(json.loads(started[0])["listen"], process.pid)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def broker(long_allowance: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the tests, each of which has a cluster of its own."""
    with running_broker(tmp_path_factory.mktemp("broker") / "log", grace_s=GRACE_S) as broker:
        yield broker


_left = iter(CLUSTERS)


@pytest.fixture
async def cluster(broker: Broker, open_cluster: Callable[..., Any]) -> AsyncIterator[Any]:
    """A cluster whose executor has not been started yet."""
    async with open_cluster(next(_left), broker.address) as cluster:
        yield cluster


async def test_an_executor_process_dies_and_is_started_again(cluster: Any) -> None:
    """Its commands end lost as soon as its next instance says Hello, and are never sent twice."""
    await cluster.start()
    asked = [cluster.execute("one", "sleep-30"), cluster.execute("two", "sleep-30")]
    await cluster.until_it_runs("one", "two")
    killed_at = time.monotonic()
    cluster.stop()
    await cluster.start()
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert time.monotonic() - killed_at < GRACE_S - 1
    for lost in ends:
        assert isinstance(lost, OpenlineError)
        assert (lost.reason, lost.error.executed) == (Reason.EXECUTOR_LOST, UNKNOWN)
    assert (await cluster.execute("three")).result.stdout == b"begun three\ndone three\n"
    assert cluster.runs == {"one": 1, "two": 1, "three": 1}


async def test_an_executor_process_dies_and_is_not_started_again(
    tmp_path: Path, open_cluster: Callable[..., Any]
) -> None:
    """Its commands end lost after the grace."""
    with running_broker(tmp_path / "log", grace_s=SHORT_GRACE_S) as broker:
        async with open_cluster(next(_left), broker.address) as cluster:
            await cluster.start()
            asked = cluster.execute("one", "sleep-30")
            await cluster.until_it_runs("one")
            killed_at = time.monotonic()
            cluster.stop()
            with pytest.raises(OpenlineError) as lost:
                await asked
            assert (lost.value.reason, lost.value.error.executed) == (Reason.EXECUTOR_LOST, UNKNOWN)
            assert time.monotonic() - killed_at > SHORT_GRACE_S - 0.1
            assert cluster.runs == {"one": 1}


async def test_an_executors_stream_breaks_while_a_command_runs(cluster: Any) -> None:
    """The command runs on; three seconds later the executor reconnects, and hands over the result."""
    await cluster.start()
    with ExitStack() as stack, cluster.held("later"):
        stack.enter_context(cluster.held("away"))
        ends_away, ends_later = cluster.execute("away"), cluster.execute("later")
        await cluster.until_it_runs("away", "later")
        with cluster.line.broken():
            stack.close()
            await asyncio.sleep(3)
            assert not ends_away.done()
        assert (await ends_away).result.stdout == b"begun away\ndone away\n"
    assert (await ends_later).result.stdout == b"begun later\ndone later\n"
    assert cluster.runs == {"away": 1, "later": 1}


async def test_a_peer_freezes_without_closing_its_socket(cluster: Any) -> None:
    """It is noticed within 30 s; when it goes on it reconnects, and hands over the result."""
    await cluster.start()
    asked = cluster.execute("one", "sleep-1")
    await cluster.until_it_runs("one")
    cluster.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            while await cluster.executor() is not None:
                await asyncio.sleep(0.1)
    finally:
        cluster.signal(signal.SIGCONT)
    assert (await asked).result.stdout == b"begun one\ndone one\n"
    assert cluster.runs == {"one": 1}


async def test_the_same_idempotency_key_arrives_again(cluster: Any) -> None:
    """Fifty times at once: one run, fifty equal answers."""
    await cluster.start()
    asked = [cluster.execute("one", "sleep-1", idempotency_key="the-same") for _ in range(50)]
    answers = await asyncio.gather(*asked)
    assert len({answer.result.SerializeToString(deterministic=True) for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    later = await cluster.execute("one", "sleep-1", idempotency_key="the-same")
    assert later.replayed
    assert later.result.stdout == answers[0].result.stdout == b"begun one\ndone one\n"
    assert cluster.runs == {"one": 1}


async def test_nothing_is_lost_and_nothing_runs_twice(cluster: Any) -> None:
    """A thousand commands while the connection is cut every 200 ms: a thousand results, each of one run."""
    await cluster.start("--max-concurrency", "32")
    outputs: dict[str, bytes] = {}

    def a_thousand_or_more() -> Iterator[str]:
        """A thousand, and more where they are done before the line was cut a dozen times."""
        for number in range(20_000):
            if number >= 1000 and cluster.line.breaks >= 12:
                return
            yield f"n{number}"

    names = a_thousand_or_more()

    async def ask() -> None:
        # The cluster is away when it is cut; the command waits for it.
        for name in names:
            outputs[name] = (await cluster.execute(name, wait_for_cluster_s=60)).result.stdout

    async def keep_cutting() -> None:
        while True:
            # On a busy machine it may take long to come back: something gets through between two cuts.
            before = len(outputs)
            while len(outputs) == before:
                await asyncio.sleep(0.2)
            cluster.line.break_all()

    cutting = asyncio.create_task(keep_cutting())
    async with asyncio.TaskGroup() as callers:
        for _ in range(200):
            callers.create_task(ask())
    cutting.cancel()
    assert cluster.line.breaks >= 12
    assert len(outputs) >= 1000
    assert all(output == f"begun {name}\ndone {name}\n".encode() for name, output in outputs.items())
    assert cluster.runs == dict.fromkeys(outputs, 1)


async def test_an_executor_floods_output(broker: Broker, cluster: Any) -> None:
    """The broker's memory stays bounded, other commands come and go, and the caller sees exactly how much was cut."""
    await cluster.start()
    size = 256 << 20
    await cluster.execute("warm", f"flood-{4 << 20}")
    before = broker.memory_mib("VmRSS")
    others_at: list[float] = []

    async def keep_asking() -> None:
        while True:
            assert (await cluster.execute("other")).result.stdout == b"begun other\ndone other\n"
            others_at.append(time.monotonic())

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(keep_asking())
        result = (await cluster.execute("flood", f"flood-{size}")).result
        began_at = time.monotonic() - result.timings.run_s
        asking.cancel()
    assert any(at > began_at for at in others_at)
    said = len(b"begun flood\ndone flood\n")
    assert result.stdout_summary.total_bytes == size + said
    assert result.stdout_summary.cut_bytes == size + said - len(result.stdout)
    assert (result.stdout[:12], result.stdout[-11:]) == (b"begun flood\n", b"done flood\n")
    assert broker.memory_mib("VmHWM") - before < 32


async def test_the_caller_goes_away(cluster: Any) -> None:
    """The command runs on, and its result can be fetched by id; unless the caller asked that it be cancelled."""
    await cluster.start()
    stays, goes = ids.new_id(), ids.new_id()
    asked = [
        cluster.execute("stays", "sleep-1", command_id=stays),
        cluster.execute("goes", "sleep-30", command_id=goes, cancel_on_disconnect=True),
    ]
    await cluster.until_it_runs("stays", "goes")
    for caller in asked:
        caller.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    stayed, gone = await cluster.result(stays), await cluster.result(goes)
    assert (stayed.outcome, stayed.stdout) == (command_pb2.OUTCOME_EXITED, b"begun stays\ndone stays\n")
    assert (gone.outcome, gone.stdout) == (command_pb2.OUTCOME_CANCELLED, b"begun goes\n")
    assert cluster.runs == {"stays": 1, "goes": 1}


async def test_someone_cancels(cluster: Any) -> None:
    """The process group in the cluster is killed, grandchildren included, and the caller gets the output so far."""
    await cluster.start()
    command_id = ids.new_id()
    asked = cluster.execute("one", "tree", command_id=command_id)
    await cluster.until(lambda: len(cluster.pids) == 3)
    await cluster.cancel(command_id)
    with pytest.raises(OpenlineError) as cancelled:
        await asked
    assert (cancelled.value.reason, cancelled.value.error.executed) == (Reason.CANCELLED, YES)
    assert (await cluster.result(command_id)).stdout == b"begun one\n"
    await cluster.until(lambda: not any(map(runs, cluster.pids)))


async def test_the_deadline_passes_with_the_output_so_far(cluster: Any) -> None:
    """The process group in the cluster is killed, grandchildren included, and the caller gets the output so far."""
    await cluster.start()
    with pytest.raises(OpenlineError) as late:
        await cluster.execute("one", "tree", timeout_s=3)
    assert (late.value.reason, late.value.error.executed) == (Reason.COMMAND_TIMEOUT, YES)
    assert late.value.result is not None
    assert late.value.result.stdout == b"begun one\n"
    await cluster.until(lambda: not any(map(runs, cluster.pids)))


def runs(pid: int) -> bool:
    """Whether there is such a process and it is more than a zombie, which nobody here may be there to reap."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z" and os.path.exists(f"/proc/{pid}")
