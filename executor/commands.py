"""Carries out what the core decides: owns the processes, the deadline timer and the way to the stream that there is."""

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import structlog

from executor.actions import Action, Ended, Erase, Hold, Kill, Note, NotStarted, Result, Resume, Send, Spawn, Store
from executor.core import Core
from executor.kubectl import Kubectl
from executor.life import names
from executor.parties import Put
from executor.report import Source
from executor.runner import Run
from executor.spans import begin_process, end_process
from executor.spool import Spool
from openline.loudness import LOUDNESS
from openline.tracing.spans import Span
from openline.v1 import executor_service_pb2 as wire

log = structlog.get_logger()


class Commands:
    """All commands of this executor, whatever connection there is. An async context manager: it owns their tasks."""

    def __init__(self, core: Core, kubectl: Kubectl, *, spool: Spool | None = None) -> None:
        self._core = core
        self._kubectl = kubectl
        self._spool = spool
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._runs: dict[str, Run] = {}
        self._put: Put | None = None
        # What the timer waits for is kept beside it: uvloop's handle for what is due at once cannot tell.
        self._timer: asyncio.Handle | None = None
        self._timer_due: float | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops what has not ended and waits for it."""
        self.stop_all("the executor is stopping")
        try:
            await self._tasks.__aexit__(kind, problem, trace)
        finally:
            if self._timer is not None:
                self._timer.cancel()

    @property
    def load(self) -> tuple[int, int]:
        """How many commands run and how many wait."""
        return self._core.running, self._core.queued

    @property
    def idle(self) -> bool:
        """Nothing runs and no result waits to be acknowledged."""
        return self._core.idle

    # The connection

    def held(self) -> wire.Hello:
        """What Hello says of the commands, now."""
        return self._core.hello(self._loop.time())

    def welcomed(self, welcome: wire.Welcome, put: Put) -> None:
        """A broker has answered: from now on frames go to `put`."""
        self._put = put
        self._do(self._core.welcomed(welcome, self._loop.time()))

    def received(self, frame: wire.BrokerFrame) -> None:
        if LOUDNESS.is_debug and frame.HasField("execute"):
            log.debug("command.received", timeout_s=frame.execute.timeout_s, **names(frame.execute))
        self._do(self._core.received(frame, self._loop.time()))

    def disconnected(self) -> None:
        self._put = None
        self._core.disconnected()

    def restore(self, result: Result) -> None:
        """A result that an earlier process of this executor left."""
        self._do(self._core.restore(result, now=self._loop.time()))

    # The end

    def drain(self, reason: str) -> None:
        """Takes no more commands."""
        self._do(self._core.drain(reason))

    def stop_all(self, why: str) -> None:
        """Stops every command that has not ended."""
        self._do(self._core.stop_all(why, self._loop.time()))

    async def until(self, reached: Callable[[], bool]) -> None:
        """Waits until something that depends on the commands holds."""
        while not reached():
            self._changed.clear()
            await self._changed.wait()

    # What the core asks for

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(frame, output):
                    if self._put is not None:
                        self._put(frame, output=output)
                case Spawn():
                    self._spawn(action)
                case Kill(command_id):
                    run = self._runs[command_id]
                    log.debug("command.killed", **run.names)
                    run.kill()
                case Hold(command_id):
                    self._runs[command_id].hold()
                case Resume(command_id):
                    self._runs[command_id].resume()
                case Store(result):
                    if self._spool is not None:
                        self._spool.store(result)
                case Erase(command_id):
                    if self._spool is not None:
                        self._spool.erase(command_id)
                case Note(event, fields, warning):
                    (log.warning if warning else log.info)(event, **fields)
        self._set_timer()
        self._changed.set()

    def _spawn(self, spawn: Spawn) -> None:
        def wrote(source: Source, data: bytes) -> None:
            self._do(self._core.wrote(spawn.command_id, source, data, self._loop.time()))

        span = begin_process(spawn, program=self._kubectl.path.name)
        run = Run(
            self._kubectl,
            spawn.argv,
            max_bytes=spawn.max_bytes,
            masking=spawn.masking,
            names=spawn.names,
            traceparent=spawn.traceparent if span is None else span.traceparent,
            started=lambda: self._started(spawn),
            wrote=wrote if spawn.live else None,
        )
        # Before its task has had a turn, so that a Kill that follows at once finds it.
        self._runs[spawn.command_id] = run
        self._tasks.create_task(self._run(spawn.command_id, run, span), name=f"run-{spawn.command_id}")

    def _started(self, spawn: Spawn) -> None:
        log.debug("command.started", **spawn.names)
        self._do(self._core.started(spawn.command_id))

    async def _run(self, command_id: str, run: Run, span: Span | None) -> None:
        end: Ended | NotStarted = await run.run()
        if span is not None:
            end_process(span, end, pid=run.pid)
        del self._runs[command_id]
        self._do(self._core.ended(command_id, end, self._loop.time()))

    def _set_timer(self) -> None:
        """One timer, for the deadline that comes first."""
        due = self._core.next_deadline()
        if due == self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = None if due is None else self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer = self._timer_due = None
        self._do(self._core.expire(self._loop.time()))
