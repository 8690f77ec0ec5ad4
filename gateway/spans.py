"""A request as a span, by OpenTelemetry's conventions for HTTP servers.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/#server. Query strings and bodies are in no span.
"""

from typing import Any

from starlette.types import Scope

from gateway.exchange import Exchange
from gateway.traffic import METHODS
from openline.tracing.spans import Kind, Span, are_recorded, begin

OTHER_METHOD = "_OTHER"
# What routes learn, and spans tell.
_FACTS = ("command_id", "cluster_id", "session_id", "reason")


def begin_request(scope: Scope, exchange: Exchange) -> Span | None:
    """The span of a request, which is under the caller's traceparent; whatever is asked for it, is under its own."""
    if not are_recorded():
        return None
    span = begin(
        _named(scope["method"]),
        Kind.SERVER,
        parent=exchange.traceparent,
        attributes={
            "http.request.method": scope["method"] if scope["method"] in METHODS else OTHER_METHOD,
            "url.scheme": scope.get("scheme", "http"),
            "url.path": scope["path"],
            "network.protocol.version": scope.get("http_version", ""),
        },
    )
    if span is not None:
        exchange.traceparent = span.traceparent
    return span


def end_request(span: Span, exchange: Exchange, *, method: str, route: str | None, status: int | None) -> None:
    """`status` is None for a client that left before its answer, which is no error of ours."""
    about: dict[str, Any] = {f"openline.{name}": exchange.facts[name] for name in _FACTS if name in exchange.facts}
    if exchange.is_agent_call:
        about["openline.correlation_id"] = exchange.correlation_id
    if route is not None:
        about["http.route"] = route
        span.name(f"{_named(method)} {route}")
    if status is not None:
        about["http.response.status_code"] = status
    span.note(about)
    span.end(error=str(exchange.facts.get("reason", status)) if status is not None and status >= 500 else "")


def _named(method: str) -> str:
    """As it is in a span's name, which nobody is to make up."""
    return method if method in METHODS else "HTTP"
