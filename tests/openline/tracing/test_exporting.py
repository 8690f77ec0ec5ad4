"""What starts and stops the sending of spans, against a collector on loopback, one that is gone and one that hangs."""

import contextlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openline.tracing import exporting
from openline.tracing.exporting import are_wanted, traced
from openline.tracing.spans import Kind, are_recorded, begin

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """None of those of whoever runs the tests."""
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def log_lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector: its address, and what it was sent."""
    monkeypatch.setattr(exporting, "FLUSH_S", 30.0)
    requests: list[ExportTraceServiceRequest] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        serving.join()


def one_span() -> None:
    span = begin("x", Kind.SERVER, parent="", attributes={})
    assert span is not None
    span.end()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://x"}, False),
        ({ENDPOINT: "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x/v1/metrics"}, False),
        ({ENDPOINT: "http://x", "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: ""}, False),
    ],
)
def test_when_traces_are_wanted(given: dict[str, str], wanted: bool) -> None:
    assert are_wanted(given) is wanted


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    """The SDK is not even imported."""
    script = (
        "import sys\n"
        "from openline.tracing.exporting import traced\n"
        "from openline.tracing.spans import are_recorded\n"
        "with traced('x'):\n"
        "    print(are_recorded(), any(name.startswith('opentelemetry.sdk') for name in sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_what_is_ended_is_sent_at_the_latest_at_the_end(received: Any, variables: pytest.MonkeyPatch) -> None:
    """With the service's name, version and whatever else the program says of itself."""
    address, requests = received
    variables.setenv(ENDPOINT, address)
    with traced("openline-test", about={"service.instance.id": "one"}):
        one_span()
        assert are_recorded()
    assert not are_recorded()
    [request] = requests
    [resource] = request.resource_spans
    about = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert (about["service.name"], about["service.instance.id"]) == ("openline-test", "one")
    assert about["service.version"]
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["x"]


def test_the_variables_say_what_the_service_is_called(received: Any, variables: pytest.MonkeyPatch) -> None:
    address, requests = received
    variables.setenv(ENDPOINT, address)
    variables.setenv("OTEL_SERVICE_NAME", "theirs")
    variables.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=two,deployment.environment.name=test")
    with traced("openline-test", about={"service.instance.id": "one"}):
        one_span()
    [resource] = requests[0].resource_spans
    about = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert (about["service.name"], about["service.instance.id"]) == ("theirs", "two")
    assert about["deployment.environment.name"] == "test"


def test_the_variables_say_how_much_is_sampled(received: Any, variables: pytest.MonkeyPatch) -> None:
    address, requests = received
    variables.setenv(ENDPOINT, address)
    variables.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with traced("openline-test"):
        one_span()
    assert requests == []


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER is 'zipkin'; only otlp is built in"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; only http/protobuf is built in",
        ),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "ValueError: "),
        ("OTEL_PYTHON_TRACER_PROVIDER", "nonsense", "OTEL_PYTHON_TRACER_PROVIDER: "),
    ],
)
def test_what_cannot_be_had_is_a_warning(
    variables: pytest.MonkeyPatch, log_lines: list[Any], name: str, value: str, why: str
) -> None:
    """The variables are often those of a whole machine: they must not keep a program from starting."""
    variables.setenv(ENDPOINT, "http://127.0.0.1:1")
    variables.setenv(name, value)
    with traced("openline-test"):
        assert not are_recorded()
    [line] = [line for line in log_lines if line["event"] == "tracing.unavailable"]
    assert line["log_level"] == "warning"
    assert line["why"].startswith(why)


def test_the_extra_is_not_installed(variables: pytest.MonkeyPatch, log_lines: list[Any]) -> None:
    """The line says what to install."""
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter")]:
        variables.delitem(sys.modules, name)
    variables.setitem(sys.modules, "opentelemetry.exporter", None)
    variables.setenv(ENDPOINT, "http://127.0.0.1:1")
    with traced("openline-test"):
        assert not are_recorded()
    [line] = log_lines
    assert (line["event"], line["log_level"]) == ("tracing.unavailable", "warning")
    assert line["why"].endswith("openline[tracing]")


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Somebody who takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_collector_that_does_not_answer(
    variables: pytest.MonkeyPatch, log_lines: list[Any], caplog: pytest.LogCaptureFixture, is_gone: bool
) -> None:
    """Spans are begun and ended at once, the end comes within its bound, and the log is not full of it."""
    variables.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    variables.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    variables.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    with contextlib.ExitStack() as stack:
        variables.setenv(ENDPOINT, "http://127.0.0.1:1" if is_gone else stack.enter_context(silent()))
        with traced("openline-test"):
            began = time.monotonic()
            for _ in range(2_000):
                one_span()
            asked_s = time.monotonic() - began
            began = time.monotonic()
        ended_s = time.monotonic() - began
    # Two thousand of them: nothing has waited for the collector even once, nor the end for as long as it may be tried.
    assert max(asked_s, ended_s) < 20
    assert len([line for line in caplog.records if line.name.startswith("opentelemetry.exporter")]) <= 1
    # One that is gone says so at once, and what is left is then not tried for long, or for as long as it may.
    if not is_gone:
        assert [line["event"] for line in log_lines if line["log_level"] == "warning"] == ["tracing.abandoned"]


def test_a_provider_that_somebody_has_set_is_used_and_left_alone(variables: pytest.MonkeyPatch) -> None:
    """So it is with OpenTelemetry's agent, which needs none of our variables."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    variables.setattr(trace, "get_tracer_provider", lambda: provider)
    with traced("openline-test"):
        one_span()
    assert [span.name for span in exporter.get_finished_spans()] == ["x"]
    assert not are_recorded()
    with provider.get_tracer("theirs").start_as_current_span("still there"):
        pass
    assert len(exporter.get_finished_spans()) == 2
    provider.shutdown()
