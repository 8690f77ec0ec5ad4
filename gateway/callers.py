"""Who asks, and how they want to be answered: the headers that every route but the health ones takes."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from gateway.exchange import Exchange
from openline.errors import OpenlineError, error
from openline.ids import is_token
from openline.reasons import Reason

_API_KEY = APIKeyHeader(name="X-API-Key", auto_error=False)
_BEARER = HTTPBearer(auto_error=False)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# RFC 7240: preferences are separated by commas, their parameters by semicolons.
_STRICT = re.compile(r"(?:^|,)\s*handling\s*=\s*\"?strict\"?\s*(?:$|[,;])", re.IGNORECASE)


class MissingKey(Exception):
    """No API key was shown."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What the headers say. The key is passed on, never kept."""

    api_key: str
    exchange: Exchange
    # How long the caller waits, if the header said so.
    wait_s: int | None
    # `Prefer: handling=strict`: a timeout is an error.
    is_strict: bool
    idempotency_key: str
    traceparent: str

    def __repr__(self) -> str:
        return f"<Caller {self.exchange.request_id}>"


async def read_caller(
    request: Request,
    api_key: Annotated[str | None, Security(_API_KEY)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    x_request_timeout: Annotated[
        int | None, Header(ge=1, le=60, description="Whole seconds to wait; wins over the body.")
    ] = None,
    x_correlation_id: Annotated[
        str | None, Header(description="Ties together the calls of one AI agent; wins over the body. Echoed.")
    ] = None,
    x_request_id: Annotated[str | None, Header(description="Names this request in the logs. Echoed.")] = None,
    prefer: Annotated[str | None, Header(description="`handling=strict`: a timeout is 504.")] = None,
    idempotency_key: Annotated[str | None, Header(description="The same key again gives the same command.")] = None,
    traceparent: Annotated[str | None, Header(description="W3C trace context, passed on.")] = None,
) -> Caller:
    """Raises MissingKey; OpenlineError for a key that no broker would take.

    The ids are there for the documentation: `edge` has read them already.
    """
    key = api_key or (bearer.credentials if bearer else "")
    if not key:
        raise MissingKey
    if not is_token(key):
        raise OpenlineError(error(Reason.UNAUTHENTICATED, "not a key"))
    return Caller(
        api_key=key,
        exchange=Exchange.of(request.scope),
        wait_s=x_request_timeout,
        is_strict=prefer is not None and _STRICT.search(prefer) is not None,
        idempotency_key=idempotency_key or "",
        # As the specification has it, one that cannot be read is as good as none.
        traceparent=traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else "",
    )


Asking = Annotated[Caller, Depends(read_caller)]
