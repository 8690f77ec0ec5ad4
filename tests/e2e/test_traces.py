"""One trace from REST to the executor's process, over two replicas: real processes that send their spans to a collector
on loopback; and what becomes of commands when there is no collector.
"""

import http.server
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE}-b7ad6b7169203331-01"
EXECUTE = "openline.v1.CommandService/Execute"
# Who tells of which span, below which; the first one is below the caller's.
CHAIN = [
    ("openline-gateway", Span.SPAN_KIND_SERVER, "POST /debug/execute"),
    ("openline-gateway", Span.SPAN_KIND_CLIENT, EXECUTE),
    ("broker-0", Span.SPAN_KIND_SERVER, EXECUTE),
    ("broker-0", Span.SPAN_KIND_CLIENT, EXECUTE),
    ("broker-1", Span.SPAN_KIND_SERVER, EXECUTE),
    ("broker-1", Span.SPAN_KIND_CLIENT, "openline.v1.ExecutorService/Connect"),
    ("openline-executor", Span.SPAN_KIND_CLIENT, "kubectl"),
]
REPLICAS = {"openline-broker"}
PAGE = Path(__file__).parents[2] / "docs" / "operating.md"


class Collected:
    """Every span that was sent, with who sent it: a service, or of several replicas which one."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        self.bodies: list[bytes] = []

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: each.value.string_value for each in sent.resource.attributes}
            who = about["service.instance.id" if about["service.name"] in REPLICAS else "service.name"]
            self.spans += [(who, span) for scope in sent.scope_spans for span in scope.spans]

    def of(self, trace_id: str) -> list[tuple[str, Span]]:
        return [(who, span) for who, span in self.spans if span.trace_id.hex() == trace_id]

    def chain(self, traceparent: str) -> list[tuple[str, Span]]:
        """The spans one below the other; fails where one has two below it."""
        left = self.of(traceparent[3:35])
        above, found = traceparent[36:52], []
        while below := [(who, span) for who, span in left if span.parent_span_id.hex() == above]:
            [(who, span)] = below
            found.append((who, span))
            above = span.span_id.hex()
        assert len(found) == len(left)
        return found


@pytest.fixture(scope="module")
def collected() -> Iterator[Collected]:
    """A collector, to which every program that is started meanwhile sends what it has, soon."""
    taken = Collected()

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server, pytest.MonkeyPatch.context() as patch:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        _ask_for_traces(patch, f"http://127.0.0.1:{server.server_port}")
        yield taken
        server.shutdown()
        serving.join()


def _ask_for_traces(patch: pytest.MonkeyPatch, endpoint: str) -> None:
    for name in os.environ:
        if name.startswith("OTEL_"):
            patch.delenv(name)
    patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")


@pytest.fixture(scope="module")
def fleet(collected: Collected, make_fleet: Callable[..., Any]) -> Iterator[Any]:
    with make_fleet(replicas=2, clusters=["east", "west"]).running() as running:
        yield running


@pytest.fixture
async def rest(fleet: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The gateway, which prefers the replica that the executor is not connected to."""
    async with fleet.rest() as client:
        yield client
    fleet.gateway.close()


async def test_one_trace_over_two_replicas(
    fleet: Any, rest: httpx.AsyncClient, open_cluster: Callable[..., Any], collected: Collected, eventually: Any
) -> None:
    """Each hop is below the one before, whichever process it is in, and tells the next one of itself. A trace that is
    not sampled is nowhere, and of what the command says and writes nothing is in any span."""
    body = {"cluster_id": "east", "args": ["pods", "the-argument"], "namespace": "fail-3"}
    async with open_cluster("east", fleet.brokers[1].address) as cluster:
        await cluster.start()
        await fleet.know(cluster)
        unsampled = {"traceparent": f"{CALLER[:-1]}0".replace("b7", "c8")}
        assert (await rest.post("/debug/execute", json=body, headers=unsampled)).json()["exit_code"] == 3
        answer = (await rest.post("/debug/execute", json=body, headers={"traceparent": CALLER})).json()
        assert answer["exit_code"] == 3
        eventually(lambda: len(collected.of(TRACE)) >= len(CHAIN))
        chain = collected.chain(CALLER)
        assert [(who, span.kind, span.name) for who, span in chain] == CHAIN
        about = [{each.key: each.value for each in span.attributes} for _, span in chain]
        assert {told["openline.command_id"].string_value for told in about} == {answer["command_id"]}
        # That it failed is the command's, and nobody's error but the process's.
        errors = [span.status.code == Status.STATUS_CODE_ERROR for _, span in chain]
        assert errors == [False] * 6 + [True]
        assert about[-1]["process.exit.code"].int_value == 3
        times = [(span.start_time_unix_nano, span.end_time_unix_nano) for _, span in chain]
        assert times == sorted(times)
    sent = b"".join(collected.bodies)
    assert b"the-argument" not in sent
    assert b"test-key" not in sent
    assert b"token-of-east" not in sent


async def test_a_trace_that_begins_here_and_what_is_refused(
    rest: httpx.AsyncClient, collected: Collected, eventually: Any
) -> None:
    """Without a traceparent it begins at the gateway. A lookup is below the request as well."""
    refused = await rest.post("/debug/execute", json={"cluster_id": "west", "args": ["pods"]})
    assert refused.status_code == 503
    await rest.get("/v1/clusters/west")
    names = [("POST /debug/execute", 3), ("GET /v1/clusters/{cluster_id}", 2)]

    def traces() -> list[list[tuple[str, Span]]]:
        roots = [span for _, span in collected.spans if not span.parent_span_id]
        return [collected.of(root.trace_id.hex()) for name, _ in names for root in roots if root.name == name]

    eventually(lambda: [len(trace) for trace in traces()] == [count for _, count in names])
    executed, looked = traces()
    assert {span.name for _, span in executed} == {"POST /debug/execute", EXECUTE}
    assert all(span.status.code == Status.STATUS_CODE_ERROR for _, span in executed)
    assert sorted(span.name for _, span in looked) == [
        "GET /v1/clusters/{cluster_id}",
        "openline.v1.ClusterService/GetCluster",
    ]


async def test_the_page_names_the_spans_and_what_is_ours_in_them(
    rest: httpx.AsyncClient, open_cluster: Callable[..., Any], fleet: Any, collected: Collected, eventually: Any
) -> None:
    """docs/operating.md has a row for each span of such a trace, in their order, and one for each attribute of ours."""
    trace = f"00-{'1' * 32}-{'2' * 16}-01"
    headers = {"traceparent": trace, "X-Correlation-ID": "conv"}
    async with open_cluster("east", fleet.brokers[1].address, executor_id="other") as cluster:
        await cluster.start()
        await fleet.know(cluster)
        session = (await rest.post("/debug/session", json={"cluster_id": "east"})).json()["session_id"]
        body = {"cluster_id": "east", "args": ["pods", "one"], "session_id": session}
        for _ in range(2):
            keyed = headers | {"Idempotency-Key": "once"}
            assert (await rest.post("/debug/execute", json=body, headers=keyed)).status_code == 200
        await rest.post("/debug/execute", json={"cluster_id": "nowhere", "args": ["pods"]}, headers=headers)
        ours = {"openline.outcome", "openline.reason", "openline.executed", "openline.replayed"}
        ours |= {f"openline.{name}_id" for name in ("command", "cluster", "session", "correlation")}

        def told() -> set[str]:
            keys = {each.key for _, span in collected.of("1" * 32) for each in span.attributes}
            return {key for key in keys if key.startswith("openline.")}

        eventually(lambda: told() == ours)
    page = PAGE.read_text().partition("## Traces\n")[2].partition("\n## ")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.splitlines() if line[:2] == "| "]
    spans = [tuple(row[:3]) for row in rows if row[0] in ("gateway", "broker", "executor")]
    assert spans == [
        (who.removeprefix("openline-").partition("-")[0], Span.SpanKind.Name(kind).removeprefix("SPAN_KIND_"), name)
        for who, kind, name in (*CHAIN[:4], *CHAIN[5:])  # the second replica's is like the first one's
    ]
    assert {row[0] for row in rows if row[0].startswith("openline.")} == ours


async def test_without_a_collector(
    make_fleet: Callable[..., Any], open_cluster: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands run as they would, and programs end with code 0 within moments."""
    _ask_for_traces(monkeypatch, "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    with make_fleet(replicas=1, clusters=["east"]).running() as fleet:
        async with open_cluster("east", *fleet.addresses) as cluster, fleet.rest() as rest:
            await cluster.start()
            for number in range(10):
                body = {"cluster_id": "east", "args": ["pods", f"n{number}"]}
                answer = await rest.post("/debug/execute", json=body, headers={"traceparent": CALLER})
                assert answer.json()["success"] is True
            began = time.monotonic()
            for program in (fleet.gateway, *fleet.brokers):
                program.signal(signal.SIGTERM)
            assert [await program.ended() for program in (fleet.gateway, *fleet.brokers)] == [0, 0]
            # Two seconds for the spans that nobody takes; the SDK itself would wait for thirty.
            assert time.monotonic() - began < 20


async def test_a_program_whose_extra_is_not_installed(
    make_fleet: Callable[..., Any], open_cluster: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """It says so, once, and runs; what comes is passed on to the process unchanged."""
    _ask_for_traces(monkeypatch, "http://127.0.0.1:1")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('opentelemetry.sdk', 'opentelemetry.exporter'):\n    sys.modules[name] = None\n"
    )
    path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    with make_fleet(replicas=1, clusters=["east"]).running() as fleet:
        async with open_cluster("east", *fleet.addresses) as cluster, fleet.rest() as rest:
            kubectl = cluster.log.parent / "kubectl"
            kubectl.write_text(kubectl.read_text().replace("#!/bin/sh\n", '#!/bin/sh\necho "$TRACEPARENT" >&2\n'))
            await cluster.start("--log-format", "json")
            body = {"cluster_id": "east", "args": ["pods", "one"]}
            answer = (await rest.post("/debug/execute", json=body, headers={"traceparent": CALLER})).json()
            assert (answer["success"], answer["stderr"].strip()) == (True, CALLER)
            for program in (fleet.gateway, *fleet.brokers):
                assert program.said("tracing.unavailable") == 1
                assert "openline[tracing]" in program.log.read_text()
            assert cluster.log.read_text().count("tracing.unavailable") == 1
