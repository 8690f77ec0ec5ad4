"""Several broker replicas as one: a pipe to each is kept open, and whichever answers is as good as any other.

The first address is preferred while it is healthy. Every replica takes any command and finds any command, so another
one is asked only when that one could not be reached or broke off, until the caller's deadline.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

import grpc
from structlog.typing import FilteringBoundLogger

from openline.asking import Asking, check_answered
from openline.calls import broker_unavailable
from openline.channels import Dialer, FreshChannel
from openline.errors import OpenlineError
from openline.fresh import Fresh
from openline.keeping import Keeper
from openline.pipe import Pipe
from openline.pipe_state import PipeState
from openline.reasons import UNKNOWN, Reason
from openline.settings import Address
from openline.tls import Pems, TlsFiles
from openline.turns import News, Turns
from openline.v1 import command_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class Replica:
    """One address, the way to it (for unary calls as well), and who keeps a pipe on it open."""

    address: Address
    way: FreshChannel
    keeper: Keeper

    @property
    def channel(self) -> grpc.aio.Channel:
        return self.way.channel

    @property
    def pipe(self) -> Pipe | None:
        return self.keeper.pipe

    @property
    def is_connected(self) -> bool:
        return self.pipe is not None and self.pipe.state is PipeState.OPEN


class Pipes:
    """A pipe to each of `addresses`, kept open from `async with` to its end; `client` is for the brokers' logs.

    Raises OSError for TLS files that cannot be used. They are read again whenever a pipe is opened.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        client: str,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        log: FilteringBoundLogger | None = None,
    ) -> None:
        self._client = client
        self._log = log
        self._opened = News()
        # In the order given, which is the order of preference.
        self._dialer = Dialer(TlsFiles(ca, cert, key), use="brokers", log=log)
        self.replicas = tuple(map(self._replica, dict.fromkeys(addresses)))
        # Of all of them together, as a span has it.
        self.addresses = ",".join(replica.address for replica in self.replicas)
        # A defect in a keeper ends whoever is inside `async with`: a gateway that silently lost a replica helps nobody.
        self._keeping = asyncio.TaskGroup()
        self._kept: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<Pipes {' '.join(f'{r.address}={r.pipe!r}' for r in self.replicas)}>"

    @property
    def certificates(self) -> Fresh[Pems] | None:
        """What the brokers are shown, and whom they are believed by; None for plaintext."""
        return self._dialer.files

    async def __aenter__(self) -> Self:
        await self._keeping.__aenter__()
        self._kept = [self._keeping.create_task(r.keeper.run(), name=f"keep {r.address}") for r in self.replicas]
        if (files := self._dialer.files) is not None:
            self._kept.append(self._keeping.create_task(files.watch(), name="certificates"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._kept:
            task.cancel()
        try:
            await self._keeping.__aexit__(None, None, None)
        finally:
            # A task holds its frames, they hold their pipe, that holds its call, and while that lives gRPC keeps the
            # connection, whether the channel is closed or not.
            self._kept.clear()
            for replica in self.replicas:
                await replica.way.close()

    def in_order(self) -> list[Replica]:
        """Every replica, the one to ask first in front: heard from lately, then connected, then not connected."""

        def preference(replica: Replica) -> int:
            if replica.pipe is None or not replica.is_connected:
                return 2
            return 1 if replica.pipe.is_quiet else 0

        return sorted(self.replicas, key=preference)

    async def execute(self, request: pb.ExecuteRequest, *, api_key: str, timeout_s: float) -> pb.ExecuteResponse:
        """Runs a command and waits up to `timeout_s` for its result, all told.

        The request must bring its command id, so that it is the same command whichever replica is asked. Raises
        OpenlineError: what a replica answered, or BROKER_UNAVAILABLE when the time is up.
        """
        asking = Asking(request, now=monotonic(), timeout_s=timeout_s)
        turns = self.turns()
        while (pipe := await turns.next(asking.ends_at)) is not None:
            now = monotonic()
            try:
                response = await pipe.execute(asking.request(now), api_key=api_key, timeout_s=asking.deadline - now)
                check_answered(response.result)
            except OpenlineError as failure:
                asking.failed(failure)
            else:
                return response
        raise asking.given_up()

    async def cancel(
        self, request: pb.CancelCommandRequest, *, api_key: str, timeout_s: float
    ) -> pb.CancelCommandResponse:
        """Asks for a command to be stopped; says the state in which it was found. May be asked of several replicas.

        Raises OpenlineError: what a replica answered, or BROKER_UNAVAILABLE when the time is up.
        """
        ends_at = monotonic() + timeout_s
        turns = self.turns()
        while (pipe := await turns.next(ends_at)) is not None:
            left_s = ends_at - monotonic()
            # One that does not answer may be frozen: then there is time to ask another one.
            patience_s = left_s if len(self.replicas) == 1 else left_s / 2
            try:
                return await pipe.cancel(request, api_key=api_key, timeout_s=patience_s)
            except OpenlineError as failure:
                if failure.reason is not Reason.BROKER_UNAVAILABLE:
                    raise
        raise broker_unavailable(f"no answer from a broker replica within {timeout_s:g} s", executed=UNKNOWN)

    def turns(self) -> Turns:
        """Whom to ask, for one call."""
        return Turns(self._open_pipes, self._opened)

    def _open_pipes(self) -> Iterator[Pipe]:
        """Each open pipe once: those of replicas that were heard from lately, then the others."""
        quiet = []
        for replica in self.replicas:
            if (pipe := replica.pipe) is not None and pipe.state is PipeState.OPEN:
                if pipe.is_quiet:
                    quiet.append(pipe)
                else:
                    yield pipe
        yield from quiet

    def _replica(self, address: Address) -> Replica:
        way = FreshChannel(address, self._dialer)

        async def open_pipe() -> Pipe:
            return await Pipe.open(way.renew(), client=self._client)

        return Replica(address, way, Keeper(address, open_pipe, self._opened.tell, log=self._log))
