"""Simulated executors: the executor's real link to the broker, with commands that are answered at once, not run.

A process of its own, started by the stage: `python -m loadtest.answering` with its settings in the environment.
"""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import uvloop
from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from executor.connection import Put
from executor.link import Link
from executor.pace import Pace
from executor.settings import ExecutorSettings
from openline import ids, limits
from openline.logs import set_up_logs
from openline.settings import Addresses, ProgramSettings, load, split_commas
from openline.v1 import command_pb2
from openline.v1 import executor_service_pb2 as wire

PROGRAM = "openline-loadtest answering"
MAX_CONCURRENCY = 4096


class AnsweringSettings(ProgramSettings):
    """Simulated executors, one connection for each cluster named."""

    broker: Addresses
    """The brokers to dial, HOST:PORT,…"""
    token: SecretStr
    """The token of every cluster."""
    clusters: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]
    """The clusters to be."""
    output_bytes: int = Field(64, ge=0, le=limits.MAX_FRAME_BYTES)
    """How much each command writes to stdout."""
    instances: int = Field(1, ge=1, le=10_000)
    """Executors in each cluster."""


class Answering:
    """What a connection asks of an executor's commands: each is accepted, started and finished in one turn.

    A result that was lost with its connection is not said again: who measures a broken connection counts its callers.
    """

    idle = True
    load = (0, 0)

    def __init__(self, *, output_bytes: int) -> None:
        self._output = b"x" * output_bytes
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
        put(wire.ExecutorFrame(accepted=wire.Accepted(command_id=command_id)))
        put(wire.ExecutorFrame(started=wire.Started(command_id=command_id)))
        output = command_pb2.Output(command_id=command_id, source=command_pb2.OUTPUT_SOURCE_STDOUT, data=self._output)
        put(wire.ExecutorFrame(output=output), output=True)
        finished = wire.Finished(command_id=command_id, outcome=command_pb2.OUTCOME_EXITED)
        finished.stdout_summary.total_bytes = len(self._output)
        put(wire.ExecutorFrame(finished=finished), output=True)


def main(arguments: Sequence[str] | None = None) -> None:
    settings = load(AnsweringSettings, program=PROGRAM, arguments=arguments)
    set_up_logs(settings.log_level, settings.log_format)
    uvloop.run(_serve(settings))


async def _serve(settings: AnsweringSettings) -> None:
    """Holds every connection until SIGTERM or SIGINT."""
    links = [_link(settings, cluster_id, number) for cluster_id in settings.clusters for number in range(settings.instances)]
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, lambda: [link.close() for link in links])
    await asyncio.gather(*(link.run() for link in links))


def _link(settings: AnsweringSettings, cluster_id: str, number: int) -> Link:
    executor_id = f"{cluster_id}-{number}"
    who = wire.Hello(
        protocol_version=limits.PROTOCOL_VERSION,
        cluster_id=cluster_id,
        executor_id=executor_id,
        instance_id=ids.new_id(),
        max_concurrency=MAX_CONCURRENCY,
    )
    dialing = ExecutorSettings.model_construct(
        broker=settings.broker, cluster_id=cluster_id, executor_id=executor_id, token=settings.token, kubectl=Path("none")
    )
    return Link(dialing, who, Answering(output_bytes=settings.output_bytes), pace=Pace())


if __name__ == "__main__":
    main()
