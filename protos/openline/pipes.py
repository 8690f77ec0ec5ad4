"""Pipes to several broker replicas: kept open in the background, and the choice which one a call goes to.

The first address is preferred while it is healthy. A call that surely has not run may be asked of the next replica; one
that may have run is never sent again from here.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import structlog

from openline.asking import attach_elsewhere, find_elsewhere, less, more_telling, run_elsewhere
from openline.calls import broker_unavailable
from openline.channels import open_channel
from openline.errors import OpenlineError
from openline.limits import RECONNECT_MIN_S
from openline.pipe import Pipe, PipeState
from openline.reasons import NO, UNKNOWN, Reason
from openline.settings import Address
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb

log = structlog.get_logger()

# A call made while no replica is connected waits so long for one: long enough for a restart, short for a person.
CONNECT_WAIT_S = 1.0
# Callers of pipes are few, so there is no storm to spread out as there is with executors.
RECONNECT_MAX_S = 2.0
# A pipe that lived so long was healthy: the next wait starts small again.
HEALTHY_AFTER_S = 10.0
# The longest that a replica's GoAway is obeyed.
MAX_RECONNECT_AFTER_S = 60.0
# Where the cluster may connect to any of several replicas, each waits so long for it before the next one does.
WAIT_SLICE_S = 1.0


@dataclass(slots=True)
class Replica:
    """One address, its channel (for unary calls as well), and the pipe on it while there is one."""

    address: Address
    channel: grpc.aio.Channel
    pipe: Pipe | None = None

    @property
    def is_connected(self) -> bool:
        return self.pipe is not None and self.pipe.state is PipeState.OPEN


class Pipes:
    """A pipe to each of `addresses`, kept open from `async with` to its end; `client` is for the brokers' logs.

    Raises OSError for a TLS file that cannot be read.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        client: str,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
    ) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        # In the order given, which is the order of preference.
        self.replicas = tuple(Replica(a, open_channel(a, ca=ca, cert=cert, key=key)) for a in dict.fromkeys(addresses))
        # A defect in a keeper ends whoever is inside `async with`: a gateway that silently lost a replica helps nobody.
        self._keepers = asyncio.TaskGroup()
        self._kept: list[asyncio.Task[None]] = []
        # Set when the next pipe opens, and replaced by a new one then.
        self._opened = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Pipes {' '.join(f'{r.address}={r.pipe!r}' for r in self.replicas)}>"

    async def __aenter__(self) -> Self:
        await self._keepers.__aenter__()
        self._kept = [self._keepers.create_task(self._keep_open(r), name=f"pipe {r.address}") for r in self.replicas]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._kept:
            task.cancel()
        try:
            await self._keepers.__aexit__(None, None, None)
        finally:
            for replica in self.replicas:
                await replica.channel.close()

    def in_order(self) -> list[Replica]:
        """Every replica, the one to ask first in front: heard from lately, then connected, then not connected."""

        def preference(replica: Replica) -> int:
            if replica.pipe is None or not replica.is_connected:
                return 2
            return 1 if replica.pipe.is_quiet else 0

        return sorted(self.replicas, key=preference)

    async def execute(self, request: pb.ExecuteRequest, *, api_key: str, timeout_s: float) -> pb.ExecuteResponse:
        """Runs a command on whichever replica can, and waits up to `timeout_s` for its result, all told.

        The request must bring its command id, so that it is the same command wherever it is asked. Raises
        OpenlineError: of several replicas' answers the most telling one.
        """
        told: OpenlineError | None = None
        started_at = self._loop.time()
        await self.wait_for_a_pipe(timeout_s)
        for pipe, asked, left_s in self.tries(request, started_at=started_at, timeout_s=timeout_s):
            try:
                return await pipe.execute(asked, api_key=api_key, timeout_s=left_s)
            except OpenlineError as failure:
                if not (run_elsewhere(failure) or attach_elsewhere(failure)):
                    raise
                told = more_telling(told, failure)
        raise told or broker_unavailable("no broker replica can be reached", executed=NO)

    async def cancel(
        self, request: pb.CancelCommandRequest, *, api_key: str, timeout_s: float
    ) -> command_pb2.CommandState.ValueType:
        """Asks for a command to be stopped, of whichever replica knows it; the state in which that found it."""
        told: OpenlineError | None = None
        await self.wait_for_a_pipe(timeout_s)
        for pipe in self.open_pipes():
            try:
                return (await pipe.cancel(request, api_key=api_key, timeout_s=timeout_s)).state
            except OpenlineError as failure:
                if not find_elsewhere(failure):
                    raise
                told = more_telling(told, failure)
        raise self.not_found(told)

    def tries(
        self, request: pb.ExecuteRequest, *, started_at: float, timeout_s: float
    ) -> Iterator[tuple[Pipe, pb.ExecuteRequest, float]]:
        """Whom to ask next to run a command, with what is left of the request's times and of `timeout_s`.

        Among several replicas each is asked at once, and then to wait for the cluster, in turns.
        """
        wait_s: float | None = None if len(self.replicas) == 1 else 0.0
        # What is less than this before the first try is no time: then the request goes as it came.
        negligible_s = 0.001
        while True:
            round_at = self._loop.time()
            for pipe in self.open_pipes():
                elapsed_s = self._loop.time() - started_at
                if elapsed_s >= timeout_s:
                    return
                if elapsed_s < negligible_s:
                    elapsed_s = 0.0
                negligible_s = 0.0
                yield pipe, less(request, elapsed_s, wait_s=wait_s), timeout_s - elapsed_s
            now = self._loop.time()
            # A round that took no time although it was to wait would be one of many.
            if wait_s is None or now - started_at >= request.wait_for_cluster_s or now - round_at < wait_s / 2:
                return
            wait_s = WAIT_SLICE_S

    def open_pipes(self) -> Iterator[Pipe]:
        """Each open pipe once, looked up anew at each step: time passes between them."""
        quiet = []
        for replica in self.replicas:
            if replica.pipe is not None and replica.is_connected:
                if replica.pipe.is_quiet:
                    quiet.append(replica.pipe)
                else:
                    yield replica.pipe
        yield from (pipe for pipe in quiet if pipe.state is PipeState.OPEN)

    def not_found(self, told: OpenlineError | None) -> OpenlineError:
        """What to tell of a command that none of the open pipes knows: one that is not open might."""
        away = broker_unavailable("a broker replica that may know the command cannot be reached", executed=UNKNOWN)
        if told is None or (told.reason is Reason.COMMAND_UNKNOWN and not all(r.is_connected for r in self.replicas)):
            return away
        return told

    async def wait_for_a_pipe(self, timeout_s: float) -> None:
        """Waits, while none is open, for one to open; not for long."""
        if any(replica.is_connected for replica in self.replicas):
            return
        try:
            async with asyncio.timeout(min(CONNECT_WAIT_S, timeout_s)):
                await self._opened.wait()
        except TimeoutError:
            return

    async def _keep_open(self, replica: Replica) -> None:
        """Opens the pipe, runs it to its end, waits, and again, with full jitter, until cancelled."""
        bound_s = RECONNECT_MIN_S
        while True:
            reconnect_after_s = 0.0
            try:
                pipe = await Pipe.open(replica.channel, client=self._client)
            except OpenlineError as failure:
                # The first time it is news; the same every second is not.
                say = log.warning if bound_s == RECONNECT_MIN_S else log.debug
                say("pipe.refused", broker=replica.address, why=failure.error.message)
            else:
                opened_at = self._loop.time()
                await self._carry(replica, pipe)
                reconnect_after_s = min(pipe.reconnect_after_s, MAX_RECONNECT_AFTER_S)
                if self._loop.time() - opened_at > HEALTHY_AFTER_S:
                    bound_s = RECONNECT_MIN_S
            await asyncio.sleep(reconnect_after_s + random.uniform(0, bound_s))  # noqa: S311
            bound_s = min(RECONNECT_MAX_S, 2 * bound_s)

    async def _carry(self, replica: Replica, pipe: Pipe) -> None:
        """Offers an open pipe to callers until it ends."""
        log.info("pipe.opened", broker=replica.address, replica_id=pipe.replica_id)
        why = "the broker ended it"
        replica.pipe = pipe
        self._opened.set()
        self._opened = asyncio.Event()
        try:
            await pipe.run()
        except OpenlineError as broken:
            why = broken.error.message
        finally:
            replica.pipe = None
        log.info("pipe.closed", broker=replica.address, replica_id=pipe.replica_id, why=why)
