"""What goes wrong, and when: a schedule that the seed decides, over processes and lines that are whole at the time."""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from time import monotonic
from typing import TypeVar

from processes import Process
from stage import Stage

from tests.lines import Line

# How long after one fault the next one comes, on average; each goes on for seconds, so that they overlap.
EVERY_S = 1.3
# At most so many replicas are away or frozen at a time: with none there is nothing to learn.
MAX_REPLICAS_AWAY = 2
# Redis loses everything only in the first part of the time: what came before cannot be held against anybody.
EMPTIED_IN = 0.4

T = TypeVar("T")


class Faults:
    """`run` makes them until it is cancelled, and then everything is whole again; `happened` tells of each."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage = stage
        self._random = random.Random(f"{seed} faults")
        self._began = monotonic()
        self._seconds = 0.0
        self._running: set[asyncio.Task[None]] = set()
        self.happened: list[str] = []
        # When Redis began anew with nothing, time.monotonic.
        self.emptied_at: list[float] = []

    async def run(self, seconds: float) -> None:
        """For so long; returns when everything is whole again."""
        self._seconds = seconds
        until = monotonic() + seconds
        while monotonic() < until:
            await asyncio.sleep(self._random.expovariate(1 / EVERY_S))
            for process in self._stage.processes:
                if not process.is_busy:
                    process.check()
            fault = self._next()
            if fault is not None:
                task = asyncio.create_task(fault)
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        for task in list(self._running):
            await task

    def _next(self) -> Coroutine[None, None, None] | None:
        draw = self._random
        kind = draw.choices(
            ["replica", "executor", "redis", "executor line", "gateway line", "peer line"], [24, 22, 14, 18, 14, 8]
        )[0]
        # Drawn whether it is used or not, so that the seed decides the same each time.
        pick, how, short_s, long_s = draw.random(), draw.random(), draw.uniform(0.1, 2.5), draw.uniform(1, 6)
        stage = self._stage
        if kind == "replica":
            if sum(broker.is_busy for broker in stage.brokers) >= MAX_REPLICAS_AWAY:
                return None
            return self._break(_one(stage.brokers, pick), how, short_s, long_s)
        if kind == "executor":
            return self._break(_one(list(stage.executors.values()), pick), how, short_s, long_s)
        if kind == "redis":
            return self._break_redis(how, short_s, long_s)
        if kind == "peer line":
            line = _one(stage.peer_lines, pick)
            return self._cut(f"peers' lines to replica {stage.peer_lines.index(line)}", [line], how, short_s)
        if kind == "executor line":
            name = _one(list(stage.executor_lines), pick)
            return self._cut(f"lines of {name}", stage.executor_lines[name], how, short_s)
        lines = _one(stage.gateway_lines, pick)
        number = stage.gateway_lines.index(lines)
        if how > 0.5:
            lines = [_one(lines, (how - 0.5) * 2)]
        return self._cut(f"{len(lines)} lines of gateway {number}", lines, how * 2 % 1, short_s)

    async def _break(self, process: Process, how: float, short_s: float, long_s: float) -> None:
        if process.is_busy:
            return
        process.is_busy = True
        try:
            if how < 0.4:
                self._say(f"{process.name} killed for {short_s:.1f} s")
                await process.kill()
                await asyncio.sleep(short_s)
                process.start()
            elif how < 0.65:
                self._say(f"{process.name} asked to stop")
                await process.stop()
                self._say(f"{process.name} stopped, away for {short_s:.1f} s")
                await asyncio.sleep(short_s)
                process.start()
            else:
                # Some stay frozen until everybody has noticed.
                frozen_s = long_s if how < 0.93 else long_s + 16
                self._say(f"{process.name} frozen for {frozen_s:.1f} s")
                async with process.frozen():
                    await asyncio.sleep(frozen_s)
            # A process that is killed while it starts teaches nothing.
            await process.until_ready()
            await asyncio.sleep(0.5)
        finally:
            self._say(f"{process.name} whole")
            process.is_busy = False

    async def _break_redis(self, how: float, short_s: float, long_s: float) -> None:
        process = self._stage.redis_process
        if process.is_busy:
            return
        process.is_busy = True
        try:
            if how < 0.6:
                empty = how < 0.2 and monotonic() - self._began < self._seconds * EMPTIED_IN
                self._say(f"redis killed for {short_s:.1f} s{', comes back empty' if empty else ''}")
                await process.kill()
                await asyncio.sleep(short_s)
                if empty:
                    self._stage.empty_redis()
                    self.emptied_at.append(monotonic())
                process.start()
            else:
                self._say(f"redis frozen for {long_s:.1f} s")
                async with process.frozen():
                    await asyncio.sleep(long_s)
            await process.until_ready()
            await asyncio.sleep(0.5)
        finally:
            self._say("redis whole")
            process.is_busy = False

    async def _cut(self, name: str, lines: list[Line], how: float, short_s: float) -> None:
        if any(line.is_cut for line in lines):
            return
        if how < 0.5:
            self._say(f"{name} cut")
            for line in lines:
                line.break_all()
            return
        self._say(f"{name} broken for {short_s:.1f} s")
        with ExitStack() as broken:
            for line in lines:
                broken.enter_context(line.broken())
            await asyncio.sleep(short_s)
        self._say(f"{name} whole")

    def _say(self, what: str) -> None:
        self.happened.append(f"{monotonic() - self._began:7.2f} s  {what}")


def _one(of: Sequence[T], pick: float) -> T:
    return of[int(pick * len(of))]
