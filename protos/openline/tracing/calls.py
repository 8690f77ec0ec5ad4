"""Calls as spans, by OpenTelemetry's conventions for RPC (1.44): their names, what they tell, which ends are errors.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc. A frame on a Pipe is a call of its own, and an Execute frame on an
executor's stream is one of the broker's to the executor. Requests carry the traceparent: a call puts its own there.
"""

from types import TracebackType
from typing import Any, Self

from openline.errors import OpenlineError
from openline.reasons import EXECUTED_TEXT, MEANING, OUTCOME_TEXT, Reason, reason_of
from openline.tracing.spans import Kind, Span, are_recorded, begin
from openline.tracing.traceparent import has_form
from openline.v1 import command_pb2

_SYSTEM = "grpc"
OK = "OK"
# Which codes are errors of the server: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/#server
_SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_IDS = ("command_id", "cluster_id", "session_id", "correlation_id")


class Call:
    """One call, until `end` or the end of its block. What it was told last is how it ended; told nothing, it went well.

    A call without a span does nothing.
    """

    __slots__ = ("_has_result", "_is_server", "_reason", "_span")

    def __init__(self, span: Span | None, *, is_server: bool = False) -> None:
        self._span = span
        self._is_server = is_server
        self._has_result = False
        self._reason: Reason | None = None

    @property
    def traceparent(self) -> str:
        """For a request that has no field for it; empty without a span."""
        return "" if self._span is None else self._span.traceparent

    def result(self, result: command_pb2.CommandResult, *, replayed: bool = False) -> None:
        """The command's result is its answer; one that was stopped or lost is an error, as a unary call answers it."""
        if self._span is None:
            return
        self._has_result = True
        outcome = OUTCOME_TEXT.get(result.outcome, "")
        self._span.note({"openline.command_id": result.command_id, "openline.outcome": outcome})
        if replayed:
            self._span.note({"openline.replayed": True})
        if result.HasField("error"):
            self.failed(result.error)

    def failed(self, error: command_pb2.Error) -> None:
        if self._span is None:
            return
        self._reason = reason_of(error)
        self._span.note(
            {"openline.reason": error.reason, "openline.executed": EXECUTED_TEXT.get(error.executed, "unknown")}
        )

    def left(self) -> None:
        """Whoever called does not wait any more, perhaps because it has all that it wanted."""
        if self._span is not None and not self._has_result:
            self._reason = Reason.CANCELLED

    def end(self) -> None:
        if self._span is None:
            return
        code = OK if self._reason is None else MEANING[self._reason].grpc
        self._span.note({"rpc.response.status_code": code})
        is_error = code in _SERVER_ERRORS if self._is_server else code != OK
        self._span.end(error=str(self._reason) if is_error else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, _: TracebackType | None) -> None:
        if self._span is None:
            return
        if isinstance(raised, OpenlineError):
            if raised.result is not None:
                self.result(raised.result)
            self.failed(raised.error)
        elif isinstance(raised, Exception):
            self._reason = Reason.INTERNAL
        elif raised is not None:  # cancelled, or a generator that was closed
            self.left()
        self.end()


# Shared by all calls while there are no spans.
NO_CALL = Call(None)


def serving(method: str, request: Any, *, parent: str = "") -> Call:
    """The call of one who asks, under the request's traceparent, or `parent` where it has none."""
    return _call(method, Kind.SERVER, request, parent, server="")


def calling(method: str, request: Any, *, server: str, parent: str = "") -> Call:
    """A call to whoever `server` is: one address, or several for replicas that are as good as each other."""
    return _call(method, Kind.CLIENT, request, parent, server=server)


def _call(method: str, kind: Kind, request: Any, parent: str, *, server: str) -> Call:
    if not are_recorded():
        return NO_CALL
    asked = getattr(request, "execute", request)  # of an ExecuteStreamRequest
    has_field = "traceparent" in asked.DESCRIPTOR.fields_by_name
    name = f"openline.v1.{method}"
    span = begin(
        name,
        kind,
        parent=(asked.traceparent if has_field else "") or parent,
        attributes={"rpc.system.name": _SYSTEM, "rpc.method": name, "server.address": server}
        | {f"openline.{field}": getattr(asked, field, "") for field in _IDS},
    )
    if span is None:
        return NO_CALL
    # One that is malformed stays, to be refused as it would be without spans.
    if has_field and (not asked.traceparent or has_form(asked.traceparent)):
        asked.traceparent = span.traceparent
    return Call(span, is_server=kind is Kind.SERVER)
