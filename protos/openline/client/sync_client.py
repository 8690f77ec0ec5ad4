"""Client: the client for programs without an event loop, on plain calls to whichever broker replica answers."""

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self, Unpack

from openline.asking import Asking, check_answered
from openline.channels import Dialer
from openline.client.answers import Answer, Answers
from openline.client.clusters import Cluster, read_cluster
from openline.client.conversations import CancelledCommands, Reading, cancel_request
from openline.client.errors import typed_errors
from openline.client.events import Event, EventReader
from openline.client.fan_out import Course
from openline.client.kinds import CommandState
from openline.client.lines import Line, Lines
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
from openline.client.sync_session import Session
from openline.errors import OpenlineError
from openline.limits import DEFAULT_TIMEOUT_S
from openline.lookups import CANCEL_ALL_S, MAX_PAGES
from openline.reasons import NO, UNKNOWN, Reason
from openline.trail import Trail, run_trail, watch_trail
from openline.v1.cluster_service_pb2 import ListClustersRequest
from openline.v1.command_service_pb2 import CancelCommandRequest, ExecuteRequest, ExecuteResponse

# Of threads, one for each cluster that is being asked.
DEFAULT_CONCURRENCY = 16
# Ends whose output so far may not have fitted into the status that told of them.
_STOPPED = frozenset({Reason.COMMAND_TIMEOUT, Reason.CANCELLED})


class Client:
    """Runs commands in clusters, by way of whichever broker replica answers.

        with Client("10.0.0.1:50051,10.0.0.2:50051", api_key) as client:
            print(client.execute("prod-east", "get", "pods", "-n", "shop").text)

    `brokers` is HOST:PORT[,HOST:PORT…] or a list, the preferred one first. With `ca` (and `cert` and `key`, PEM files)
    it speaks TLS. `timeout_s` is that of a command which names none. One client serves any number of threads. When a
    replica is lost, another one is asked to find the command, and nothing is run twice.

    Every method raises OpenlineError in the class of its reason (`openline.client.errors`). ValueError from here for
    what cannot be meant, OSError for a TLS file that cannot be used. They are read again when a connection has broken.
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
        access = Access.of(brokers, api_key, ca=ca, cert=cert, key=key, timeout_s=timeout_s)
        self._timeout_s = access.timeout_s
        access.warn_of_plaintext()
        dialer = Dialer(access.tls, use="brokers", log=log)
        self._lines = Lines([Line(address, dialer, api_key=api_key) for address in access.addresses])

    def __repr__(self) -> str:
        return f"<Client {self._lines!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Whoever still waits is told BrokerUnavailable; what runs, runs on."""
        self._lines.close()

    def execute(self, cluster_id: str, *words: str, **options: Unpack[CommandOptions]) -> Result:
        """Runs `kubectl` with these words (or `command="get pods"`) and waits for its end.

        A command that failed is a result with its exit code; see `Result.check`.
        """
        request = execute_request(cluster_id, words, options, timeout_s=self._timeout_s)
        with typed_errors(request.command_id):
            try:
                return read_answer(self._run(request), request)
            except OpenlineError as failure:
                self._fetch_output(failure, request)
                raise

    def stream(self, cluster_id: str, *words: str, **options: Unpack[CommandOptions]) -> Generator[Event, None, None]:
        """Runs a command and gives its states, output and gaps as they come; its Result is the last.

        Whoever stops before the end closes it (`contextlib.closing`); the command runs on, unless
        `cancel_on_disconnect` says otherwise.
        """
        request = execute_request(cluster_id, words, options, timeout_s=self._timeout_s)
        return self._read(lambda: run_trail(request, timeout_s=patience_s(request)), request)

    def watch(
        self, command_id: str, *, from_seq: int = 0, timeout_s: float = LONGEST_WATCH_S
    ) -> Generator[Event, None, None]:
        """Attaches to a command, running or done: its events, output from `from_seq` on, then its Result."""
        request = ExecuteRequest(command_id=command_id)
        return self._read(lambda: watch_trail(command_id, from_seq=from_seq, timeout_s=timeout_s), request)

    def get(self, command_id: str, *, wait_s: float = 0.0) -> Command:
        """Looks a command up, running or done, until its result expires; waits up to `wait_s` for its end."""
        with typed_errors(command_id):
            return read_command(self._lines.look_up(command_id, wait_s=wait_s))

    def commands(self, **wanted: Unpack[Wanted]) -> list[Command]:
        """Commands of the key's owner that run or whose results have not expired, newest first unless `oldest_first`.

        Without output.
        """
        reading = Reading(wanted)
        ask = partial(self._lines.ask, lambda line: line.commands.ListCommands, reading.request)
        with typed_errors():
            while reading.take(ask()):
                pass
        return reading.commands

    def cancel(self, command_id: str, *, why: str = "cancelled by its caller") -> CommandState:
        """Asks for a command to be stopped; the state it was found in. One that is done stays as it is."""
        request = CancelCommandRequest(command_id=command_id, why=why)
        with typed_errors(command_id):
            answer = self._lines.first_answer(
                lambda line, timeout_s: line.ask(line.commands.CancelCommand, request, timeout_s=timeout_s),
                executed=UNKNOWN,
            )
        return read_state(answer.state)

    def cancel_commands(
        self, *, session: str | HasSessionId = "", correlation_id: str = "", why: str = "cancelled by its caller"
    ) -> CancelledCommands:
        """Stops all that runs or waits in a session or a conversation of the key's owner, on every replica.

        Nothing is forbidden by it: what is asked for afterwards runs.
        """
        request = cancel_request(session=session, correlation_id=correlation_id, why=why)
        with typed_errors():
            answer = self._lines.ask(lambda line: line.commands.CancelCommands, request, more_s=CANCEL_ALL_S / 2)
        return CancelledCommands.of(answer)

    def fan_out(
        self,
        cluster_ids: Iterable[str],
        *words: str,
        concurrency: int = DEFAULT_CONCURRENCY,
        **options: Unpack[Options],
    ) -> Answers:
        """Runs one command on many clusters, `concurrency` at a time, and waits for them all.

        Every cluster has the whole `timeout_s`, and its own answer: a Result or an OpenlineError. Where a kill switch
        ended one with all of its session, conversation or owner, no more are begun: those are Cancelled.
        """
        course = Course()

        def run(cluster_id: str) -> Answer:
            try:
                course.check()
                return self.execute(cluster_id, *words, **for_each_cluster(options, cluster_id))
            except OpenlineError as failure:
                course.failed(failure)
                return failure

        ids = list(dict.fromkeys(cluster_ids))
        with ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="fan-out") as threads:
            return Answers(dict(zip(ids, threads.map(run, ids), strict=True)))

    def session(
        self, cluster_id: str, *, ttl_s: int = 0, user_id: str = "", correlation_id: str = "", keep: bool = False
    ) -> Session:
        """A session with a cluster, from `with` to its end; with `keep` it lives on until it expires.

        It lives for `ttl_s` (60..3600, default 300) after its last command.
        """
        request = session_request(cluster_id, ttl_s=ttl_s, user_id=user_id, correlation_id=correlation_id)
        return Session(self, self._lines, request, keep=keep)

    def clusters(self) -> list[Cluster]:
        """The clusters that the key may see, sorted by id."""
        clusters: list[Cluster] = []
        token = ""
        with typed_errors():
            for _ in range(MAX_PAGES):
                page = self._lines.ask(lambda line: line.clusters.ListClusters, ListClustersRequest(page_token=token))
                clusters += [read_cluster(cluster) for cluster in page.clusters]
                if not (token := page.next_page_token):
                    break
        return clusters

    def _run(self, request: ExecuteRequest) -> ExecuteResponse:
        """The same rules as `Pipes.execute`."""
        asking = Asking(request, now=monotonic(), timeout_s=patience_s(request))
        for line in self._lines.turns(lambda: asking.ends_at):
            try:
                self._lines.reach(line, asking.ends_at - monotonic())
                now = monotonic()
                left_s = max(0.001, asking.deadline - now)
                response = line.ask(line.commands.Execute, asking.request(now), timeout_s=left_s)
                check_answered(response.result)
            except OpenlineError as failure:
                asking.failed(failure)
            else:
                return response
        raise asking.given_up()

    def _read(self, trail: Callable[[], Trail], request: ExecuteRequest) -> Generator[Event, None, None]:
        reader = EventReader(request)
        with closing(self._lines.follow(trail())) as events, typed_errors(request.command_id):
            for event in events:
                if (shown := reader.read(event)) is not None:
                    yield shown

    def _fetch_output(self, failure: OpenlineError, request: ExecuteRequest) -> None:
        """The output so far, where the status had no room for it and the key may look."""
        if failure.result is not None or failure.reason not in _STOPPED or failure.error.executed == NO:
            return
        try:
            command = self._lines.look_up(failure.command_id or request.command_id, wait_s=0.0)
        except OpenlineError:
            return
        if command.HasField("result"):
            failure.result = command.result
