"""What a flood from one command costs the others: latency of a second command, memory of broker and executor.

A script, not a test, since its figures depend on the machine: `python tests/e2e/flood.py [--mebibytes 1024]`. It starts
a real broker and a real executor, with a shell script in the place of kubectl, and prints the same figures without a
flood, beside a flood that is cut, and beside one that is watched live.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import uvloop

from openline import ids
from openline.errors import OpenlineError
from openline.pipes import Pipes
from openline.settings import Address
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest
from openline.watching import execute_stream

PROGRAMS = Path(sys.executable).parent
ADDRESS = Address("127.0.0.1:50951")
KEY = "the-key-of-flood"
LONG_S = 600.0
KUBECTL = """#!/bin/sh
case "$1" in
  version) echo '{"clientVersion":{"gitVersion":"v1.99.0"}}' ;;
  logs) exec head -c "$2" /dev/zero ;;
  *) echo quick ;;
esac
"""


def request(*argv: str) -> ExecuteRequest:
    return ExecuteRequest(cluster_id="flood", argv=argv, timeout_s=LONG_S, command_id=ids.new_id())


async def cut_flood(pipes: Pipes, size: int) -> command_pb2.CommandResult:
    return (await pipes.execute(request("logs", str(size)), api_key=KEY, timeout_s=LONG_S)).result


async def live_flood(pipes: Pipes, size: int) -> command_pb2.CommandResult:
    result = command_pb2.CommandResult()
    asked = request("logs", str(size))
    async with aclosing(execute_stream(pipes, asked, api_key=KEY, timeout_s=LONG_S)) as events:
        async for event in events:
            if event.HasField("result"):
                result = event.result
    return result


Latency = tuple[float, float]


async def latencies_ms(pipes: Pipes, until: Callable[[int], bool]) -> list[Latency]:
    """Runs quick commands one after the other until it is enough.

    Of each, the time until its answer, and what of that is ours: without the time that the process itself ran, which
    grows when the machine has no core free for it.
    """
    taken: list[Latency] = []
    while not until(len(taken)):
        began = time.perf_counter()
        result = (await pipes.execute(request("get", "pods"), api_key=KEY, timeout_s=LONG_S)).result
        took_s = time.perf_counter() - began
        taken.append((took_s * 1000, (took_s - result.timings.run_s) * 1000))
    return taken


def told(name: str, taken: list[Latency], more: str = "") -> str:
    figures = []
    for part, values in zip(("all", "ours"), zip(*taken, strict=True), strict=True):
        ordered = sorted(values)
        p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        figures.append(f"{part}: p50 {statistics.median(ordered):5.2f} p99 {p99:6.2f} ms")
    return f"{name:<12} n={len(taken):<5} {'   '.join(figures)}   {more}"


class Memory:
    """What a process occupies now, and the most it did since."""

    def __init__(self, name: str, pid: int) -> None:
        self._name, self._pid = name, pid
        self._before_mib = self._read("VmRSS")

    def grown(self) -> str:
        return f"{self._name} +{self._read('VmHWM') - self._before_mib:.1f} MiB"

    def _read(self, field: str) -> float:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{self._pid}/status").read_text().splitlines())
        return int(status[field].split()[0]) / 1024


@asynccontextmanager
async def program(name: str, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(PROGRAMS / name, "--log-level", "error", *flags)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


async def until_answered(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await ask()
            except OpenlineError:
                await asyncio.sleep(0.1)
            else:
                return


def stub(directory: str) -> Path:
    kubectl = Path(directory, "kubectl")
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    return kubectl


async def main(mebibytes: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        keys = ("--api-keys", f"flood:{KEY}:execute+read", "--executor-tokens", "flood:the-token-of-flood")
        where = (
            "--cluster-id",
            "flood",
            "--token",
            "the-token-of-flood",
            "--kubectl",
            str(stub(directory)),
            "--broker",
            ADDRESS,
        )
        async with (
            program("openline-broker", "--listen", ADDRESS, *keys) as broker,
            program("openline-executor", *where) as executor,
            Pipes([ADDRESS], client="flood") as pipes,
        ):
            await until_answered(lambda: latencies_ms(pipes, lambda count: count >= 50))
            # What floods have put in motion once is there for good.
            await cut_flood(pipes, 1 << 20)
            print(told("quiet", await latencies_ms(pipes, lambda count: count >= 500)), flush=True)  # noqa: T201
            memories = [Memory("broker", broker.pid), Memory("executor", executor.pid)]
            for name, start in (("flood, cut", cut_flood), ("flood, live", live_flood)):
                began = time.perf_counter()
                flood = asyncio.create_task(start(pipes, mebibytes << 20))
                taken = await latencies_ms(pipes, lambda _, flood=flood: flood.done())
                took_s = time.perf_counter() - began
                said = (await flood).stdout_summary.total_bytes >> 20
                grown = ", ".join(memory.grown() for memory in memories)
                print(told(name, taken, f"{said} MiB in {took_s:.1f} s, {grown}"), flush=True)  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=1024)
    uvloop.run(main(parser.parse_args().mebibytes))
