"""What records spans and sends them: OpenTelemetry's SDK and its OTLP exporter, if the OTEL_ variables ask for them.

They are an extra, `openline[tracing]`, and imported when they are asked for. Spans wait in a bounded queue and are sent
by a thread: a collector that is slow or gone costs spans, and at the end of the program `FLUSH_S`, never a command.

OTEL_ variables are often those of a whole machine or namespace, meant for other programs as well. So whatever is wrong
with them, or that the extra is not installed, is a warning, and no reason not to start.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

import structlog
from opentelemetry import trace

from openline import __version__
from openline.tracing.spans import record_with

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider

# For what is left to be sent when the program has stopped.
FLUSH_S = 2.0
EXTRA = "openline[tracing]"
EXPORTER = "otlp"
PROTOCOL = "http/protobuf"

log = structlog.get_logger()


class Unavailable(Exception):
    """Traces are asked for and cannot be had; why."""


@contextmanager
def traced(service: str, *, about: Mapping[str, str] | None = None) -> Iterator[None]:
    """Spans are recorded while the block runs, if that is asked for; then what is left is sent, within `FLUSH_S`.

    `about` has more of the resource's attributes. With a provider that somebody else has set, such as OpenTelemetry's
    agent, spans are recorded without any variable, and to send them is its business.
    """
    theirs: trace.TracerProvider | None = None
    ours: SdkProvider | None = None
    try:
        theirs = _theirs()
        if theirs is None and are_wanted(os.environ):
            ours = _ours({"service.name": service, **(about or {})})
    except Unavailable as why:
        log.warning("tracing.unavailable", why=str(why))
    record_with(theirs or ours)
    try:
        yield
    finally:
        record_with(None)
        if ours is not None:
            _within(FLUSH_S, ours.shutdown)


def are_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the variables ask for traces: by an exporter, or by where to send them."""

    def said(name: str) -> str:
        return environment.get(name, "").strip().lower()

    if said("OTEL_SDK_DISABLED") == "true" or said("OTEL_TRACES_EXPORTER") == "none":
        return False
    asks = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return any(map(said, asks))


def _theirs() -> trace.TracerProvider | None:
    """The provider that somebody has set, or named in a variable. Raises Unavailable."""
    try:
        provider = trace.get_tracer_provider()
    except Exception as mistake:  # whatever becomes of looking for the one that is named
        raise Unavailable(f"OTEL_PYTHON_TRACER_PROVIDER: {type(mistake).__name__}: {mistake}") from mistake
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider


def _ours(about: Mapping[str, str]) -> "SdkProvider":
    """One that records and sends as the variables say. Raises Unavailable."""
    if (exporter := os.environ.get("OTEL_TRACES_EXPORTER") or EXPORTER).strip().lower() != EXPORTER:
        raise Unavailable(f"OTEL_TRACES_EXPORTER is {exporter!r}; only {EXPORTER} is built in")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := os.environ.get(name):
            if protocol.strip().lower() != PROTOCOL:
                raise Unavailable(f"{name} is {protocol!r}; only {PROTOCOL} is built in")
            break
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as missing:
        raise Unavailable(f"{missing.name} is not installed: it is in {EXTRA}") from None
    try:
        # What the variables say of the service wins over what the program knows.
        said = OTELResourceDetector().detect().attributes
        resource = Resource.create({"service.version": __version__, **about, **said})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(_SELDOM)
    except Exception as mistake:  # whatever the SDK makes of a variable that it cannot use
        raise Unavailable(f"{type(mistake).__name__}: {mistake}") from mistake
    log.info("tracing.started", service=resource.attributes["service.name"])
    return provider


class _Seldom(logging.Filter):
    """One line a minute: a collector that is gone is told of for every batch, and for every time that it is tried."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created < self._next:
            return False
        self._next = record.created + 60.0
        return True


_SELDOM = _Seldom()


def _within(timeout_s: float, stop: Callable[[], None]) -> None:
    """Calls it and waits, but not longer than that: the SDK itself would wait for half a minute."""
    stopping = Thread(target=stop, name="tracing-stop", daemon=True)
    stopping.start()
    stopping.join(timeout_s)
    if stopping.is_alive():
        log.warning("tracing.abandoned", why="what was left could not be sent", waited_s=timeout_s)
