"""W3C traceparent, version 00, as text: its form, and what it says. Pure; nothing here knows of OpenTelemetry.

https://www.w3.org/TR/trace-context/
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_FORBIDDEN_VERSION = "ff"
SAMPLED = 0x01
_NONE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Traced:
    """What a traceparent says: the trace, the span that the next one is below, and flags."""

    trace_id: int
    span_id: int
    flags: int

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"


def has_form(text: str) -> bool:
    """Whether it can be passed on; ids of zeros can, and say nothing."""
    return _FORM.fullmatch(text) is not None


def read(text: str) -> Traced | None:
    """What it says; None for what the specification has as no traceparent, which begins a trace of its own."""
    if not text or (form := _FORM.fullmatch(text)) is None or form[1] == _FORBIDDEN_VERSION:
        return None
    traced = Traced(int(form[2], 16), int(form[3], 16), int(form[4], 16))
    return traced if traced.trace_id and traced.span_id else None


def log_fields(text: str) -> Mapping[str, str]:
    """The fields that lead from a line of the log to its trace; none for one that is not sampled."""
    if not text or (traced := read(text)) is None or not traced.flags & SAMPLED:
        return _NONE
    return {"trace_id": text[3:35], "span_id": text[36:52]}
