"""Writes that nobody waits for: collected, and sent to Redis many at a time by one task.

When Redis is away they are kept, in order, up to a bound, and sent when it is back. So every write here must be one
that may be repeated.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from itertools import islice
from time import monotonic
from typing import NamedTuple

import structlog
from redis import exceptions
from redis.exceptions import RedisError, ResponseError

from broker.store.client import Client, send_folded
from broker.store.eviction import warn_of_eviction
from broker.store.single import RedisCommand
from openline.tally import Histogram

# A round trip costs the same for one write as for many, and nobody waits for this one: what comes within so long leaves
# together. Until then the executor keeps a result, so nothing is lost with this process.
LINGER_S = 0.01
MAX_BATCH = 500
# Results may be large: what leaves together must arrive within the timeout over a slow link, or nothing ever would.
MAX_BATCH_BYTES = 1 << 20
# Of one batch: then Redis counts as away.
TIMEOUT_S = 2.0
MAX_KEPT_BYTES = 64 << 20
RETRY_MIN_S, RETRY_MAX_S = 0.05, 1.0
# What a healthy server may answer for a while: the write is tried again. Anything else is a defect of the write.
PASSING = (
    exceptions.AskError,  # and MovedError: a Redis Cluster that changes faster than one follows
    exceptions.ClusterDownError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    # One node of a Redis Cluster, of which the others have answered.
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    OSError,
)
# The same, for which redis-py has no class: no replica to copy to, no room on the disk.
PASSING_CODES = ("NOREPLICAS", "MISCONF")

log = structlog.get_logger()


class Write(NamedTuple):
    """One Redis command; `done` is called with whether Redis has it, once that is known."""

    command: RedisCommand
    size: int
    done: Callable[[bool], None] | None


class WriteBehind:
    """The queue and the task that empties it."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._waiting: deque[Write] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        # Something waits that is not to linger.
        self._soon = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.degraded = False
        # Of whole batches, also such as Redis refuses.
        self.round_trips = Histogram()
        # Writes that were given up: too much waited already, or Redis refused them for good.
        self.lost = {"full": 0, "refused": 0}
        # Called when Redis takes writes again: what was only ever told to it directly has to be told again.
        self.on_recovered: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<WriteBehind waiting={len(self._waiting)} bytes={self._waiting_bytes} degraded={self.degraded}>"

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    def put(
        self, *command: str | bytes | int | float, done: Callable[[bool], None] | None = None, may_linger: bool = False
    ) -> bool:
        """Queues a write; False when too much waits already, and it was not taken.

        What there are many of may linger for company. It leaves with whatever else does, in the order of all.
        `done` is called once with True when Redis has it, or with False when Redis refuses it for good.
        """
        size = sum(len(part) if isinstance(part, str | bytes) else 8 for part in command)
        if self._waiting_bytes + size > MAX_KEPT_BYTES:
            self.lost["full"] += 1
            return False
        self._waiting.append(Write(command, size, done))
        self._waiting_bytes += size
        self._idle.clear()
        self._wake.set()
        if not may_linger:
            self._soon.set()
        return True

    async def drain(self, timeout_s: float) -> bool:
        """Waits until nothing is left to write; False when that takes too long."""
        self._soon.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Writes until it is cancelled by its owner."""
        pause_s = RETRY_MIN_S
        while True:
            await self._wake.wait()
            if len(self._waiting) < MAX_BATCH:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        await self._soon.wait()
            self._soon.clear()
            batch = self._batch()
            began = monotonic()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    answers = await send_folded(self._redis, [each.command for each in batch])
            except (RedisError, OSError, TimeoutError) as failure:
                self._degrade(failure)
                await asyncio.sleep(pause_s)
                pause_s = min(RETRY_MAX_S, pause_s * 2)
                continue
            self.round_trips.observe(monotonic() - began)
            pause_s = RETRY_MIN_S
            passing = self._settle(batch, answers)
            if passing is not None:
                self._degrade(passing)
                await asyncio.sleep(RETRY_MAX_S)
            elif self.degraded:
                self.degraded = False
                log.info("redis.recovered", waiting=len(self._waiting))
                if self.on_recovered is not None:
                    self.on_recovered()
                await warn_of_eviction(self._redis)  # it may be another one

    def _batch(self) -> list[Write]:
        """What leaves together: at least one write."""
        batch: list[Write] = []
        room = MAX_BATCH_BYTES
        for write in islice(self._waiting, MAX_BATCH):
            if batch and write.size > room:
                break
            batch.append(write)
            room -= write.size
        return batch

    def _settle(self, batch: list[Write], answers: list[object]) -> Exception | None:
        """Takes what was written off the queue; returns the first answer that says to try again later."""
        for write, answer in zip(batch, answers, strict=True):
            if isinstance(answer, PASSING) or (
                isinstance(answer, ResponseError) and str(answer).startswith(PASSING_CODES)
            ):
                return answer
            self._waiting.popleft()
            self._waiting_bytes -= write.size
            refused = isinstance(answer, Exception)
            if refused:
                self.lost["refused"] += 1
                log.error("redis.write_refused", command=write.command[0], error=str(answer))
            if write.done is not None:
                try:
                    write.done(not refused)
                except Exception:
                    # A defect of whoever waited must not be the end of all writing.
                    log.exception("redis.write_not_settled", command=write.command[0])
        if not self._waiting:
            self._wake.clear()
            self._idle.set()
        return None

    def _degrade(self, failure: Exception) -> None:
        if not self.degraded:
            self.degraded = True
            log.warning("redis.unavailable", error=type(failure).__name__, detail=str(failure)[:200])
