"""Who watches overviews: one is gathered once an interval, while anybody watches, and shared.

Those who watch the same clusters share a view, which is one task. It ends with its last watcher. Whoever reads slowly
is given the newest overview next, so that nothing collects.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from time import monotonic

import structlog

from broker.core import quotas
from broker.core.patterns import EVERY, Patterns
from broker.survey import Survey
from openline import errors
from openline.reasons import NO, Reason
from openline.v1 import overview_pb2

MIN_INTERVAL_S, USUAL_INTERVAL_S, MAX_INTERVAL_S = 0.5, 1.0, 10.0
# So much of an interval other replicas have for their answers; what they say later is of no use any more.
ANSWER_SHARE, MAX_ANSWER_S = 0.8, 1.0
MAX_WATCHES = 50
# What one owner leaves to the others: a key of some clusters must not lock out whoever operates all of them.
MAX_WATCHES_OF_OWNER = 25
# Each view asks every replica and looks at every cluster, up to twice a second, so there are fewer of them than
# watches. That of everything, which there is once, is not counted among all.
MAX_VIEWS = 16
MAX_VIEWS_OF_OWNER = 4

log = structlog.get_logger()


class Views:
    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._views: dict[Patterns, View] = {}
        # How many each owner has of each view.
        self._watches: Counter[tuple[str, Patterns]] = Counter()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Views {len(self)} watches={self._watches.total()}>"

    def __len__(self) -> int:
        return len(self._views)

    @contextlib.asynccontextmanager
    async def watch(self, within: Patterns, *, owner: str, interval_s: float) -> AsyncIterator["Watch"]:
        """Overviews from now on. Raises QUOTA_EXCEEDED, BROKER_UNAVAILABLE."""
        if self._is_closed:
            raise _closed()
        self._admit(within, owner)
        view = self._views.get(within)
        if view is None or view.is_over:
            view = self._views[within] = View(self._survey, within)
        watch = Watch(view, interval_s=interval_s)
        self._watches[owner, within] += 1
        view.join(watch)
        try:
            yield watch
        finally:
            self._watches[owner, within] -= 1
            if not self._watches[owner, within]:
                del self._watches[owner, within]
            if view.leave(watch):
                if self._views.get(within) is view:
                    del self._views[within]
                await view.end()

    def close(self) -> None:
        """The replica is stopping: watchers are told to go elsewhere."""
        self._is_closed = True
        for view in self._views.values():
            view.close(_closed())

    def _admit(self, within: Patterns, owner: str) -> None:
        """Raises QUOTA_EXCEEDED for one watch more than there may be, and for one view more."""
        own = {seen: count for (who, seen), count in self._watches.items() if who == owner}
        views = 0 if within.is_every else len(self._views.keys() - {within, EVERY})
        for count, most, what in (
            (sum(own.values()), MAX_WATCHES_OF_OWNER, "too many of this owner watch the overview"),
            (self._watches.total(), MAX_WATCHES, "too many watch the overview"),
            (len(own.keys() - {within}), MAX_VIEWS_OF_OWNER, "this owner watches too many sets of clusters"),
            (views, MAX_VIEWS, "too many sets of clusters are watched"),
        ):
            if count >= most:
                raise errors.OpenlineError(quotas.full(most, what))


class View:
    """What those see who watch the same clusters. Its task gathers as often as the most eager of them wants it."""

    def __init__(self, survey: Survey, within: Patterns) -> None:
        self._survey = survey
        self._within = within
        self._absence = survey.absence()
        self._watches: set[Watch] = set()
        self._joined = asyncio.Event()
        self.newest: overview_pb2.Overview | None = None
        self.number = 0
        # Set and replaced whenever there is a newer one, and for good when it is over.
        self.changed = asyncio.Event()
        self.failure: errors.OpenlineError | None = None
        self._task = asyncio.create_task(self._run(), name="overview")

    @property
    def is_over(self) -> bool:
        return self.failure is not None

    def join(self, watch: "Watch") -> None:
        """Whoever comes waits for nobody else's interval."""
        if self._watches:
            self._joined.set()
        self._watches.add(watch)

    def leave(self, watch: "Watch") -> bool:
        """Whether it was the last one."""
        self._watches.discard(watch)
        return not self._watches

    def close(self, why: errors.OpenlineError) -> None:
        """Everybody is told why there are no more."""
        self.failure = why
        self.changed.set()

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while not self.is_over:
                began = monotonic()
                interval_s = min((watch.interval_s for watch in self._watches), default=MAX_INTERVAL_S)
                timeout_s = min(MAX_ANSWER_S, ANSWER_SHARE * interval_s)
                self.newest = await self._survey.gather(self._within, timeout_s=timeout_s, absence=self._absence)
                self.number += 1
                changed, self.changed = self.changed, asyncio.Event()
                changed.set()
                await _within(self._joined.wait(), began + interval_s - monotonic())
                self._joined.clear()
                await asyncio.sleep(max(0.0, began + MIN_INTERVAL_S - monotonic()))
        except Exception:
            log.exception("overview.failed")
            self.close(errors.OpenlineError(errors.error(Reason.INTERNAL, "internal error; see the broker's log")))


class Watch:
    """One watcher: overviews at its own interval, each newer than the one before."""

    def __init__(self, view: View, *, interval_s: float) -> None:
        self.interval_s = interval_s
        self._view = view

    async def __aiter__(self) -> AsyncIterator[overview_pb2.Overview]:
        """Never ends by itself. Raises BROKER_UNAVAILABLE when the replica stops."""
        view, told, due = self._view, 0, monotonic()
        while True:
            while (view.number == told or monotonic() < due) and not view.is_over:
                await _within(view.changed.wait(), due - monotonic() if view.number > told else MAX_INTERVAL_S)
            if view.failure is not None:
                raise view.failure
            if view.newest is not None:
                told = view.number
                # Somewhat before the next one is made, which else would be missed by a hair, again and again.
                due = monotonic() + 0.9 * self.interval_s
                yield view.newest


async def _within(waiting: Awaitable[object], timeout_s: float) -> None:
    """Waits for it, and no longer than so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, timeout_s)):
            await waiting


def _closed() -> errors.OpenlineError:
    stopping = errors.error(Reason.BROKER_UNAVAILABLE, "the replica is stopping", executed=NO, retry_after_s=1.0)
    return errors.OpenlineError(stopping)
