"""Unary calls that run nothing, such as looking a command up: asked of one replica after the other until one answers.

Each may be asked again, since a session that was made twice expires unused.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

import grpc

from openline.calls import broker_unavailable
from openline.errors import OpenlineError, from_rpc_error, is_answer
from openline.pipes import Pipes
from openline.reasons import NO, UNKNOWN, Reason
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import GetCommandRequest
from openline.v1.command_service_pb2_grpc import CommandServiceStub

# All told: these calls are a look into Redis, so one that needs longer is not well.
TIMEOUT_S = 3.0
# For what a replica has all others do: it waits three seconds for one, and a second replica may have to be asked.
CANCEL_ALL_S = 10.0
# Between two rounds of asking, up to so long: for a replica that is just being restarted.
PAUSE_S = 0.25
# A broker waits no longer for a command's end, and is asked again.
MAX_WAIT_S = 60.0
# What is left of a wait is not shared out any further below this.
SHORTEST_WAIT_S = 0.5
# Metadata of calls whose request has no field for it.
CORRELATION_ID = "x-correlation-id"
TRACEPARENT = "traceparent"
# Of a thousand each.
MAX_PAGES = 100

Q = TypeVar("Q")
A = TypeVar("A")


class Lookups:
    """For one key, conversation (which the audit trail names) and trace. Every method raises OpenlineError."""

    def __init__(self, pipes: Pipes, *, api_key: str, correlation_id: str = "", traceparent: str = "") -> None:
        self._pipes = pipes
        self._metadata = [("authorization", f"Bearer {api_key}")]
        if correlation_id:
            self._metadata.append((CORRELATION_ID, correlation_id))
        if traceparent:
            self._metadata.append((TRACEPARENT, traceparent))

    async def ask(
        self,
        method: Callable[[grpc.aio.Channel], grpc.aio.UnaryUnaryMultiCallable[Q, A]],
        request: Q,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> A:
        """What the first replica says that can be reached."""
        ends_at = monotonic() + timeout_s

        async def ask(channel: grpc.aio.Channel) -> A:
            return await self._call(method(channel), request, timeout_s=self._patience_s(ends_at))

        return await first_answer(self._pipes, ask, ends_at=ends_at, executed=NO)

    async def ask_each_once(
        self,
        method: Callable[[grpc.aio.Channel], grpc.aio.UnaryUnaryMultiCallable[Q, A]],
        request: Q,
        *,
        timeout_s: float,
    ) -> A:
        """The same, for what a replica refuses as one that is not available: then it says why, and soon.

        One that says that it may have been done is the last one: it has asked whoever was to do it, as all would.
        """
        ends_at = monotonic() + timeout_s
        refusal = broker_unavailable("no broker replica answers", executed=NO)
        for replica in self._pipes.in_order():
            call = method(replica.channel)
            try:
                return await call(request, metadata=self._metadata, timeout=self._patience_s(ends_at))
            except grpc.RpcError as status:
                refusal = from_rpc_error(status)
                may_be_done = is_answer(status) and refusal.error.executed != NO
                if refusal.reason is not Reason.BROKER_UNAVAILABLE or may_be_done:
                    raise refusal from status
        raise refusal

    async def get_command(
        self, command_id: str, *, wait_s: float = 0.0, timeout_s: float = TIMEOUT_S
    ) -> command_pb2.Command:
        """A command, running or done; `wait_s` waits for its end, and `timeout_s` after that for the answer."""
        wait_until = monotonic() + wait_s
        ends_at = wait_until + timeout_s

        async def look(channel: grpc.aio.Channel) -> command_pb2.Command:
            left_s = max(0.0, wait_until - monotonic())
            # One that is frozen must not take the whole of a wait, the rest of which may be waited anywhere.
            if len(self._pipes.replicas) > 1 and left_s > SHORTEST_WAIT_S:
                left_s /= 2
            left_s = min(MAX_WAIT_S, left_s)
            request = GetCommandRequest(command_id=command_id, wait_s=left_s)
            patience_s = min(self._patience_s(ends_at), left_s + TIMEOUT_S)
            method = CommandServiceStub(channel).GetCommand
            return (await self._call(method, request, timeout_s=patience_s)).command

        while True:
            command = await first_answer(self._pipes, look, ends_at=ends_at, executed=UNKNOWN)
            if command.HasField("result") or monotonic() >= wait_until:
                return command

    async def _call(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q, *, timeout_s: float) -> A:
        try:
            return await method(request, metadata=self._metadata, timeout=timeout_s)
        except grpc.RpcError as status:
            raise from_rpc_error(status) from status

    def _patience_s(self, ends_at: float) -> float:
        return patience_s(ends_at - monotonic(), replicas=len(self._pipes.replicas))


async def first_answer(
    pipes: Pipes,
    ask: Callable[[grpc.aio.Channel], Awaitable[A]],
    *,
    ends_at: float,
    executed: command_pb2.Executed.ValueType,
) -> A:
    """What the first replica says that can be reached; all are tried again until `ends_at` (time.monotonic's).

    Raises what that one raises, or BROKER_UNAVAILABLE with this `executed`.
    """
    while True:
        for replica in pipes.in_order():
            try:
                return await ask(replica.channel)
            except OpenlineError as failure:
                if failure.reason is not Reason.BROKER_UNAVAILABLE:
                    raise
        if (left_s := ends_at - monotonic()) <= 0:
            raise broker_unavailable("no broker replica answers", executed=executed)
        await asyncio.sleep(min(left_s, random.uniform(0, PAUSE_S)))  # noqa: S311  (jitter)


def patience_s(left_s: float, *, replicas: int) -> float:
    """How long one replica may take. One that does not answer may be frozen: then there is time to ask another one."""
    return max(0.001, left_s if replicas == 1 else left_s / 2)
