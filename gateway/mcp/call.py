"""One call of a tool: who makes it, how it is known again, and how its caller hears that it goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

import anyio

from gateway.callers import Caller
from gateway.calling_off import Commands, take_back
from gateway.mcp.arguments import LONGEST_WAIT_S
from gateway.mcp.naming import id_of
from openline.ids import new_id
from openline.pipes import Pipes
from openline.v1.command_service_pb2 import ExecuteRequest

# Between two signs of life. What is over by then needs none.
PROGRESS_S = 1.0

# How long it takes, in seconds, and what there is to say of it.
Report = Callable[[float, str], Awaitable[None]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    caller: Caller
    pipes: Pipes
    # What it has begun. Where it is taken back before that it begins nothing.
    commands: Commands
    # What its commands are known by (see `naming`); None in a session that has no id.
    name: str | None
    # Of time.monotonic.
    arrived_at: float
    # The client's leaving takes the call back. In older protocols it does not: a message does.
    ends_with_client: bool
    # None where no progress was asked for.
    report: Report | None

    def left_s(self) -> float:
        """Of the time in which a client wants an answer."""
        return max(0.0, self.arrived_at + LONGEST_WAIT_S - monotonic())

    def give_ids(self, requests: Sequence[ExecuteRequest]) -> None:
        """Makes the commands known by this call."""
        for nth, request in enumerate(requests):
            request.command_id = new_id() if self.name is None else id_of(self.name, nth, now_s=time.time())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Its commands are cancelled when it is taken back meanwhile."""
        try:
            yield
        except asyncio.CancelledError:
            if self.ends_with_client:
                with anyio.CancelScope(shield=True):
                    await take_back(self.pipes, self.commands, api_key=self.caller.api_key)
            raise

    async def wait(self, work: "asyncio.Task[T]", *, wait_s: float, describe: Callable[[], str]) -> bool:
        """Whether the work is done within that time. Progress is told meanwhile, if that was asked for."""
        began = monotonic()
        while not work.done() and (left_s := began + wait_s - monotonic()) > 0:
            await asyncio.wait({work}, timeout=left_s if self.report is None else min(left_s, PROGRESS_S))
            if self.report is not None and not work.done():
                await self.report(round(monotonic() - began, 1), describe())
        return work.done()


@asynccontextmanager
async def ended(work: "asyncio.Task[T]") -> AsyncIterator[None]:
    """The work does not outlive the block, also where the SDK cancels whatever waits in it again and again."""
    try:
        yield
    finally:
        work.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(work, return_exceptions=True)
