"""Who asks, and how they want to be answered: the headers that every route but the health ones takes.

They are read here rather than declared to FastAPI one by one, which costs more than everything else the gateway does
with a request. `documentation` describes them.
"""

import re
from dataclasses import dataclass
from time import monotonic
from typing import Annotated

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers

from gateway.exchange import Exchange
from gateway.freshness import read_max_age
from gateway.preferences import NONE, Preferences, read_preferences

_WHOLE_SECONDS = re.compile(r"[1-9]|[1-5][0-9]|60")
# Up to 18 digits, which a seq of 64 bits can hold with room to spare.
_SEQ = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Caller:
    """What the headers say. The key is passed on, never kept."""

    api_key: str
    exchange: Exchange
    # How long the caller waits, if the header said so.
    wait_s: int | None
    # When it began to wait (time.monotonic's).
    asked_at: float
    prefers: Preferences
    # `Accept: text/event-stream`.
    takes_events: bool
    idempotency_key: str
    # How old an answer may be, if `Cache-Control` said so.
    max_age_s: float | None

    def __repr__(self) -> str:
        return f"<Caller {self.exchange.request_id}>"

    def left_s(self, most_s: float) -> float:
        """Of the time for all that is looked up for this request, so much or less as the header says, what is left."""
        return max(0.0, self.asked_at + min(most_s, self.wait_s or most_s) - monotonic())


async def read_caller(request: Request) -> Caller:
    """Raises RequestValidationError. That a key is shown was seen to before: see `edge`."""
    headers = request.headers
    wait = headers.get("x-request-timeout")
    if wait is not None and not _WHOLE_SECONDS.fullmatch(wait):
        wrong = {"type": "value_error", "loc": ("header", "X-Request-Timeout"), "msg": "must be 1..60 whole seconds"}
        raise RequestValidationError([wrong])
    return Caller(
        api_key=shown_key(headers),
        exchange=Exchange.of(request.scope),
        wait_s=int(wait) if wait else None,
        asked_at=monotonic(),
        prefers=read_preferences(headers.getlist("prefer")) if "prefer" in headers else NONE,
        takes_events="text/event-stream" in headers.get("accept", "").lower(),
        idempotency_key=headers.get("idempotency-key", ""),
        max_age_s=read_max_age(headers.getlist("cache-control")) if "cache-control" in headers else None,
    )


def shown_key(headers: Headers) -> str:
    """The caller's key; empty for none."""
    return headers.get("x-api-key") or _bearer(headers.get("authorization", ""))


def read_last_event_id(request: Request) -> int:
    """The seq of the last output that the caller has; -1 for none. Raises RequestValidationError."""
    text = request.headers.get("last-event-id", "").strip()
    if not text:
        return -1
    if not _SEQ.fullmatch(text):
        wrong = {"type": "value_error", "loc": ("header", "Last-Event-ID"), "msg": "must be the id of an event"}
        raise RequestValidationError([wrong])
    return int(text)


def _bearer(authorization: str) -> str:
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


Asking = Annotated[Caller, Depends(read_caller)]
