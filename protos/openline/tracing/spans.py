"""Spans, by OpenTelemetry's API alone: begun, told more, ended. There are none until `record_with` was called.

A span is handed along as a value, and to the next process as a traceparent. There is no current span: what runs in one
task here is many callers' business, and nobody's span must be taken for another's.
"""

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
    set_span_in_context,
)
from opentelemetry.trace import Span as Recording
from opentelemetry.trace import SpanKind as Kind

from openline import __version__
from openline.tracing.traceparent import Traced, read

__all__ = ["Attributes", "Kind", "Span", "are_recorded", "begin", "record_with"]

Attributes = Mapping[str, str | int]

# What the names of our attributes mean is in this version of the conventions.
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
# Of what callers send, such as ids that nobody has checked yet and paths; ours are shorter.
MAX_CHARACTERS = 256

_tracer: Tracer | None = None


def record_with(provider: TracerProvider | None) -> None:
    """From now on spans are the provider's; None: there are none."""
    global _tracer
    _tracer = None if provider is None else provider.get_tracer("openline", __version__, schema_url=SCHEMA_URL)


def are_recorded() -> bool:
    """Whether `begin` gives spans: to be asked before anything is made for them alone."""
    return _tracer is not None


class Span:
    """One span. One that is not sampled records nothing, and passes on that it is not."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Recording) -> None:
        self._span = span
        said = span.get_span_context()
        # For the next hop, whose spans are below this one.
        self.traceparent = str(Traced(said.trace_id, said.span_id, said.trace_flags))

    def __repr__(self) -> str:
        return f"<Span {self.traceparent}>"

    def name(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(_short(attributes))

    def end(self, *, error: str = "") -> None:
        """`error` is the class of an error, where the conventions have this end for one."""
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def begin(name: str, kind: Kind, *, parent: str, attributes: Attributes) -> Span | None:
    """A span below that of the traceparent `parent`, or of a trace of its own; None while there are none."""
    if _tracer is None:
        return None
    context = Context()
    if (above := _context(parent)) is not None:
        context = set_span_in_context(NonRecordingSpan(above), context)
    return Span(_tracer.start_span(name, context, kind, _short(attributes)))


def _context(traceparent: str) -> SpanContext | None:
    if (said := read(traceparent)) is None:
        return None
    return SpanContext(said.trace_id, said.span_id, is_remote=True, trace_flags=TraceFlags(said.flags))


def _short(attributes: Attributes) -> dict[str, str | int]:
    return {
        name: value[:MAX_CHARACTERS] if isinstance(value, str) else value
        for name, value in attributes.items()
        if value != ""
    }
