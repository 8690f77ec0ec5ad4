"""Channels to the broker replicas for callers without a loop, and whom to ask next. Thread-safe.

What is asked, and what a failure means, is decided by `asking` and `trail`, as it is for asyncio.
"""

import random
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from time import monotonic
from typing import Any, TypeVar

import grpc

from openline.calls import broker_unavailable
from openline.channels import Dialer
from openline.errors import OpenlineError, from_rpc_error
from openline.lookups import MAX_WAIT_S, TIMEOUT_S, patience_s
from openline.reasons import NO, UNKNOWN, Reason
from openline.settings import Address
from openline.tls import Pems
from openline.trail import Trail
from openline.turns import FIRST_PAUSE_S, LONGEST_PAUSE_S
from openline.v1 import command_pb2
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from openline.v1.command_service_pb2 import ExecuteRequest, ExecuteStreamRequest, GetCommandRequest
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.session_service_pb2_grpc import SessionServiceStub

# For one replica to be reached, at most; its channel goes on connecting, for when its turn comes again.
CONNECT_S = 2.0

Q = TypeVar("Q")
A = TypeVar("A")

# The standard health check, of which an empty message asks for the server as a whole; as bytes, since only whether it
# is answered is of interest.
_KNOCK = "/grpc.health.v1.Health/Check"
_UNREACHED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})


class Line:
    """One replica: its channel and services. Every method raises OpenlineError, with grpc's error as its cause."""

    def __init__(self, address: Address, dialer: Dialer, *, api_key: str) -> None:
        self.address = address
        self._dialer = dialer
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        # It has answered, and nothing has broken since. Threads may set it at one time: it only saves a look.
        self.is_proven = False
        self._renewing = threading.Lock()
        self._is_closed = False
        # The one that was used until the certificates changed: calls that are on it go on.
        self._left: grpc.Channel | None = None
        self._open(dialer.pems())

    def __repr__(self) -> str:
        return f"<Line {self.address} is_proven={self.is_proven}>"

    def _open(self, pems: Pems | None) -> None:
        self._pems = pems
        self._channel = channel = self._dialer.open_blocking(self.address)
        self.commands = CommandServiceStub(channel)
        self.sessions = SessionServiceStub(channel)
        self.clusters = ClusterServiceStub(channel)
        self._knock: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_KNOCK)

    def _renew(self) -> None:
        """A channel keeps its certificates for ever, so another takes its place when they have changed."""
        with self._renewing:
            if self._is_closed or (pems := self._dialer.pems()) is self._pems:
                return
            before, self._left = self._left, self._channel
            self._open(pems)
        if before is not None:
            before.close()

    def close(self) -> None:
        with self._renewing:
            self._is_closed = True
        self._channel.close()
        if self._left is not None:
            self._left.close()

    def reach(self, timeout_s: float) -> None:
        """Knocks, so that what could not leave is known not to have run. Raises BROKER_UNAVAILABLE.

        Not with the channel's connectivity: grpc watches it in a thread, which complains when the channel is closed.
        """
        if self.is_proven:
            return
        self._renew()
        try:
            self._knock(b"", timeout=max(0.001, timeout_s))
        except grpc.RpcError as status:
            # With any other status it is there; whether it is well, its answer to the question itself will tell.
            if not isinstance(status, grpc.Call) or status.code() in _UNREACHED:
                raise broker_unavailable("the broker cannot be reached", executed=NO) from status
        except ValueError as closed:
            raise broker_unavailable("the client is closed", executed=NO) from closed

    def ask(self, method: "grpc.UnaryUnaryMultiCallable[Q, A]", request: Q, *, timeout_s: float) -> A:
        try:
            answer = method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as status:
            raise self._told(status) from status
        except ValueError as closed:
            raise broker_unavailable("the client is closed", executed=NO) from closed
        self.is_proven = True
        return answer

    def events(self, trail: Trail) -> Generator[command_pb2.CommandEvent, None, None]:
        """The events of the command, from where the trail has got to, for as long as this replica has some."""
        now = monotonic()
        request, timeout_s = trail.request(now), max(0.001, trail.left_s(now))
        # Of either method; both have an event.
        answers: Any
        try:
            if isinstance(request, ExecuteRequest):
                asked = ExecuteStreamRequest(execute=request)
                answers = self.commands.ExecuteStream(asked, timeout=timeout_s, metadata=self._metadata)
            else:
                answers = self.commands.WatchCommand(request, timeout=timeout_s, metadata=self._metadata)
        except ValueError as closed:
            raise broker_unavailable("the client is closed", executed=NO) from closed
        try:
            for answer in answers:
                self.is_proven = True
                yield answer.event
        except grpc.RpcError as status:
            raise self._told(status) from status
        finally:
            # Or the stream stays open when its caller stops before the end.
            answers.cancel()

    def _told(self, status: grpc.RpcError) -> OpenlineError:
        failure = from_rpc_error(status)
        self.is_proven = failure.reason is not Reason.BROKER_UNAVAILABLE
        return failure


class Lines:
    """All replicas, in the order of preference."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = tuple(lines)
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"<Lines {' '.join(map(repr, self._lines))}>"

    def close(self) -> None:
        self._closed.set()
        for line in self._lines:
            line.close()

    def turns(self, ends_at: Callable[[], float]) -> Iterator[Line]:
        """Whom to ask for one call: each once a round, those that are proven first, then a pause; until `ends_at`."""
        pause_s = FIRST_PAUSE_S
        while True:
            for line in sorted(self._lines, key=lambda line: not line.is_proven):
                if self._closed.is_set() or monotonic() >= ends_at():
                    return
                yield line
            left_s = ends_at() - monotonic()
            # Full jitter, as `turns` has it.
            self._closed.wait(max(0.0, min(left_s, random.uniform(0, pause_s))))  # noqa: S311  (jitter)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    def reach(self, line: Line, left_s: float) -> None:
        """As `Line.reach`, with time left for all others: one that is frozen takes connections, and is silent."""
        line.reach(min(CONNECT_S, left_s / len(self._lines)))

    def first_answer(
        self,
        ask: Callable[[Line, float], A],
        *,
        wait_s: float = 0.0,
        executed: command_pb2.Executed.ValueType = NO,
    ) -> A:
        """What the first replica says that answers. `ask` is given how long one may take; `wait_s` comes on top."""
        ends_at = monotonic() + wait_s + TIMEOUT_S
        for line in self.turns(lambda: ends_at):
            try:
                self.reach(line, ends_at - monotonic())
                left_s = min(TIMEOUT_S, ends_at - monotonic())
                return ask(line, patience_s(left_s, replicas=len(self._lines)))
            except OpenlineError as failure:
                if failure.reason is not Reason.BROKER_UNAVAILABLE:
                    raise
        raise broker_unavailable("no broker replica answers", executed=executed)

    def ask(
        self, method: "Callable[[Line], grpc.UnaryUnaryMultiCallable[Q, A]]", request: Q, *, more_s: float = 0.0
    ) -> A:
        """The answer to a call that runs nothing; each replica has `more_s` longer for it than for a look."""
        return self.first_answer(
            lambda line, timeout_s: line.ask(method(line), request, timeout_s=timeout_s + more_s), wait_s=more_s
        )

    def look_up(self, command_id: str, *, wait_s: float) -> command_pb2.Command:
        """A command, running or done; waits so long for its end."""
        wait_until = monotonic() + wait_s

        def look(line: Line, timeout_s: float) -> command_pb2.Command:
            left_s = min(MAX_WAIT_S, max(0.0, wait_until - monotonic()))
            request = GetCommandRequest(command_id=command_id, wait_s=left_s)
            return line.ask(line.commands.GetCommand, request, timeout_s=left_s + timeout_s).command

        while True:
            left_s = max(0.0, wait_until - monotonic())
            command = self.first_answer(look, wait_s=left_s, executed=UNKNOWN)
            if command.HasField("result") or monotonic() >= wait_until:
                return command

    def follow(self, trail: Trail) -> Generator[command_pb2.CommandEvent, None, None]:
        """A command's events, over as many streams as it takes; the result is the last."""
        for line in self.turns(lambda: trail.ends_at):
            try:
                self.reach(line, trail.ends_at - monotonic())
                with closing(line.events(trail)) as events:
                    for event in events:
                        yield from trail.show(event)
                return
            except OpenlineError as failure:
                trail.failed(failure)
        raise trail.given_up()
