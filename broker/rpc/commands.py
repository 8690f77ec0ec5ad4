"""CommandService but for the Pipe: commands asked for, watched, looked up and cancelled one at a time, and listed."""

import asyncio
import contextlib
from typing import Any

import grpc

from broker.core.credentials import PEER, Caller, Credentials
from broker.core.proof import Proof
from broker.execution import Answer, Source
from broker.executions import Executions
from broker.lasting import LastingCalls
from broker.listings import Listings
from broker.lookups import Lookups
from broker.rpc.callers import admitted, is_replica
from broker.rpc.cancel_commands import CancelCommandsMethod
from broker.rpc.pipe import Pipes
from broker.rpc.places import Places
from broker.rpc.service import credential
from broker.watching import NO_OUTPUT
from openline import errors
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb

MAX_WAIT_S = 60.0
# Calls that wait or watch, outside a Pipe, at one time.
MAX_WAITING_CALLS = 5_000

Context = grpc.aio.ServicerContext[Any, Any]


class CommandService:
    def __init__(
        self,
        executions: Executions,
        lookups: Lookups,
        listings: Listings,
        credentials: Credentials,
        lasting: LastingCalls,
        proof: Proof,
        pipes: Pipes,
        killing: CancelCommandsMethod,
    ) -> None:
        self._executions = executions
        self._lookups = lookups
        self._listings = listings
        self._lasting = lasting
        self._proof = proof
        self._credentials = credentials
        self._pipes = pipes
        self.CancelCommands = killing.CancelCommands
        self._places = Places(MAX_WAITING_CALLS, full="too many calls wait")

    async def Pipe(self, _requests: Any, context: Context) -> None:  # noqa: N802
        await self._pipes.carry(context)

    async def Execute(self, request: pb.ExecuteRequest, context: Context) -> pb.ExecuteResponse:  # noqa: N802
        """Answers with the result; a command without an exit code is an error, with the output so far."""
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        execution = self._executions.start(request, credential(context), _once(answered))
        try:
            answer = await answered
        except asyncio.CancelledError:
            execution.abandon()
            raise
        if isinstance(answer, command_pb2.Error):
            raise errors.OpenlineError(answer)
        if answer.result.HasField("error"):
            raise errors.OpenlineError(answer.result.error, result=answer.result)
        return answer

    async def ExecuteStream(self, request: pb.ExecuteStreamRequest, context: Context) -> None:  # noqa: N802
        """Writes the command's events as they come, to a caller who may read them as slowly as it likes."""
        begun: asyncio.Future[Answer | Source] = asyncio.get_running_loop().create_future()
        with self._places.one():
            execution = self._executions.start(request.execute, credential(context), _once(begun), begun=_once(begun))
            try:
                source = await begun
                if not isinstance(source, pb.ExecuteResponse | command_pb2.Error):
                    from_seq = NO_OUTPUT if request.execute.without_output else 0
                    async with self._lasting.of(execution.caller):
                        with self._lookups.watch(source, from_seq=from_seq) as events:
                            async for event in events:
                                await context.write(pb.ExecuteStreamResponse(event=event))
                    return
            except BaseException:
                execution.abandon()
                raise
        if isinstance(source, command_pb2.Error):
            raise errors.OpenlineError(source)

    async def WatchCommand(self, request: pb.WatchCommandRequest, context: Context) -> None:  # noqa: N802
        caller = self._caller(context, "CommandService.WatchCommand")
        async with self._lasting.of(caller):
            source = await self._lookups.find(request.command_id, caller)
            with self._places.one(), self._lookups.watch(source, from_seq=request.from_seq) as events:
                async for event in events:
                    await context.write(pb.WatchCommandResponse(event=event))

    async def GetCommand(self, request: pb.GetCommandRequest, context: Context) -> pb.GetCommandResponse:  # noqa: N802
        caller = self._caller(context, "CommandService.GetCommand")
        # Written so that NaN does not wait.
        wait_s = min(request.wait_s, MAX_WAIT_S) if request.wait_s > 0 else 0.0
        with self._places.one() if wait_s else contextlib.nullcontext():
            async with self._lasting.of(caller):
                command = await self._lookups.get(request.command_id, caller, wait_s=wait_s)
        return pb.GetCommandResponse(command=command)

    async def CancelCommand(  # noqa: N802
        self, request: pb.CancelCommandRequest, context: Context
    ) -> pb.CancelCommandResponse:
        caller = self._caller(context, "CommandService.CancelCommand")
        return await self._lookups.cancel(request.command_id, caller, why=request.why)

    async def ListCommands(  # noqa: N802
        self, request: pb.ListCommandsRequest, context: Context
    ) -> pb.ListCommandsResponse:
        caller = admitted(self._credentials, context, "CommandService.ListCommands")
        page = await self._listings.commands(request, caller)
        order = request.order or pb.COMMAND_ORDER_NEWEST_FIRST
        return pb.ListCommandsResponse(
            commands=page.items, next_page_token=page.next_token, order=order, owner=request.owner
        )

    def _caller(self, context: Context, method: str) -> Caller:
        return PEER if is_replica(self._proof, context) else admitted(self._credentials, context, method)


def _once(future: "asyncio.Future[Any]") -> Any:
    """Sets the future, unless it was cancelled and nobody has been told yet."""

    def settle(value: Any) -> None:
        if not future.done():
            future.set_result(value)

    return settle
