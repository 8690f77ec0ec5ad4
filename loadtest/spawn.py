"""`spawn`: what it costs to start a process, in each of the ways that Python has.

How long that takes, and how long the event loop can do nothing else meanwhile: an executor starts one a command.
"""

import asyncio
import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import uvloop
from pydantic import Field

from loadtest.bench import Bench
from loadtest.report import Fact
from loadtest.settings import ReportSettings, Words

# Set from outside, as the executor does it: which limits does not matter here.
_LIMITS = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 1024, resource.RLIMIT_FSIZE: 64 << 20}
# Waits for the process and closes its pipes; not measured.
End = Callable[[], Awaitable[object]]
Way = Callable[[list[str], dict[str, str]], Awaitable[End]]


class SpawnSettings(ReportSettings):
    """Starts a program many times in each of the ways that there are, and says what that costs."""

    command: Words = ("/bin/true",)
    """What to start, with its arguments: a path."""
    count: int = Field(500, ge=1, le=100_000)
    """How often in each way."""


async def run(settings: SpawnSettings, bench: Bench) -> None:
    # In a thread, since each way has a loop of its own.
    for cost in await asyncio.to_thread(measure, list(settings.command), count=settings.count):
        for what, value_ms in (
            ("until it was there, p50", cost.start_p50_ms),
            ("until it was there, p99", cost.start_p99_ms),
            ("without a turn of the loop, p50", cost.loop_p50_ms),
            ("without a turn of the loop, p99", cost.loop_p99_ms),
        ):
            bench.report.facts.append(Fact(f"{cost.program} by {cost.way}: {what}", value_ms, "ms"))


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds until a process was there (`start`) and, of that, in which the loop had no turn (`loop`)."""

    program: str
    way: str
    start_p50_ms: float
    start_p99_ms: float
    loop_p50_ms: float
    loop_p99_ms: float


def _popen(argv: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  (programs of our choice, no shell)
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment,
        start_new_session=True,
        umask=0o077,
    )


async def _by_popen(argv: list[str], environment: dict[str, str]) -> End:
    process = _popen(argv, environment)
    return lambda: asyncio.to_thread(process.communicate)


async def _by_popen_with_limits(argv: list[str], environment: dict[str, str]) -> End:
    process = _popen(argv, environment)
    for which, most in _LIMITS.items():
        resource.prlimit(process.pid, which, (most, most))
    return lambda: asyncio.to_thread(process.communicate)


async def _by_popen_in_a_thread(argv: list[str], environment: dict[str, str]) -> End:
    process = await asyncio.to_thread(_popen, argv, environment)
    return lambda: asyncio.to_thread(process.communicate)


async def _by_posix_spawn(argv: list[str], environment: dict[str, str]) -> End:
    reading, writing = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        *((os.POSIX_SPAWN_DUP2, writing, to) for to in (1, 2)),
    ]
    pid = os.posix_spawn(  # noqa: ASYNC221  (how long it blocks is the question)
        argv[0], argv, environment, file_actions=actions, setsid=True, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ]
    )
    os.close(writing)

    def end() -> None:
        with open(reading, "rb") as output:
            output.read()
        os.waitpid(pid, 0)

    return lambda: asyncio.to_thread(end)


async def _by_the_loop(argv: list[str], environment: dict[str, str]) -> End:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    return process.communicate


WAYS: dict[str, tuple[Callable[[], asyncio.AbstractEventLoop], Way]] = {
    "Popen": (uvloop.new_event_loop, _by_popen),
    "Popen, then limits": (uvloop.new_event_loop, _by_popen_with_limits),
    "Popen in a thread": (uvloop.new_event_loop, _by_popen_in_a_thread),
    "posix_spawn": (uvloop.new_event_loop, _by_posix_spawn),
    "asyncio's own": (asyncio.new_event_loop, _by_the_loop),
    "uvloop's own": (uvloop.new_event_loop, _by_the_loop),
}


def measure(argv: list[str], *, count: int) -> list[Cost]:
    """Starts `count` processes in each way, one after the other."""
    costs = []
    with tempfile.TemporaryDirectory(prefix="openline-loadtest-") as home:
        for name, (new_loop, way) in WAYS.items():
            with asyncio.Runner(loop_factory=new_loop) as runner:
                times = runner.run(_start_many(way, argv, {"HOME": home}, count=count))
            starts, turns = zip(*times, strict=True)
            figures = [_percentile_ms(part, percent) for part in (starts, turns) for percent in (50, 99)]
            costs.append(Cost(" ".join([Path(argv[0]).name, *argv[1:]]), name, *figures))
    return costs


async def _start_many(
    way: Way, argv: list[str], environment: dict[str, str], *, count: int
) -> list[tuple[float, float]]:
    """Of each start: how long it took, and the longest time without a turn of the loop."""
    times = []
    for _ in range(count):
        begun = perf_counter()
        starting = asyncio.create_task(_started(way, argv, environment))
        turn, longest = begun, 0.0
        while not starting.done():
            await asyncio.sleep(0)
            longest, turn = max(longest, perf_counter() - turn), perf_counter()
        end, ended = await starting
        times.append((ended - begun, longest))
        await end()
    return times


async def _started(way: Way, argv: list[str], environment: dict[str, str]) -> tuple[End, float]:
    end = await way(argv, environment)
    return end, perf_counter()


def _percentile_ms(times_s: tuple[float, ...], percent: int) -> float:
    """Nearest rank."""
    ordered = sorted(times_s)
    return round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))], 3)
