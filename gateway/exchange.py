"""One HTTP request and its answer: the ids that name it, and what its log line says.

The middleware in `edge` makes it; routes add what they learn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote

from starlette.types import Scope

from openline.ids import MAX_TOKEN_CHARACTERS, is_token, new_id
from openline.tracing.traceparent import has_form

_KEY = "openline.exchange"
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(slots=True)
class Exchange:
    """Mutable, since the body may bring the correlation id after the headers did not."""

    request_id: str
    # Shown to the caller: as given (see `visible`), or made.
    correlation_id: str
    # The caller gave it: the request is an agent call.
    is_agent_call: bool
    # W3C trace context: the caller's, and once the request has a span, that of the span; empty for none.
    traceparent: str = ""
    # What routes add to the log line: ids and reasons, never what was asked or answered.
    facts: dict[str, str | int | bool] = field(default_factory=dict)

    @classmethod
    def begin(cls, scope: Scope, headers: Mapping[bytes, bytes]) -> Self:
        given = visible(headers.get(b"x-correlation-id", b""))
        traceparent = _text(headers.get(b"traceparent"))
        exchange = cls(
            request_id=_acceptable(headers.get(b"x-request-id")) or new_id(),
            correlation_id=given or new_id(),
            is_agent_call=bool(given),
            # As the specification has it, one that cannot be read is as good as none.
            traceparent=traceparent if has_form(traceparent) else "",
        )
        scope[_KEY] = exchange
        return exchange

    @classmethod
    def of(cls, scope: Scope) -> "Exchange":
        exchange: Exchange = scope[_KEY]
        return exchange

    @property
    def given_correlation_id(self) -> str:
        return self.correlation_id if self.is_agent_call else ""

    def offer_correlation_id(self, from_body: str | None) -> None:
        """Takes the body's where the headers had none: the header wins."""
        if from_body and not self.is_agent_call:
            # Half of a surrogate pair, which JSON can say and UTF-8 cannot, is as good as any other text.
            self.correlation_id = visible(from_body.encode(errors="surrogatepass"))
            self.is_agent_call = True

    @property
    def names(self) -> dict[str, str | int | bool]:
        """What lines of the log say of it, beside its id."""
        return {"correlation_id": self.correlation_id, **self.facts} if self.is_agent_call else self.facts

    def concerns(self, command_id: str, correlation_id: str) -> None:
        """The request is about a command of this conversation: its line says so, whatever else it says."""
        self.facts["command_id"] = command_id
        if correlation_id and not self.is_agent_call:
            self.facts["correlation_id"] = correlation_id


def visible(correlation_id: bytes) -> str:
    """A caller's correlation id as it travels: in headers, in logs, to the brokers.

    What is not visible ASCII is percent-encoded, and what is longer than an id can be is cut: nobody's id is refused or
    exchanged for another, and the same one always becomes the same.
    """
    return quote(correlation_id, safe=_VISIBLE)[:MAX_TOKEN_CHARACTERS]


def _acceptable(value: bytes | None) -> str:
    text = _text(value)
    return text if is_token(text) else ""


def _text(value: bytes | None) -> str:
    return value.decode("latin-1") if value else ""
