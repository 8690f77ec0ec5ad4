"""`flood`: one command writes without end while others are timed, in the same executor and in another cluster."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from time import perf_counter
from typing import Any

from loadtest.asking import CLIENT, MARGIN_S, Requests, over_pipe
from loadtest.bench import Bench
from loadtest.processes import memory_kib
from loadtest.report import Fact
from loadtest.settings import Callers, ReportSettings, Seconds
from loadtest.stage import KEY, Stage, new_token, open_stage
from openline.pipes import Pipes
from openline.v1.command_pb2 import CommandResult
from openline.v1.command_service_pb2 import CancelCommandRequest, ExecuteRequest
from openline.watching import execute_stream

FLOODED, OTHER = "loadtest-flooded", "loadtest-other"
# In the place of kubectl, so that what is seen is what openline and the start of a process cost.
KUBECTL = """#!/bin/sh
case "$1" in
  version) echo '{"clientVersion":{"gitVersion":"v1.99.0"}}' ;;
  logs) exec cat /dev/zero ;;
  *) echo quick ;;
esac
"""
FLOOD = ("logs", "flood")
QUICK = ("get", "pods")
# Until the flood flows.
RISE_S = 0.3
# For what goes on beside what is timed.
SPARE_S = 10.0

Start = Callable[[Pipes, ExecuteRequest], Coroutine[Any, Any, CommandResult]]


class FloodSettings(ReportSettings):
    """Times quick commands while another one writes as fast as it can, cut or watched. Always on loopback."""

    callers: Callers = 1
    """How many ask for quick commands at a time."""
    seconds: Seconds = 3.0
    """How long each of the six parts takes."""


async def run(settings: FloodSettings, bench: Bench) -> None:
    async with open_stage() as stage:
        token = new_token()
        broker = await stage.broker("broker", await stage.valkey(), [FLOODED, OTHER], token)
        await stage.script(
            "executor", "openline-executor",
            "--broker", broker, "--cluster-id", FLOODED, "--kubectl", _stand_in(stage.directory),
            OPENLINE_TOKEN=token,
        )  # fmt: skip
        await stage.executors("executors", [broker], [OTHER], token)
        async with Pipes([broker], client=CLIENT) as pipes:
            for name, start in (("no flood", None), ("flood cut", _cut), ("flood watched", _watched)):
                await _part(name, start, stage, pipes, bench, settings)


async def _part(
    name: str, start: Start | None, stage: Stage, pipes: Pipes, bench: Bench, settings: FloodSettings
) -> None:
    """Times quick commands in both places, beside a flood if there is one."""
    before, during = memory_kib(stage.pids), memory_kib(stage.pids)
    async with _flowing(pipes, start, name, bench, at_most_s=3 * settings.seconds + SPARE_S):
        for place, cluster_id in (("same executor", FLOODED), ("other cluster", OTHER)):
            await bench.measure(
                f"{name}, {place}",
                over_pipe(pipes, Requests([cluster_id], QUICK), api_key=KEY),
                pids=stage.pids,
                callers=settings.callers,
                seconds=settings.seconds,
            )
            during = memory_kib(stage.pids)
    for program in ("broker", "executor"):
        grown_mib = (during[program] - before[program]) / 1024
        bench.report.facts.append(Fact(f"{name}: memory of the {program} grown", grown_mib, "MiB"))


@contextlib.asynccontextmanager
async def _flowing(
    pipes: Pipes, start: Start | None, name: str, bench: Bench, *, at_most_s: float
) -> AsyncIterator[None]:
    """The flood while the block runs; then it is cancelled by its id, and the report gets how much it was."""
    if start is None:
        yield
        return
    request = Requests([FLOODED], FLOOD, timeout_s=at_most_s).next()
    flood = asyncio.create_task(start(pipes, request))
    began = perf_counter()
    try:
        await asyncio.sleep(RISE_S)
        yield
        cancel = CancelCommandRequest(command_id=request.command_id)
        await pipes.cancel(cancel, api_key=KEY, timeout_s=SPARE_S)
        written = (await flood).stdout_summary.total_bytes
        bench.report.facts.append(Fact(f"{name}: written", written / (1 << 20) / (perf_counter() - began), "MiB/s"))
        if not written:
            bench.report.failures.append(f"{name}: nothing was written")
    finally:
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)


async def _cut(pipes: Pipes, request: ExecuteRequest) -> CommandResult:
    """An ordinary command: head and tail of its output come with its end."""
    return (await pipes.execute(request, api_key=KEY, timeout_s=request.timeout_s + MARGIN_S)).result


async def _watched(pipes: Pipes, request: ExecuteRequest) -> CommandResult:
    """Its output goes to the caller as it comes."""
    result = CommandResult()
    asked = execute_stream(pipes, request, api_key=KEY, timeout_s=request.timeout_s + MARGIN_S)
    async with contextlib.aclosing(asked) as events:
        async for event in events:
            if event.HasField("result"):
                result = event.result
    return result


def _stand_in(directory: Path) -> Path:
    kubectl = directory / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    return kubectl
