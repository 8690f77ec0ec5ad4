"""`storm`: all executors lose their line at once and come back, while callers go on asking."""

import asyncio
import random
from time import perf_counter
from typing import Literal, Self

from pydantic import Field, model_validator

from loadtest.asking import CLIENT, Requests, over_pipe
from loadtest.bench import Bench
from loadtest.installation import open_installation
from loadtest.report import Fact, Report
from loadtest.settings import Callers, Seconds, TargetSettings
from loadtest.stage import Stage
from openline.pipes import Pipes
from openline.reasons import Reason

# Before the storm, and after it.
CALM_S = 1.0
# Between an answer and the next command: how callers fare is to be seen, not how many commands there can be.
# At random, or all of them would ask in the same moment.
MAX_THINK_S = 0.1
# What runs at the moment when the broker is killed is known to nobody: simulated executors do not keep results as real
# ones do. It ends as lost, or when its time is up.
MAY_END = frozenset({str(Reason.EXECUTOR_LOST), str(Reason.COMMAND_TIMEOUT)})
LOOK_S = 0.02
PARTS = {"half": 0.5, "99 %": 0.99, "all": 1.0}


class StormSettings(TargetSettings):
    """Has all simulated executors reconnect at once, and says how long until they are back and what callers notice."""

    clusters: int = Field(1000, ge=1, le=1000)
    """How many clusters, when they are started here."""
    executors: int = Field(1, ge=1, le=20)
    """How many simulated executors in each cluster."""
    lose: Literal["broker", "executors"] = "broker"
    """What is killed and started again: the broker, on loopback only, or the process of all executors."""
    callers: Callers = 8
    """How many ask meanwhile."""
    patience: Seconds = 60.0
    """How long the executors may take, seconds."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.broker is not None and self.lose == "broker":
            raise ValueError("--lose broker: is for loopback; an installation's brokers are not ours to kill")
        if self.broker is not None and self.executor_token is None:
            raise ValueError("--executor-token: is needed with --broker, for the simulated executors")
        return self


async def run(settings: StormSettings, bench: Bench) -> None:
    async with (
        open_installation(settings) as installation,
        Pipes(installation.brokers, client=CLIENT, **installation.tls) as pipes,
    ):
        requests = Requests(installation.cluster_ids, ("get", "pods"))
        ask = over_pipe(pipes, requests, api_key=installation.api_key, wait_for_cluster_s=settings.patience)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                bench.measure(
                    "callers meanwhile",
                    ask,
                    pids={},
                    callers=settings.callers,
                    seconds=2 * CALM_S + settings.patience,
                    think=lambda: random.uniform(0, MAX_THINK_S),  # noqa: S311  (pauses of made-up agents)
                    allowed=MAY_END,
                    over=over,
                )
            )
            await _storm(installation.stage, settings, len(installation.cluster_ids) * settings.executors, bench.report)
            over.set()


async def _storm(stage: Stage, settings: StormSettings, count: int, report: Report) -> None:
    await asyncio.sleep(CALM_S)
    began = perf_counter()
    await stage.kill(settings.lose)
    if settings.lose == "broker":
        await stage.until("the end of all lines", lambda: stage.connected("executors") == 0)
    await stage.restart(settings.lose)
    report.facts.append(Fact("executors", count, ""))
    waited_for = list(PARTS)
    while waited_for:
        passed_s, connected = perf_counter() - began, stage.connected("executors")
        while waited_for and connected >= PARTS[waited_for[0]] * count:
            report.facts.append(Fact(f"{waited_for.pop(0)} back after", passed_s, "s"))
        if passed_s > settings.patience:
            report.failures.append(f"only {connected} of {count} executors were back within {settings.patience:g} s")
            return
        await asyncio.sleep(LOOK_S)
    await asyncio.sleep(CALM_S)
