"""`mixed`: AI agents that look around in several clusters, think, and look again, for as long as asked."""

import random
from time import perf_counter

from pydantic import Field

from loadtest.asking import CLIENT, Requests, over_pipe
from loadtest.bench import Bench
from loadtest.installation import open_installation
from loadtest.mix import MIX, pick, think_s
from loadtest.processes import memory_kib
from loadtest.report import Fact, Measured
from loadtest.settings import Callers, TargetSettings
from openline.pipes import Pipes


class MixedSettings(TargetSettings):
    """Asks as AI agents do: a mix of commands to several clusters, with time to think, for as long as asked."""

    clusters: int = Field(4, ge=1, le=1000)
    """How many clusters, when they are started here."""
    agents: Callers = 50
    """How many AI agents."""
    think: float = Field(1.0, ge=0, le=3600)
    """How long one thinks before its next command, on average, seconds."""
    seconds: float = Field(60.0, gt=0, le=7 * 24 * 3600)
    """How long all of it takes; Ctrl-C ends it before, and shows what there is."""
    timeout: float = Field(30.0, ge=1, le=300)
    """How long one command may take, seconds."""
    seed: int = 1
    """The same number, the same choices."""


async def run(settings: MixedSettings, bench: Bench) -> None:
    chance = random.Random(settings.seed)  # noqa: S311  (repeatable by its seed, which is the point)
    kinds = {each.name: Measured(each.name, settings.agents) for each in MIX}
    async with (
        open_installation(settings, "--mixed") as installation,
        Pipes(installation.brokers, client=CLIENT, **installation.tls) as pipes,
    ):
        asks = {
            each.name: over_pipe(
                pipes,
                Requests(installation.cluster_ids, each.argv, timeout_s=settings.timeout),
                api_key=installation.api_key,
            )
            for each in MIX
        }
        began = perf_counter()

        async def ask() -> str:
            kind, asked = pick(chance).name, perf_counter()
            end = await asks[kind]()
            answered = perf_counter()
            kinds[kind].figures.record(end, latency_s=answered - asked, at_s=answered - began)
            return end

        pids = installation.stage.pids
        before_kib = memory_kib(pids)
        try:
            await bench.measure(
                "all",
                ask,
                warm=lambda: asks[pick(chance).name](),
                pids=pids,
                callers=settings.agents,
                seconds=settings.seconds,
                think=lambda: think_s(chance, settings.think),
            )
        finally:
            for kind in kinds.values():
                kind.figures.seconds = perf_counter() - began
            bench.report.measured += (kind for kind in kinds.values() if kind.figures.count)
            for name, kib in memory_kib(pids).items():
                bench.report.facts += [
                    Fact(f"{name} memory before", before_kib[name] / 1024, "MiB"),
                    Fact(f"{name} memory after", kib / 1024, "MiB"),
                ]
