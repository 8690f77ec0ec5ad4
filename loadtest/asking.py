"""The ways to ask openline for a command, each as something that can be measured."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import grpc

from loadtest.figures import OK
from loadtest.measuring import Ask
from loadtest.settings import Tls
from openline.channels import open_channel
from openline.errors import OpenlineError, from_rpc_error
from openline.ids import new_id
from openline.pipe import Pipe
from openline.settings import Address
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest, ExecuteResponse
from openline.v1.command_service_pb2_grpc import CommandServiceStub

CLIENT = "openline-loadtest"
NO_TLS: Tls = {"ca": None, "cert": None, "key": None}
# The caller waits a little longer than the command may take, to hear from the broker that its time is up.
MARGIN_S = 1.0


class Executes(Protocol):
    """A Pipe, or Pipes."""

    async def execute(self, request: ExecuteRequest, *, api_key: str, timeout_s: float) -> ExecuteResponse: ...


class Requests:
    """Requests for one command, for each of some clusters in turn."""

    def __init__(
        self, cluster_ids: Sequence[str], argv: Sequence[str], *, timeout_s: float = 10.0, correlation_id: str = CLIENT
    ) -> None:
        self._cluster_ids = itertools.cycle(cluster_ids)
        self._argv = argv
        self._correlation_id = correlation_id
        self.timeout_s = timeout_s

    def next(self, *, wait_for_cluster_s: float = 0.0) -> ExecuteRequest:
        return ExecuteRequest(
            cluster_id=next(self._cluster_ids),
            argv=self._argv,
            timeout_s=self.timeout_s,
            command_id=new_id(),
            correlation_id=self._correlation_id,
            wait_for_cluster_s=wait_for_cluster_s,
            # They are all the same, and each is to be run.
            max_age_s=0.0,
        )


def over_pipe(pipe: Executes, requests: Requests, *, api_key: str, wait_for_cluster_s: float = 0.0) -> Ask:
    timeout_s = requests.timeout_s + wait_for_cluster_s + MARGIN_S

    async def ask() -> str:
        request = requests.next(wait_for_cluster_s=wait_for_cluster_s)
        try:
            return ended((await pipe.execute(request, api_key=api_key, timeout_s=timeout_s)).result)
        except OpenlineError as failure:
            return str(failure.reason)

    return ask


def by_unary(channel: grpc.aio.Channel, requests: Requests, *, api_key: str) -> Ask:
    execute = CommandServiceStub(channel).Execute
    metadata = (("x-api-key", api_key),)
    timeout_s = requests.timeout_s + MARGIN_S

    async def ask() -> str:
        try:
            return ended((await execute(requests.next(), metadata=metadata, timeout=timeout_s)).result)
        except grpc.aio.AioRpcError as failure:
            return str(from_rpc_error(failure).reason)

    return ask


def ended(result: command_pb2.CommandResult) -> str:
    """How a command ended: with its exit code, or the reason why it has none."""
    if result.outcome == command_pb2.OUTCOME_EXITED:
        return f"exit code {result.exit_code}" if result.exit_code else OK
    return result.error.reason or command_pb2.Outcome.Name(result.outcome)


def in_turn(asks: Sequence[Ask]) -> Ask:
    """One that asks each of them in turn."""
    if len(asks) == 1:
        return asks[0]
    turn = itertools.cycle(asks)
    return lambda: next(turn)()


@contextlib.asynccontextmanager
async def open_pipe(address: Address, tls: Tls = NO_TLS) -> AsyncIterator[Pipe]:
    """A Pipe that is carried until the block is left. Raises OpenlineError when it cannot be opened."""
    async with open_channel(address, **tls) as channel:
        pipe = await Pipe.open(channel, client=CLIENT)
        carrying = asyncio.create_task(pipe.run())
        try:
            yield pipe
        finally:
            carrying.cancel()
            # How it ended has been told to whoever asked.
            await asyncio.gather(carrying, return_exceptions=True)
