"""Delivery, as the table of promises has it: a real broker, real executors, a line between them that is cut, a kubectl
that writes down every run.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from openline import ids
from openline.channels import CLIENT_OPTIONS
from openline.errors import OpenlineError, from_rpc_error
from openline.reasons import UNKNOWN, YES, Reason
from openline.v1 import cluster_service_pb2, command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from openline.v1.command_service_pb2_grpc import CommandServiceStub

PROGRAMS = Path(sys.executable).parent
KEY = (("x-api-key", "test-key"),)
GRACE_S = 6.0
PATIENCE_S = 30.0
CLUSTERS = [f"cluster-{number}" for number in range(12)]

# `get pods NAME -n WHAT`: writes NAME down, says that it has begun, and takes as long as WHAT says.
KUBECTL = """#!/bin/sh
[ "$1 $2" = "get pods" ] || { echo '{}'; exit 0; }
echo "$3" >> "%(here)s/runs"
echo "begun $3"
case "$5" in
    sleep-*) sleep "${5#sleep-}" ;;
    flood-*) head -c "${5#flood-}" /dev/zero ;;
    tree) sh -c 'sleep 300 & echo $! >> "%(here)s/pids"; wait' & echo $! $$ >> "%(here)s/pids"; wait ;;
esac
echo "done $3"
"""


async def until(holds: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """What `holds` gives, as soon as that is something."""
    async with asyncio.timeout(within_s):
        while not (held := holds()):
            await asyncio.sleep(0.02)
    return held


class Cut:
    """The line from an executor to the broker: carries bytes until it is cut, and for as long as it is not."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.cut = False
        self.breaks = 0
        self.address = ""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Cut"]:
        async with await asyncio.start_server(self._carry, "127.0.0.1", 0) as server:
            self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            try:
                yield self
            finally:
                self.break_all()
                await asyncio.gather(*self._pumps, return_exceptions=True)

    def break_all(self) -> None:
        """Every connection that there is breaks, and what is on its way is lost."""
        self.breaks += bool(self._open)
        for writer in self._open:
            writer.transport.abort()

    @contextlib.contextmanager
    def broken(self) -> Iterator[None]:
        """Meanwhile there is no connection, and none can be made."""
        self.cut = True
        self.break_all()
        try:
            yield
        finally:
            self.cut = False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            writer.transport.abort()
            return
        host, _, port = self._broker.rpartition(":")
        to_reader, to_writer = await asyncio.open_connection(host, int(port))
        self._open |= {writer, to_writer}
        for source, sink in ((reader, to_writer), (to_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while content := await source.read(1 << 16):
                sink.write(content)
                await sink.drain()
        except OSError:
            pass  # cut
        finally:
            sink.close()
            self._open.discard(sink)


class Cluster:
    """One cluster: its executor, started and killed by the test, its line to the broker, what its kubectl wrote."""

    def __init__(self, here: Path, cluster_id: str, line: Cut, channel: grpc.aio.Channel) -> None:
        self._here = here
        self._cluster_id = cluster_id
        self._commands = CommandServiceStub(channel)
        self._clusters = ClusterServiceStub(channel)
        self._executor: subprocess.Popen[bytes] | None = None
        self.line = line
        kubectl = here / "kubectl"
        kubectl.write_text(KUBECTL % {"here": here})
        kubectl.chmod(0o755)
        (here / "runs").touch()
        (here / "pids").touch()

    @property
    def runs(self) -> Counter[str]:
        """How often each command was run, by its name."""
        return Counter((self._here / "runs").read_text().split())

    @property
    def pids(self) -> list[int]:
        return [int(pid) for pid in (self._here / "pids").read_text().split()]

    async def start(self, *flags: str) -> None:
        """Starts an executor and waits until the broker knows it."""
        before = await self.executor()
        command = [
            str(PROGRAMS / "openline-executor"), "--broker", self.line.address, "--cluster-id", self._cluster_id,
            "--executor-id", "only", "--token", f"token-of-{self._cluster_id}",
            "--kubectl", str(self._here / "kubectl"),
            *flags,
        ]  # fmt: skip
        with (self._here / "executor.log").open("ab") as log:
            self._executor = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220
        async with asyncio.timeout(PATIENCE_S):
            while (now := await self.executor()) is None or now == before:
                await asyncio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        assert self._executor is not None
        self._executor.send_signal(number)

    def stop(self) -> None:
        """kill -9."""
        if self._executor is not None:
            self._executor.kill()
            self._executor.wait()

    async def executor(self) -> str | None:
        """The instance that is connected."""
        request = cluster_service_pb2.GetClusterRequest(cluster_id=self._cluster_id)
        cluster = (await self._clusters.GetCluster(request, metadata=KEY)).cluster
        return cluster.executors[0].instance_id if cluster.connected else None

    def request(self, name: str, what: str = "", **fields: Any) -> pb.ExecuteRequest:
        argv = ["get", "pods", name, *(["-n", what] if what else [])]
        usual: dict[str, Any] = {"cluster_id": self._cluster_id, "argv": argv, "timeout_s": 60}
        return pb.ExecuteRequest(**(usual | fields))

    def execute(self, name: str, what: str = "", **fields: Any) -> "asyncio.Task[pb.ExecuteResponse]":
        """Begins a command; its task raises OpenlineError for a status."""
        call = self._commands.Execute(self.request(name, what, **fields), metadata=KEY)

        async def answer() -> pb.ExecuteResponse:
            try:
                return await call
            except grpc.aio.AioRpcError as failure:
                raise from_rpc_error(failure) from failure
            finally:
                call.cancel()

        return asyncio.create_task(answer())

    async def until_it_runs(self, name: str) -> None:
        await until(lambda: self.runs[name])

    async def result(self, command_id: str) -> command_pb2.CommandResult:
        """The result under this id, as soon as there is one."""
        request = pb.GetCommandRequest(command_id=command_id, wait_s=PATIENCE_S)
        return (await self._commands.GetCommand(request, metadata=KEY)).command.result

    async def cancel(self, command_id: str) -> None:
        await self._commands.CancelCommand(pb.CancelCommandRequest(command_id=command_id), metadata=KEY)


@dataclass(frozen=True)
class Broker:
    address: str
    pid: int

    def memory_mib(self, what: str) -> float:
        """What it occupies now (VmRSS), the most it ever did (VmHWM)."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(status[what].split()[0]) / 1024


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for all tests, each of which has a cluster of its own."""
    log = tmp_path_factory.mktemp("broker") / "log"
    command = [
        str(PROGRAMS / "openline-broker"), "--listen", "127.0.0.1:0", "--log-format", "json",
        "--reconnect-grace", str(GRACE_S), "--api-keys", "test:test-key:execute+read",
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


_left = iter(CLUSTERS)


@pytest.fixture
async def cluster(broker: Broker, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster whose executor has not been started yet."""
    address = broker.address
    async with Cut(address).listening() as line, grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS) as channel:
        cluster = Cluster(tmp_path, next(_left), line, channel)
        yield cluster
        cluster.stop()


async def test_an_executor_process_dies_and_is_started_again(cluster: Cluster) -> None:
    """Its commands end lost as soon as its next instance says Hello, and are never sent twice."""
    await cluster.start()
    asked = [cluster.execute("one", "sleep-30"), cluster.execute("two", "sleep-30")]
    await cluster.until_it_runs("one")
    await cluster.until_it_runs("two")
    cluster.stop()
    await cluster.start()
    async with asyncio.timeout(1.5):
        ends = await asyncio.gather(*asked, return_exceptions=True)
    for lost in ends:
        assert isinstance(lost, OpenlineError)
        assert (lost.reason, lost.error.executed) == (Reason.EXECUTOR_LOST, UNKNOWN)
    assert (await cluster.execute("three")).result.stdout == b"begun three\ndone three\n"
    assert cluster.runs == {"one": 1, "two": 1, "three": 1}


async def test_an_executor_process_dies_and_is_not_started_again(cluster: Cluster) -> None:
    """Its commands end lost after the grace."""
    await cluster.start()
    asked = cluster.execute("one", "sleep-30")
    await cluster.until_it_runs("one")
    cluster.stop()
    killed_at = time.monotonic()
    with pytest.raises(OpenlineError) as lost:
        await asked
    assert (lost.value.reason, lost.value.error.executed) == (Reason.EXECUTOR_LOST, UNKNOWN)
    assert time.monotonic() - killed_at > GRACE_S - 1
    assert cluster.runs == {"one": 1}


async def test_an_executors_stream_breaks_while_a_command_runs(cluster: Cluster) -> None:
    """The command runs on; three seconds later the executor reconnects, and hands over the result."""
    await cluster.start()
    ends_away, ends_later = cluster.execute("away", "sleep-1"), cluster.execute("later", "sleep-4")
    await cluster.until_it_runs("away")
    await cluster.until_it_runs("later")
    with cluster.line.broken():
        await asyncio.sleep(3)
        assert not ends_away.done()
    assert (await ends_away).result.stdout == b"begun away\ndone away\n"
    assert (await ends_later).result.stdout == b"begun later\ndone later\n"
    assert cluster.runs == {"away": 1, "later": 1}


async def test_a_peer_freezes_without_closing_its_socket(cluster: Cluster) -> None:
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


async def test_the_same_idempotency_key_arrives_again(cluster: Cluster) -> None:
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


async def test_nothing_is_lost_and_nothing_runs_twice(cluster: Cluster) -> None:
    """A thousand commands while the connection is cut every 200 ms: a thousand results, each of one run."""
    await cluster.start("--max-concurrency", "32")
    names = iter([f"n{number}" for number in range(1000)])
    outputs: dict[str, bytes] = {}

    async def ask() -> None:
        # The cluster is away when it is cut; the command waits for it.
        for name in names:
            outputs[name] = (await cluster.execute(name, wait_for_cluster_s=60)).result.stdout

    async def keep_cutting() -> None:
        while True:
            await asyncio.sleep(0.2)
            cluster.line.break_all()

    cutting = asyncio.create_task(keep_cutting())
    async with asyncio.TaskGroup() as callers:
        for _ in range(200):
            callers.create_task(ask())
    cutting.cancel()
    assert cluster.line.breaks > 10
    assert len(outputs) == 1000
    assert all(output == f"begun {name}\ndone {name}\n".encode() for name, output in outputs.items())
    assert cluster.runs == dict.fromkeys(outputs, 1)


async def test_an_executor_floods_output(broker: Broker, cluster: Cluster) -> None:
    """The broker's memory stays bounded, other commands come and go, and the caller sees exactly how much was cut."""
    await cluster.start()
    size = 256 << 20
    await cluster.execute("warm", f"flood-{4 << 20}")
    before = broker.memory_mib("VmRSS")
    flood = cluster.execute("flood", f"flood-{size}")
    await cluster.until_it_runs("flood")
    others = 0
    while not flood.done():
        others += (await cluster.execute("other")).result.stdout == b"begun other\ndone other\n"
    result = (await flood).result
    assert others > 0
    said = len(b"begun flood\ndone flood\n")
    assert result.stdout_summary.total_bytes == size + said
    assert result.stdout_summary.cut_bytes == size + said - len(result.stdout)
    assert (result.stdout[:12], result.stdout[-11:]) == (b"begun flood\n", b"done flood\n")
    assert broker.memory_mib("VmHWM") - before < 32


async def test_the_caller_goes_away(cluster: Cluster) -> None:
    """The command runs on, and its result can be fetched by id; unless the caller asked that it be cancelled."""
    await cluster.start()
    stays, goes = ids.new_id(), ids.new_id()
    asked = [
        cluster.execute("stays", "sleep-1", command_id=stays),
        cluster.execute("goes", "sleep-30", command_id=goes, cancel_on_disconnect=True),
    ]
    await cluster.until_it_runs("stays")
    await cluster.until_it_runs("goes")
    for caller in asked:
        caller.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    stayed, gone = await cluster.result(stays), await cluster.result(goes)
    assert (stayed.outcome, stayed.stdout) == (command_pb2.OUTCOME_EXITED, b"begun stays\ndone stays\n")
    assert (gone.outcome, gone.stdout) == (command_pb2.OUTCOME_CANCELLED, b"begun goes\n")
    assert cluster.runs == {"stays": 1, "goes": 1}


async def test_someone_cancels(cluster: Cluster) -> None:
    """The process group in the cluster is killed, grandchildren included, and the caller gets the output so far."""
    await cluster.start()
    command_id = ids.new_id()
    asked = cluster.execute("one", "tree", command_id=command_id)
    await until(lambda: len(cluster.pids) == 3)
    await cluster.cancel(command_id)
    with pytest.raises(OpenlineError) as cancelled:
        await asked
    assert (cancelled.value.reason, cancelled.value.error.executed) == (Reason.CANCELLED, YES)
    assert (await cluster.result(command_id)).stdout == b"begun one\n"
    await until(lambda: not any(map(runs, cluster.pids)))


async def test_the_deadline_passes_with_the_output_so_far(cluster: Cluster) -> None:
    """The process group in the cluster is killed, grandchildren included, and the caller gets the output so far."""
    await cluster.start()
    asked_at = time.monotonic()
    with pytest.raises(OpenlineError) as late:
        await cluster.execute("one", "tree", timeout_s=1)
    assert time.monotonic() - asked_at < 10
    assert (late.value.reason, late.value.error.executed) == (Reason.COMMAND_TIMEOUT, YES)
    assert late.value.result is not None
    assert late.value.result.stdout == b"begun one\n"
    await until(lambda: not any(map(runs, cluster.pids)))


def runs(pid: int) -> bool:
    """Whether there is such a process and it is more than a zombie, which nobody here may be there to reap."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z" and os.path.exists(f"/proc/{pid}")
