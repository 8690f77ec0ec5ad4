"""Contenders take turns: all of them in each round, every other round backwards, so that a machine which is busy for a
while slows all of them down alike."""

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtest.bench import CALLER, Bench, warm_up
from loadtest.figures import Figures
from loadtest.measuring import Ask, measure
from loadtest.processes import Processes, used_us
from loadtest.report import Measured


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that is asked, by so many callers at a time."""

    name: str
    ask: Ask
    callers: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What one contender did in one round. NaN where nothing was answered."""

    p50_ms: float
    rate: float
    # By process, for each command.
    cpu_us: Mapping[str, float]


# Of each contender, by its name, the turns of the rounds that count, in their order.
Rounds = dict[str, list[Turn]]


async def take_turns(
    contenders: Sequence[Contender], bench: Bench, *, pids: Mapping[str, int], rounds: int, seconds: float
) -> Rounds:
    """Runs a round that does not count, and `rounds` that do. The report gets what they have found, all together.

    Raises NoAnswer when a contender does not answer.
    """
    processes = Processes({**pids, CALLER: os.getpid()})
    found = {each.name: Measured(each.name, each.callers) for each in contenders}
    turns: Rounds = {each.name: [] for each in contenders}
    for contender in contenders:
        await warm_up(contender.ask)
    bench.report.measured += found.values()
    for number in range(rounds + 1):
        for contender in contenders[:: -1 if number % 2 else 1]:
            figures = Figures()
            before = processes.cpu_s()
            label = f"{contender.name}, round {number} of {rounds}" if number else f"{contender.name}, warming up"
            async with bench.screen.following(label, figures, seconds=seconds):
                await measure(contender.ask, figures, callers=contender.callers, seconds=seconds)
            cpu_us = used_us(before, processes.cpu_s(), figures.count)
            if number:
                turns[contender.name].append(Turn(figures.percentile_ms(50), figures.rate, cpu_us))
                found[contender.name].figures.merge(figures)
    for name, measured in found.items():
        measured.cpu_us = _median_cpu_us(turns[name])
    return turns


def _median_cpu_us(turns: Sequence[Turn]) -> dict[str, float]:
    names = dict.fromkeys(name for turn in turns for name in turn.cpu_us)
    return {name: statistics.median(turn.cpu_us.get(name, 0.0) for turn in turns) for name in names}


def median_of_ratios(over: Sequence[float], under: Sequence[float]) -> float | None:
    """The median of the quotients of each round; None when no round has both."""
    quotients = [a / b for a, b in zip(over, under, strict=True) if b and not math.isnan(a / b)]
    return statistics.median(quotients) if quotients else None
