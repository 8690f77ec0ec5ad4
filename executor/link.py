"""The line to the brokers: dials them in turn, one connection at a time, and dials again whenever one has ended.

Any status is a reason to dial again; only the wait differs. Nothing here stops a command.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle

import grpc
import structlog

from executor.activity import Activity
from executor.commands import Commands
from executor.connection import Connection, End
from executor.pace import Pace
from executor.settings import ExecutorSettings
from openline.channels import open_channel
from openline.settings import Address
from openline.v1 import executor_service_pb2 as wire

# Statuses that dialing again at once cannot change: a token, a name or a version is wrong.
REFUSALS = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)

log = structlog.get_logger()


class Link:
    """Holds the line while `run` runs. `who` is what Hello says of this executor, without its commands; `active` is
    called whenever the broker says that the cluster is in use."""

    def __init__(
        self,
        settings: ExecutorSettings,
        who: wire.Hello,
        commands: Commands,
        *,
        pace: Pace,
        active: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._who = who
        self._commands = commands
        self._pace = pace
        self._activity = Activity()
        self._active = active
        self._connection: Connection | None = None
        self._stopped = asyncio.Event()
        self._failure = ""  # the last one logged
        self.connected = False

    async def run(self) -> None:
        """Dials until `close`."""
        # From a random one on, so that the executors of many clusters spread over the replicas.
        brokers = self._settings.broker
        first = random.randrange(len(brokers))  # noqa: S311
        addresses = cycle(brokers[first:] + brokers[:first])
        while not self._stopped.is_set():
            address = next(addresses)
            end = await self._connect(address)
            if end.lived_s is not None or not self._stopped.is_set():
                self._report(address, end)
            chance = random.random()  # noqa: S311
            refused = end.code in REFUSALS
            urgent = not self._commands.idle
            wait_s = (
                self._pace.refused(chance) if refused else self._pace.lost(end.lived_s or 0.0, chance, urgent=urgent)
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(max(wait_s, end.wait_s)):
                    await self._stopped.wait()

    def close(self) -> None:
        """Ends `run` when what is queued has been written."""
        self._stopped.set()
        if self._connection is not None:
            self._connection.close()

    async def _connect(self, address: Address) -> End:
        """One connection, from dialing to its end."""
        settings = self._settings
        try:
            token = settings.read_token()
            channel = open_channel(address, ca=settings.tls_ca, cert=settings.tls_cert, key=settings.tls_key)
        except (OSError, ValueError) as problem:
            return End(why=f"token or certificate: {problem}")
        held = self._commands.held()
        hello = wire.Hello(in_flight_ids=held.in_flight_ids, unacked_ids=held.unacked_ids)
        hello.MergeFrom(self._who)
        async with channel:
            self._connection = Connection(
                channel,
                self._commands,
                broker=address,
                token=token,
                activity=self._activity,
                welcomed=self._welcomed,
                active=self._active,
            )
            try:
                return await self._connection.hold(hello)
            finally:
                self._connection = None
                self.connected = False

    def _welcomed(self, welcome: wire.Welcome) -> None:
        self.connected = True
        self._pace.follow(welcome.reconnect)

    def _report(self, address: Address, end: End) -> None:
        """One line for a connection that stood; of attempts, one line whenever the reason changes."""
        status = end.code.name if end.code else None
        if end.lived_s is not None:
            self._failure = ""
            log.info(
                "connection.closed",
                broker=address,
                why=end.why,
                status=status,
                lived_s=round(end.lived_s, 1),
                unknown_frames=end.unknown_frames,
            )
        elif self._failure != (failure := f"{address} {status} {end.why}"):
            self._failure = failure
            log.warning("connection.failed", broker=address, why=end.why, status=status)
