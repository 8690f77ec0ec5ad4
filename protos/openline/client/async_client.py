"""AsyncClient: the client for asyncio, on a pipe to each broker replica."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from openline import __version__, watching
from openline.client.async_session import AsyncSession
from openline.client.clusters import Cluster, read_cluster
from openline.client.conversations import CancelledCommands, Reading, cancel_request
from openline.client.errors import typed_errors
from openline.client.events import Event, EventReader
from openline.client.fan_out import DEFAULT_CONCURRENCY, FanOut
from openline.client.kinds import CommandState
from openline.client.logs import log
from openline.client.requests import (
    LONGEST_WATCH_S,
    Access,
    CommandOptions,
    HasSessionId,
    Options,
    Wanted,
    execute_request,
    for_each_cluster,
    patience_s,
    session_request,
)
from openline.client.results import Command, Result, read_answer, read_command, read_state
from openline.events import CommandEvents
from openline.limits import DEFAULT_TIMEOUT_S
from openline.lookups import CANCEL_ALL_S, MAX_PAGES, TIMEOUT_S, Lookups
from openline.pipes import Pipes
from openline.v1.cluster_service_pb2 import ListClustersRequest
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from openline.v1.command_service_pb2 import CancelCommandRequest, ExecuteRequest
from openline.v1.command_service_pb2_grpc import CommandServiceStub


class AsyncClient:
    """Runs commands in clusters, by way of whichever broker replica answers.

        async with AsyncClient("10.0.0.1:50051,10.0.0.2:50051", api_key) as client:
            result = await client.execute("prod-east", "get", "pods", "-n", "shop")
            print(result.text)

    `brokers` is HOST:PORT[,HOST:PORT…] or a list, the preferred one first. With `ca` (and `cert` and `key`, PEM files)
    it speaks TLS. `timeout_s` is that of a command which names none. One client serves any number of tasks of one event
    loop; it is left by the task that entered it. When a replica is lost, another one is asked to find the command, and
    nothing is run twice.

    Every method raises OpenlineError in the class of its reason (`openline.client.errors`), ValueError before that
    for what cannot be meant, and on entering OSError for a TLS file that cannot be used. They are read again for every
    connection.
    """

    def __init__(
        self,
        brokers: str | Sequence[str],
        api_key: str,
        *,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._access = Access.of(brokers, api_key, ca=ca, cert=cert, key=key, timeout_s=timeout_s)
        self._pipes: Pipes | None = None

    def __repr__(self) -> str:
        return f"<AsyncClient {','.join(self._access.addresses)} {self._pipes!r}>"

    async def __aenter__(self) -> Self:
        access = self._access
        access.warn_of_plaintext()
        pipes = Pipes(
            access.addresses,
            client=f"openline-client/{__version__}",
            ca=access.tls.ca,
            cert=access.tls.cert,
            key=access.tls.key,
            log=log,
        )
        self._pipes = await pipes.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pipes, self._pipes = self._open, None
        await pipes.__aexit__(kind, failure, traceback)

    async def execute(self, cluster_id: str, *words: str, **options: Unpack[CommandOptions]) -> Result:
        """Runs `kubectl` with these words (or `command="get pods"`) and waits for its end.

        A command that failed is a result with its exit code; see `Result.check`.
        """
        request = execute_request(cluster_id, words, options, timeout_s=self._access.timeout_s)
        with typed_errors(request.command_id):
            response = await self._open.execute(request, api_key=self._access.api_key, timeout_s=patience_s(request))
            return read_answer(response, request)

    def stream(self, cluster_id: str, *words: str, **options: Unpack[CommandOptions]) -> AsyncGenerator[Event, None]:
        """Runs a command and gives its states, output and gaps as they come; its Result is the last.

        Whoever stops before the end closes it (`contextlib.aclosing`); the command runs on, unless
        `cancel_on_disconnect` says otherwise.
        """
        request = execute_request(cluster_id, words, options, timeout_s=self._access.timeout_s)
        timeout_s = patience_s(request)
        return _read(
            watching.execute_stream(self._open, request, api_key=self._access.api_key, timeout_s=timeout_s), request
        )

    def watch(
        self, command_id: str, *, from_seq: int = 0, timeout_s: float = LONGEST_WATCH_S
    ) -> AsyncGenerator[Event, None]:
        """Attaches to a command, running or done: its events, output from `from_seq` on, then its Result."""
        key = self._access.api_key
        return _read(
            watching.watch(self._open, command_id, from_seq=from_seq, api_key=key, timeout_s=timeout_s),
            ExecuteRequest(command_id=command_id),
        )

    async def get(self, command_id: str, *, wait_s: float = 0.0) -> Command:
        """Looks a command up, running or done, until its result expires; waits up to `wait_s` for its end."""
        with typed_errors(command_id):
            return read_command(await self._lookups.get_command(command_id, wait_s=wait_s))

    async def commands(self, **wanted: Unpack[Wanted]) -> list[Command]:
        """Commands of the key's owner that run or whose results have not expired, newest first unless `oldest_first`.

        Without output.
        """
        reading = Reading(wanted)
        with typed_errors():
            while reading.take(
                await self._lookups.ask(lambda channel: CommandServiceStub(channel).ListCommands, reading.request)
            ):
                pass
        return reading.commands

    async def cancel(self, command_id: str, *, why: str = "cancelled by its caller") -> CommandState:
        """Asks for a command to be stopped; the state it was found in. One that is done stays as it is."""
        request = CancelCommandRequest(command_id=command_id, why=why)
        with typed_errors(command_id):
            cancelled = await self._open.cancel(request, api_key=self._access.api_key, timeout_s=TIMEOUT_S)
            return read_state(cancelled.state)

    async def cancel_commands(
        self, *, session: str | HasSessionId = "", correlation_id: str = "", why: str = "cancelled by its caller"
    ) -> CancelledCommands:
        """Stops all that runs or waits in a session or a conversation of the key's owner, on every replica.

        Nothing is forbidden by it: what is asked for afterwards runs.
        """
        request = cancel_request(session=session, correlation_id=correlation_id, why=why)
        with typed_errors():
            answer = await self._lookups.ask(
                lambda channel: CommandServiceStub(channel).CancelCommands, request, timeout_s=CANCEL_ALL_S
            )
        return CancelledCommands.of(answer)

    def fan_out(
        self,
        cluster_ids: Iterable[str],
        *words: str,
        concurrency: int = DEFAULT_CONCURRENCY,
        **options: Unpack[Options],
    ) -> FanOut:
        """Runs one command on many clusters, `concurrency` at a time: await it, or take the answers as they come.

        Every cluster has the whole `timeout_s`, and its own answer: a Result or an OpenlineError. Where a kill switch
        ended one with all of its session, conversation or owner, no more are begun: those are Cancelled.
        """
        return FanOut(
            lambda cluster_id: self.execute(cluster_id, *words, **for_each_cluster(options, cluster_id)),
            cluster_ids,
            concurrency=concurrency,
        )

    def session(
        self, cluster_id: str, *, ttl_s: int = 0, user_id: str = "", correlation_id: str = "", keep: bool = False
    ) -> AsyncSession:
        """A session with a cluster, from `async with` to its end; with `keep` it lives on until it expires.

        It lives for `ttl_s` (60..3600, default 300) after its last command.
        """
        request = session_request(cluster_id, ttl_s=ttl_s, user_id=user_id, correlation_id=correlation_id)
        return AsyncSession(self, self._lookups, request, keep=keep)

    async def clusters(self) -> list[Cluster]:
        """The clusters that the key may see, sorted by id."""
        clusters: list[Cluster] = []
        request = ListClustersRequest()
        with typed_errors():
            for _ in range(MAX_PAGES):
                page = await self._lookups.ask(lambda channel: ClusterServiceStub(channel).ListClusters, request)
                clusters += [read_cluster(cluster) for cluster in page.clusters]
                if not page.next_page_token:
                    break
                request = ListClustersRequest(page_token=page.next_page_token)
        return clusters

    @property
    def _lookups(self) -> Lookups:
        return Lookups(self._open, api_key=self._access.api_key)

    @property
    def _open(self) -> Pipes:
        if self._pipes is None:
            raise RuntimeError("the client is not open: use `async with`")
        return self._pipes


async def _read(events: CommandEvents, request: ExecuteRequest) -> AsyncGenerator[Event, None]:
    reader = EventReader(request)
    async with aclosing(events):
        with typed_errors(request.command_id):
            async for event in events:
                if (shown := reader.read(event)) is not None:
                    yield shown
