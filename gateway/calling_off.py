"""Calling off: what was begun for a caller is cancelled, and of a fan-out no more is begun.

Its caller does so (in MCP), at whichever gateway, or a kill switch, at any broker. Whoever runs a fan-out, and alone
knows all that it has begun, hears of both in the same way: a command of it comes back cancelled for that reason.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from gateway.callers import Caller
from openline.errors import TAKEN_BACK, OpenlineError, error
from openline.lookups import TIMEOUT_S
from openline.pipes import Pipes
from openline.reasons import NO, Reason
from openline.tracing.calls import calling
from openline.v1.command_service_pb2 import CancelCommandRequest, CancelCommandResponse, ExecuteRequest

log = structlog.get_logger()

# Why a command was cancelled for itself.
BY_ITS_CALLER = "cancelled by its caller"


@dataclass(slots=True)
class Commands:
    """Those of one call."""

    # Begun, and not known to have ended: each one's correlation id by its command id; empty for none.
    running: dict[str, str] = field(default_factory=dict)
    # Why it begins no more; None as long as it does.
    called_off: str | None = None

    def begin(self, request: ExecuteRequest) -> None:
        """Raises CANCELLED where no more are begun."""
        if self.called_off is not None:
            raise OpenlineError(error(Reason.CANCELLED, self.called_off, executed=NO))
        self.running[request.command_id] = request.correlation_id

    def call_off(self, why: str) -> dict[str, str]:
        """What is to be cancelled now."""
        if self.called_off is None:
            self.called_off = why
        return dict(self.running)


async def cancel_one(pipes: Pipes, command_id: str, caller: Caller) -> CancelCommandResponse:
    """Cancels one command, by itself; the state it had is in the answer. Raises OpenlineError."""
    exchange = caller.exchange
    request = CancelCommandRequest(command_id=command_id, why=BY_ITS_CALLER, traceparent=exchange.traceparent)
    with calling("CommandService/CancelCommand", request, server=pipes.addresses):
        cancelled = await pipes.cancel(request, api_key=caller.api_key, timeout_s=caller.left_s(TIMEOUT_S))
    exchange.concerns(command_id, cancelled.correlation_id)
    return cancelled


async def take_back(pipes: Pipes, commands: Commands, *, api_key: str) -> int:
    """Calls off a call that its caller has cancelled; how many commands were running."""
    running = commands.call_off(TAKEN_BACK)
    await cancel_all(pipes, running, why=TAKEN_BACK, api_key=api_key)
    return len(running)


async def cancel_all(pipes: Pipes, commands: Mapping[str, str], *, why: str, api_key: str) -> None:
    """As in `Commands.running`. One that is done stays as it is, and so does one that is not the key's own."""

    async def cancel(command_id: str, correlation_id: str) -> None:
        try:
            request = CancelCommandRequest(command_id=command_id, why=why)
            await pipes.cancel(request, api_key=api_key, timeout_s=TIMEOUT_S)
        except OpenlineError as failure:
            conversation = {"correlation_id": correlation_id} if correlation_id else {}
            log.info("command.not_cancelled", command_id=command_id, reason=failure.reason, **conversation)

    await asyncio.gather(*(cancel(*each) for each in commands.items()))
