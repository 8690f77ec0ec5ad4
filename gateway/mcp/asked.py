"""A request at /mcp before the protocol is looked at: who asks, in which session and conversation."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Self

from fastapi import Request
from starlette.types import Scope

from gateway.callers import Caller, read_caller
from gateway.calling_off import Commands
from gateway.mcp.naming import name_of
from openline.ids import is_token
from openline.tracing.traceparent import has_form

_KEY = "openline.mcp"
SESSION_ID = "Mcp-Session-Id"
# In `_meta` of a call, for clients that have neither a session nor a header of their own.
CORRELATION_ID = "openline/correlation_id"


@dataclass(slots=True)
class Asked:
    caller: Caller
    # As the client has it; nothing is kept for it here. Empty for none.
    session_id: str
    # Of time.monotonic.
    arrived_at: float
    # What a call has begun.
    commands: Commands = field(default_factory=Commands)

    @classmethod
    async def read(cls, http: Request) -> Self:
        """Raises RequestValidationError. The calls of a session are one conversation, unless a header says of which."""
        session_id = http.headers.get(SESSION_ID, "")
        caller = await read_caller(http)
        asked = cls(caller, session_id if is_token(session_id) else "", arrived_at=caller.asked_at)
        asked.caller.exchange.offer_correlation_id(asked.session_id)
        http.scope[_KEY] = asked
        return asked

    @classmethod
    def of(cls, scope: Scope) -> "Asked":
        asked: Asked = scope[_KEY]
        return asked

    def begin(self) -> None:
        """What the caller gives its lookups begins here, and not with loading what serves it."""
        self.caller = replace(self.caller, asked_at=monotonic())

    def take_meta(self, meta: Mapping[str, Any]) -> None:
        """What a message says of itself, where the headers do not."""
        correlation_id, traceparent = meta.get(CORRELATION_ID), meta.get("traceparent")
        exchange = self.caller.exchange
        if isinstance(correlation_id, str):
            exchange.offer_correlation_id(correlation_id)
        if not exchange.traceparent and isinstance(traceparent, str) and has_form(traceparent):
            exchange.traceparent = traceparent

    def name_of(self, request_id: Any) -> str | None:
        """What the call is known by; None where it cannot be told from those of other clients."""
        return name_of(self.session_id, request_id) if self.session_id and isinstance(request_id, str | int) else None
