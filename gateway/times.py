"""Instants that callers name: RFC 3339, or seconds since 1970; without an offset they are UTC. Pure."""

from datetime import UTC, datetime
from typing import Annotated

from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import AfterValidator, TypeAdapter, ValidationError


def _in_utc(instant: datetime) -> datetime:
    try:
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("is before the year 1 or after 9999") from None


Instant = Annotated[datetime, AfterValidator(_in_utc)]
_INSTANT = TypeAdapter[datetime](Instant)


def read_instant(text: str) -> datetime:
    """Raises ValueError."""
    try:
        return _INSTANT.validate_python(text)
    except ValidationError:
        raise ValueError("not a time") from None


def stamp(instant: datetime | None) -> Timestamp | None:
    """As the contract has it."""
    if instant is None:
        return None
    made = Timestamp()
    made.FromDatetime(instant)
    return made
