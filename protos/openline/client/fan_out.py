"""One command on many clusters at once, for asyncio: so many at a time, answers as they come or all together."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from typing import Any

from openline.client.answers import Answer, Answers
from openline.client.errors import typed
from openline.client.results import Result
from openline.errors import OpenlineError, error, why_of_all
from openline.reasons import NO, Reason

DEFAULT_CONCURRENCY = 32


class Course:
    """Whether a fan-out begins more commands: not after one that was ended with all of its owner's, say."""

    def __init__(self) -> None:
        self._called_off: str | None = None

    def check(self) -> None:
        """Before a command is begun. Raises Cancelled."""
        if self._called_off is not None:
            raise typed(OpenlineError(error(Reason.CANCELLED, self._called_off, executed=NO)))

    def failed(self, failure: OpenlineError) -> None:
        """What became of one."""
        if self._called_off is None:
            self._called_off = why_of_all(failure.error)


class FanOut:
    """`await` it for all answers, or take them by `async for cluster_id, answer in` it as they come.

    A cluster that fails is an answer as well and holds up nobody; but where one was ended with all of its session,
    conversation or owner, no more are begun, and those are Cancelled. Whoever stops before the end stops waiting for
    the rest, which runs on unless it was to be cancelled with its caller.
    """

    def __init__(
        self, run: Callable[[str], Awaitable[Result]], cluster_ids: Iterable[str], *, concurrency: int
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        self._run = run
        self._cluster_ids = list(dict.fromkeys(cluster_ids))
        self._concurrency = concurrency

    def __await__(self) -> Generator[Any, None, Answers]:
        return self._all().__await__()

    def __aiter__(self) -> AsyncGenerator[tuple[str, Answer], None]:
        return self._each()

    async def _all(self) -> Answers:
        answers = {cluster_id: answer async for cluster_id, answer in self._each()}
        return Answers({cluster_id: answers[cluster_id] for cluster_id in self._cluster_ids})

    async def _each(self) -> AsyncGenerator[tuple[str, Answer], None]:
        waiting = iter(self._cluster_ids)
        running: dict[asyncio.Task[Answer], str] = {}
        course = Course()

        def start() -> None:
            while len(running) < self._concurrency and (cluster_id := next(waiting, None)) is not None:
                answering = self._answer(cluster_id, course)
                running[asyncio.create_task(answering, name=f"fan out {cluster_id}")] = cluster_id

        try:
            start()
            while running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                come = [(running.pop(task), task.result()) for task in done]
                # Before they are shown: whoever looks at them slowly does not slow down the rest.
                start()
                for cluster_id, answer in come:
                    yield cluster_id, answer
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _answer(self, cluster_id: str, course: Course) -> Answer:
        try:
            course.check()
            return await self._run(cluster_id)
        except OpenlineError as failure:
            course.failed(failure)
            return failure
