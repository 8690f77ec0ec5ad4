"""Simulated executors: the executor's real link to the broker, with commands that are answered at once, not run.

A process of its own: `python -m loadtest.answering --broker … --clusters …`, with the token in the environment. It
prints how many of them are connected, whenever that has changed.
"""

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop
from pydantic import Field, SecretStr

from executor.link import Link
from executor.pace import Pace
from executor.parties import Put
from executor.settings import ExecutorSettings
from loadtest.mix import OUTPUT_BYTES
from loadtest.settings import ClusterIds
from openline import ids, limits
from openline.logs import set_up_logs
from openline.settings import Addresses, CertificateFile, ProgramSettings, ReadableFile, load
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

PROGRAM = "openline-loadtest answering"
MAX_CONCURRENCY = 4096
# Begins the line that says how many are connected.
CONNECTED = b"connected "
REPORT_S = 0.05


class AnsweringSettings(ProgramSettings):
    """Simulated executors, each with a connection of its own."""

    broker: Addresses
    """The brokers to dial, HOST:PORT,…"""
    token: SecretStr
    """The token of every cluster."""
    clusters: ClusterIds
    """The clusters to be."""
    instances: int = Field(1, ge=1, le=10_000)
    """Executors in each cluster."""
    output_bytes: int = Field(256, ge=0, le=limits.MAX_FRAME_BYTES)
    """How much each command writes to stdout."""
    mixed: bool = False
    """Commands of `loadtest.mix` write as much as it says there."""
    between_starts: float = Field(0.0, ge=0, le=10)
    """How long one waits for the one before, seconds."""
    tls_ca: CertificateFile | None = None
    """As in the executor."""
    tls_cert: CertificateFile | None = None
    """As in the executor."""
    tls_key: ReadableFile | None = None
    """As in the executor."""


class Answering:
    """What a connection asks of an executor's commands: each is accepted, started and finished in one turn.

    A result that was lost with its connection is not said again: who measures a broken connection counts its callers.
    """

    idle = True
    load = (0, 0)

    def __init__(self, *, output_bytes: int, mixed: bool) -> None:
        self._output = b"x" * output_bytes
        self._outputs = {argv: b"x" * size for argv, size in OUTPUT_BYTES.items()} if mixed else {}
        self._put: Put | None = None
        self._last_epoch = 0

    def held(self) -> wire.Hello:
        return wire.Hello(last_epoch=self._last_epoch)

    def welcomed(self, welcome: wire.Welcome, put: Put) -> None:
        self._put = put
        self._last_epoch = max(self._last_epoch, welcome.epoch)

    def disconnected(self) -> None:
        self._put = None

    def received(self, frame: wire.BrokerFrame) -> None:
        if frame.WhichOneof("frame") != "execute" or self._put is None:
            return
        command_id, put = frame.execute.command_id, self._put
        written = self._outputs.get(tuple(frame.execute.argv), self._output) if self._outputs else self._output
        put(wire.ExecutorFrame(accepted=wire.Accepted(command_id=command_id)))
        put(wire.ExecutorFrame(started=wire.Started(command_id=command_id)))
        if written:
            output = command_pb2.Output(command_id=command_id, source=command_pb2.OUTPUT_SOURCE_STDOUT, data=written)
            put(wire.ExecutorFrame(output=output), output=True)
        finished = wire.Finished(command_id=command_id, outcome=command_pb2.OUTCOME_EXITED)
        finished.stdout_summary.total_bytes = len(written)
        put(wire.ExecutorFrame(finished=finished), output=True)


def main(arguments: Sequence[str] | None = None) -> None:
    settings = load(AnsweringSettings, program=PROGRAM, arguments=arguments)
    set_up_logs(settings.log_level, settings.log_format)
    uvloop.run(_serve(settings))


async def _serve(settings: AnsweringSettings) -> None:
    """Holds every connection until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    links: list[Link] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_report(lambda: sum(link.connected for link in links), stopping))
        for cluster_id in settings.clusters:
            for number in range(settings.instances):
                links.append(_link(settings, cluster_id, number))
                tasks.create_task(links[-1].run())
                await asyncio.sleep(settings.between_starts)
        await stopping.wait()
        for link in links:
            link.close()


async def _report(connected: Callable[[], int], stopping: asyncio.Event) -> None:
    said = 0
    while not stopping.is_set():
        if (now := connected()) != said:
            said = now
            print(CONNECTED.decode() + str(now), flush=True)
        await asyncio.sleep(REPORT_S)


def _link(settings: AnsweringSettings, cluster_id: str, number: int) -> Link:
    executor_id = f"{cluster_id}-{number}"
    who = wire.Hello(
        cluster_id=cluster_id,
        executor_id=executor_id,
        instance_id=ids.new_id(),
        max_concurrency=MAX_CONCURRENCY,
    )
    # Not checked again, and without a kubectl: nothing is run.
    dialing = ExecutorSettings.model_construct(
        broker=settings.broker,
        cluster_id=cluster_id,
        executor_id=executor_id,
        token=settings.token,
        kubectl=Path("none"),
        tls_ca=settings.tls_ca,
        tls_cert=settings.tls_cert,
        tls_key=settings.tls_key,
    )
    return Link(dialing, who, Answering(output_bytes=settings.output_bytes, mixed=settings.mixed), pace=Pace())


if __name__ == "__main__":
    main()
