"""What a flood from one command costs the others: latency of a second command and memory of the executor.

A script, not a test, since its figures depend on the machine: `python tests/executor/flood.py [--mebibytes 1024]`. It
starts a real executor, with a shell script in the place of kubectl, against a broker of its own that does nothing but
read and give credit, and prints the same figures without a flood, beside a flood that is cut, and beside a live one.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc
import uvloop

from openline import ids, limits
from openline.channels import SERVER_OPTIONS
from openline.stream import FrameStream
from openline.v1 import executor_service_pb2 as wire
from openline.v1.executor_service_pb2_grpc import ExecutorServiceServicer, add_ExecutorServiceServicer_to_server

PROGRAM = str(Path(sys.executable).with_name("openline-executor"))
KUBECTL = """#!/bin/sh
case "$1" in
  version) echo '{"clientVersion":{"gitVersion":"v1.99.0"}}' ;;
  logs) exec head -c "$2" /dev/zero ;;
  *) echo quick ;;
esac
"""


class Broker(ExecutorServiceServicer):
    """Takes one executor, reads what it sends and gives credit for it at once."""

    def __init__(self) -> None:
        self.welcomed = asyncio.Event()
        self.over: dict[str, asyncio.Future[wire.Finished]] = {}
        self.output_bytes: dict[str, int] = {}

    async def Connect(self, _: object, context: grpc.aio.ServicerContext) -> None:  # noqa: N802
        self.stream: FrameStream[wire.ExecutorFrame, wire.BrokerFrame] = FrameStream(
            read=context.read,
            write=context.write,
            pack=lambda frames: wire.ConnectResponse(frames=frames),
            unpack=lambda message: message.frames,
        )
        await self.stream.receive()
        self.stream.send(wire.BrokerFrame(welcome=wire.Welcome(protocol_version=limits.PROTOCOL_VERSION)))
        self.welcomed.set()
        await self.stream.run(self._received, silence_s=60.0)

    def _received(self, frames: list[wire.ExecutorFrame]) -> None:
        taken: dict[str, int] = {}
        for frame in frames:
            match frame.WhichOneof("frame"):
                case "output":
                    command_id, size = frame.output.command_id, len(frame.output.data)
                    taken[command_id] = taken.get(command_id, 0) + size
                case "finished":
                    self.over.pop(frame.finished.command_id).set_result(frame.finished)
                    ack = wire.ResultAck(command_id=frame.finished.command_id)
                    self.stream.send(wire.BrokerFrame(result_ack=ack))
        for command_id, size in taken.items():
            self.output_bytes[command_id] = self.output_bytes.get(command_id, 0) + size
            self.stream.send(wire.BrokerFrame(credit=wire.Credit(command_id=command_id, bytes=size)))
            self.stream.send(wire.BrokerFrame(credit=wire.Credit(bytes=size)))

    def execute(self, *argv: str, live: bool = False) -> "asyncio.Future[wire.Finished]":
        command_id = ids.new_id()
        done = self.over[command_id] = asyncio.get_running_loop().create_future()
        execute = wire.Execute(command_id=command_id, argv=argv, timeout_s=600.0, live=live)
        self.stream.send(wire.BrokerFrame(execute=execute))
        return done


def memory_mib(pid: int) -> tuple[float, float]:
    """What the process occupies now, and the most it ever did."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024, int(status["VmHWM"].split()[0]) / 1024


Latency = tuple[float, float]


async def latencies_ms(broker: Broker, until: "asyncio.Future[wire.Finished] | None", count: int) -> list[Latency]:
    """Runs quick commands one after the other, `count` of them or until something is done.

    Of each, the time until its Finished, and what of that is ours: without the time that the process itself ran, which
    grows when the machine has no core free for it.
    """
    taken = []
    while len(taken) < count if until is None else not until.done():
        began = time.perf_counter()
        finished = await broker.execute("get", "pods")
        took_s = time.perf_counter() - began
        taken.append((took_s * 1000, (took_s - finished.timings.run_s) * 1000))
    return taken


def told(name: str, taken: list[Latency], more: str = "") -> str:
    figures = []
    for part, values in zip(("all", "ours"), zip(*taken, strict=True), strict=True):
        ordered = sorted(values)
        p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        figures.append(f"{part}: p50 {statistics.median(ordered):5.2f} p99 {p99:6.2f} ms")
    return f"{name:<12} n={len(taken):<5} {'   '.join(figures)}   {more}"


def stub(directory: str) -> Path:
    kubectl = Path(directory, "kubectl")
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    return kubectl


async def main(mebibytes: int) -> None:
    broker = Broker()
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_ExecutorServiceServicer_to_server(broker, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with tempfile.TemporaryDirectory() as directory:
        kubectl = stub(directory)
        flags = ("--cluster-id", "flood", "--token", "t", "--log-level", "error", "--kubectl", str(kubectl))
        executor = await asyncio.create_subprocess_exec(PROGRAM, "--broker", f"127.0.0.1:{port}", *flags)
        try:
            await broker.welcomed.wait()
            await latencies_ms(broker, None, 50)
            before, _ = memory_mib(executor.pid)
            print(told("quiet", await latencies_ms(broker, None, 500)), flush=True)  # noqa: T201
            for name, live in (("flood, cut", False), ("flood, live", True)):
                began = time.perf_counter()
                flood = broker.execute("logs", str(mebibytes << 20), live=live)
                taken = await latencies_ms(broker, flood, 0)
                took_s = time.perf_counter() - began
                _, peak = memory_mib(executor.pid)
                said = (await flood).stdout_summary.total_bytes >> 20
                print(told(name, taken, f"{said} MiB in {took_s:.1f} s, memory +{peak - before:.1f} MiB"), flush=True)  # noqa: T201
        finally:
            with contextlib.suppress(ProcessLookupError):
                executor.terminate()
            await executor.wait()
            await server.stop(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=1024)
    uvloop.run(main(parser.parse_args().mebibytes))
