"""The line to the brokers: dials them in turn, one connection at a time, and dials again whenever one has ended.

Any status is a reason to dial again; only the wait differs. Nothing here stops a command.
"""

import asyncio
import itertools
import random
from collections.abc import Callable
from contextlib import suppress

import grpc
import structlog

from executor.activity import Activity
from executor.connection import Connection, End
from executor.pace import Pace
from executor.parties import Commands
from executor.route import Route
from executor.settings import ExecutorSettings
from openline.channels import Dialer
from openline.settings import Address
from openline.v1 import executor_service_pb2 as wire

# Statuses that dialing again at once cannot change: a token, a name or a version is wrong, or the cluster has too many
# executors.
REFUSALS = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
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
        # Raises OSError for certificates that cannot be used.
        self._dialer = Dialer(settings.tls, use="broker")
        self._who = who
        self._commands = commands
        self._pace = pace
        # In an order of its own, so that executors spread over the replicas, also those that lose the same one.
        self._route = Route(random.sample(settings.broker, k=len(settings.broker)), pace)
        self._ahead: grpc.aio.Channel | None = None  # to where a connection that is moving goes next
        self._activity = Activity()
        self._active = active
        self._attempts = itertools.count(1)
        self._connection: Connection | None = None
        self._stopped = asyncio.Event()
        self._token: str | None = None  # what the broker was shown last
        self._failures: dict[Address, str] = {}  # the last one that was logged of each
        self.connected = False

    async def run(self) -> None:
        """Dials until `close`."""
        try:
            while not self._stopped.is_set():
                address = self._route.address
                end = await self._connect(address)
                if end.lived_s is not None or not self._stopped.is_set():
                    self._report(address, end)
                wait_s = self._route.ended(
                    end.lived_s or 0.0,
                    moved=end.moved,
                    refused=_is_refusal(end),
                    urgent=not self._commands.idle,
                    chance=random.random(),  # noqa: S311  (jitter)
                )
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(wait_s, end.wait_s)):
                        await self._stopped.wait()
        finally:
            if self._ahead is not None:
                await self._ahead.close()

    async def watch_certificates(self) -> None:
        """Says soon after a change of the files whether they can be used; until cancelled."""
        if self._dialer.files is not None:
            await self._dialer.files.watch()

    def close(self) -> None:
        """Ends `run` when what is queued has been written."""
        self._stopped.set()
        if self._connection is not None:
            self._connection.close()

    def tell(self, frame: wire.ExecutorFrame) -> None:
        """Sends a frame about this executor, if there is a connection that stands."""
        if self._connection is not None and self.connected:
            self._connection.send(frame)

    def show_token(self, token: str) -> None:
        """Has the broker take this token for the one that the connection was opened with, if it is another one."""
        if self.connected and token != self._token:
            self._token = token
            self.tell(wire.ExecutorFrame(credential=wire.Credential(token=token)))
            log.info("token.shown")

    async def _connect(self, address: Address) -> End:
        """One connection, from dialing to its end."""
        channel = self._ahead or self._dialer.open(address)
        self._ahead = None
        async with channel:
            try:
                token = self._settings.read_token()
            except (OSError, ValueError) as problem:
                return End(why=f"token: {problem}")
            self._token = token
            hello = self._commands.held()
            hello.MergeFrom(self._who)
            hello.attempt = next(self._attempts)
            self._connection = Connection(
                channel,
                self._commands,
                broker=address,
                token=token,
                activity=self._activity,
                welcomed=self._welcomed,
                active=self._active,
                moving=self._open_ahead,
            )
            try:
                return await self._connection.hold(hello)
            finally:
                self._connection = None
                self.connected = False

    def _open_ahead(self) -> None:
        """Makes before it breaks: while one broker is being left, the way to the next is opened, but not used yet.

        Hello waits for the end of the connection before, since until then it is not certain what there is to tell.
        """
        if self._ahead is None and self._route.following != self._route.address:
            self._ahead = self._dialer.open(self._route.following)
            self._ahead.get_state(try_to_connect=True)

    def _welcomed(self, welcome: wire.Welcome) -> None:
        self.connected = True
        self._pace.follow(welcome.reconnect)

    def _report(self, address: Address, end: End) -> None:
        """One line for a connection that stood; of attempts, one for each broker whenever its reason changes."""
        status = end.code.name if end.code else None
        if end.lived_s is not None:
            self._failures.clear()
            log.info(
                "connection.closed",
                broker=address,
                why=end.why,
                status=status,
                lived_s=round(end.lived_s, 1),
                unknown_frames=end.unknown_frames,
            )
        elif self._failures.get(address) != (failure := f"{status} {end.why}"):
            self._failures[address] = failure
            log.warning("connection.failed", broker=address, why=end.why, status=status)


def _is_refusal(end: End) -> bool:
    """Whether dialing again at once would end the same."""
    # A token that was good until now was revoked. The one that takes its place may be in the file already.
    was_revoked = end.code is grpc.StatusCode.UNAUTHENTICATED and end.lived_s is not None
    return end.code in REFUSALS and not was_revoked
