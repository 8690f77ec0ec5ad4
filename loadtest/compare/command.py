"""`compare`: what is measured beside what, which ratios come of it, and whether they are as good as those before."""

import contextlib
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from loadtest.bench import Bench
from loadtest.compare import http, streams
from loadtest.compare.contenders import Contender, Rounds, take_turns
from loadtest.compare.ratios import IDLE, KEYS, RATIOS, read_committed, worse
from loadtest.idle import measure_idle
from loadtest.report import Fact
from loadtest.rivals import nats
from loadtest.settings import Names, ReportSettings
from loadtest.stage import Stage, open_stage
from openline.settings import ReadableFile

IDLE_STREAMS = 1000
IDLE_SECONDS = 5.0


def _keys(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in KEYS:
            raise ValueError(f"{name} is none of {', '.join(KEYS)}")
    return names


def _with_ratios(file: ReadableFile) -> ReadableFile:
    read_committed(file)
    return file


class CompareSettings(ReportSettings):
    """Measures openline beside what else there is, in turns and in one run, and says the ratios. On loopback."""

    rounds: int = Field(5, ge=1, le=1000)
    """How many rounds, in each of which every contender has a turn. One more before them does not count."""
    seconds: float = Field(0.5, gt=0, le=60)
    """How long a turn takes."""
    only: Annotated[Names, AfterValidator(_keys)] = ()
    """The ratios to measure, KEY,… Default: all."""
    against: Annotated[ReadableFile, AfterValidator(_with_ratios)] | None = None
    """A file that --json has written: exit code 1 when a ratio is worse than there."""
    tolerance: float = Field(0.3, ge=0, le=10)
    """By which part of it a ratio may be worse."""


@dataclass(frozen=True, slots=True)
class Group:
    """Contenders that share a stage; those of one ratio are always in one group."""

    names: tuple[str, ...]
    open: Callable[[Stage, Set[str]], contextlib.AbstractAsyncContextManager[list[Contender]]]


GROUPS = (
    Group(streams.NAMES, streams.streams),
    Group(http.NAMES, http.rest),
    Group(http.KUBECTL_NAMES, http.kubectl),
)


async def run(settings: CompareSettings, bench: Bench) -> None:
    report, keys = bench.report, settings.only or KEYS
    report.ratios = dict.fromkeys(keys)
    wanted = _wanted(settings.only)
    if any(name.startswith("nats") for name in wanted):
        try:
            nats.find_server()
        except nats.NatsMissing as missing:
            report.notes.append(str(missing))
            wanted = {name for name in wanted if not name.startswith("nats")}
    await _measure(keys, wanted, settings, bench)
    if settings.against is None:
        return
    report.committed = read_committed(settings.against)
    if unheld := [key for key in report.committed if key in keys and report.ratios.get(key) is None]:
        report.failures.append(f"not measured, and so not held against the committed ones: {', '.join(unheld)}")
    if suspects := worse(report.ratios, report.committed, tolerance=settings.tolerance):
        # A machine that was busy with something else for a minute is no reason to fail.
        report.notes.append(f"Measured again, since they seemed worse: {', '.join(suspects)}.")
        again = _wanted(tuple(suspects)) & wanted
        report.measured = [each for each in report.measured if each.name not in again]
        await _measure(tuple(suspects), again, settings, bench)
        report.failures += worse(report.ratios, report.committed, tolerance=settings.tolerance).values()


async def _measure(keys: tuple[str, ...], wanted: Set[str], settings: CompareSettings, bench: Bench) -> None:
    """Measures the wanted contenders, and puts the ratios of these keys into the report."""
    report = bench.report
    for group in GROUPS:
        if names := wanted & set(group.names):
            async with open_stage() as stage, group.open(stage, names) as contenders:
                rounds = await take_turns(
                    contenders, bench, pids=stage.pids, rounds=settings.rounds, seconds=settings.seconds
                )
            report.ratios |= {key: RATIOS[key].of(rounds) for key in keys if key in RATIOS and _is_of(key, rounds)}
    if IDLE in keys:
        async with open_stage() as stage:
            idle = await measure_idle(stage, bench.screen, streams=IDLE_STREAMS, seconds=IDLE_SECONDS)
        report.ratios[IDLE] = idle.stream_kib
        report.facts = [Fact(f"broker CPU with {IDLE_STREAMS:,} idle streams", idle.cores * 100, "% of a core")]


def _is_of(key: str, rounds: Rounds) -> bool:
    return RATIOS[key].over in rounds


def _wanted(only: tuple[str, ...]) -> set[str]:
    """The contenders that have to be measured for these ratios; all when none is named."""
    if not only:
        return {name for group in GROUPS for name in group.names}
    return {name for key in only if key in RATIOS for name in (RATIOS[key].over, RATIOS[key].under)}
