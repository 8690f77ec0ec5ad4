"""REST in a trace: the request's span, that of the call to the broker, and what comes to kubectl at the other end.

The broker and the executor are processes that record nothing, and pass on what they are told.
"""

import asyncio
from typing import Any

import httpx
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openline.ids import new_id
from tests.programs import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CALLER[:-1] + "0"
EXECUTE = "/debug/execute"
BODY = {"cluster_id": "local", "args": ["trace"], "namespace": "shop"}
CALL, STREAM = "openline.v1.CommandService/Execute", "openline.v1.CommandService/ExecuteStream"

Spans = InMemorySpanExporter
# Also the ways past which there is a shorter one, and with the answer in another form.
WAYS: list[tuple[str, Any, dict[str, str]]] = [
    (EXECUTE, BODY, {}),
    (EXECUTE, BODY, {"Prefer": "handling=lenient"}),
    ("/v1/clusters/local/commands", {"argv": ["get", "trace"]}, {}),
]


async def ended(recorded: Spans, count: int) -> list[ReadableSpan]:
    """So many spans, the first that was begun first; a request's ends behind its answer."""
    async with asyncio.timeout(10):
        while len(spans := recorded.get_finished_spans()) < count:
            await asyncio.sleep(0.01)
    assert len(spans) == count
    return sorted(spans, key=lambda span: span.start_time or 0)


def below(span: ReadableSpan) -> str:
    assert span.context
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


def above(span: ReadableSpan) -> str:
    assert span.parent
    return f"00-{span.parent.trace_id:032x}-{span.parent.span_id:016x}-01"


def told(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(name)


async def ran(api: httpx.AsyncClient, path: str, body: Any, headers: dict[str, str]) -> str:
    """What kubectl says of its trace."""
    answer = (await api.post(path, json=body, headers=headers)).json()
    return str(answer.get("output") or answer["stdout"]).strip()


@pytest.mark.parametrize(("path", "body", "headers"), WAYS)
@pytest.mark.parametrize("sent", [CALLER, UNSAMPLED, "cc" + CALLER[2:]])
async def test_without_spans_what_came_goes_on_to_the_process(
    api: httpx.AsyncClient, path: str, body: Any, headers: dict[str, str], sent: str
) -> None:
    """Through gateway, broker and executor, to the letter."""
    assert await ran(api, path, body, headers | {"traceparent": sent}) == sent


@pytest.mark.parametrize("sent", ["", "00-x", CALLER.upper(), f"{CALLER}-more"])
async def test_a_traceparent_that_cannot_be_read_is_none(api: httpx.AsyncClient, sent: str, recorded: Spans) -> None:
    """The request is answered, in a trace of its own."""
    assert await ran(api, EXECUTE, BODY, {"traceparent": sent}) not in ("", sent)
    [request, _] = await ended(recorded, 2)
    assert request.parent is None


@pytest.mark.parametrize(("path", "body", "headers"), WAYS)
async def test_a_request_and_its_call(
    api: httpx.AsyncClient, recorded: Spans, path: str, body: Any, headers: dict[str, str]
) -> None:
    """The one below the caller, the other below the one, and the process below the other."""
    said = await ran(api, path, body, headers | {"traceparent": CALLER, "X-Correlation-ID": "conv"})
    [request, call] = await ended(recorded, 2)
    assert (above(request), above(call), said) == (CALLER, below(request), below(call))
    route = path.replace("/local/", "/{cluster_id}/")
    assert (request.name, request.kind.name, call.name, call.kind.name) == (f"POST {route}", "SERVER", CALL, "CLIENT")
    assert told(request, "http.route") == route
    assert (told(request, "http.request.method"), told(request, "url.path")) == ("POST", path)
    assert told(request, "http.response.status_code") == 200
    for span in (request, call):
        assert told(span, "openline.cluster_id") == "local"
        assert told(span, "openline.command_id") == told(call, "openline.command_id") != None  # noqa: E711
        assert told(span, "openline.correlation_id") == "conv"
        assert span.status.status_code.name == "UNSET"


async def test_what_is_not_sampled_is_not_recorded(api: httpx.AsyncClient, recorded: Spans) -> None:
    """And the process hears that it is not, in the same trace."""
    said = await ran(api, EXECUTE, BODY, {"traceparent": UNSAMPLED})
    assert (said[:35], said[-3:]) == (UNSAMPLED[:35], "-00")
    assert recorded.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("path", "body", "status", "reason", "is_error"),
    [
        (EXECUTE, {"cluster_id": "nowhere", "args": ["pods"]}, 404, "CLUSTER_UNKNOWN", False),
        (EXECUTE, {"cluster_id": "west", "args": ["pods"]}, 503, "CLUSTER_OFFLINE", True),
        (EXECUTE, {"cluster_id": "local", "args": ["secrets"]}, 403, "POLICY_DENIED", False),
        (EXECUTE, {"cluster_id": 5}, 422, "INVALID_COMMAND", False),
    ],
)
async def test_what_fails(
    api: httpx.AsyncClient, recorded: Spans, path: str, body: Any, status: int, reason: str | None, is_error: bool
) -> None:
    """What the caller did wrong is no error of the server's."""
    await api.post(path, json=body)
    # What the gateway refuses itself is asked of nobody.
    request = (await ended(recorded, 1 if status == 422 else 2))[0]
    assert told(request, "http.response.status_code") == status
    assert told(request, "openline.reason") == reason
    assert told(request, "error.type") == (reason if is_error else None)
    assert request.status.status_code.name == ("ERROR" if is_error else "UNSET")


async def test_a_wrong_key_and_no_route(api: httpx.AsyncClient, recorded: Spans) -> None:
    """A path that is no route is not in the name, which anybody could make up."""
    await api.get("/v1/clusters", headers={"X-API-Key": ""})
    await api.get("/nothing/here?token=hush")
    refused, missed = await ended(recorded, 2)
    assert (refused.name, told(refused, "http.response.status_code")) == ("GET", 401)
    assert (missed.name, told(missed, "http.response.status_code"), told(missed, "http.route")) == ("GET", 404, None)
    assert "hush" not in missed.to_json()


async def test_the_frameworks_own_spans_are_off(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody has set a provider for the whole process: they have query strings in them, and inputs."""
    theirs = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(theirs))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    await api.get("/v1/clusters?page_size=hush")
    await api.get("/v1/clusters")
    provider.shutdown()
    assert theirs.get_finished_spans() == ()


async def test_probes_have_no_span(api: httpx.AsyncClient, recorded: Spans) -> None:
    """They come every few seconds."""
    for path in ("/healthz", "/health", "/metrics"):
        await api.get(path)
    await api.get("/docs")
    [span] = await ended(recorded, 1)
    assert span.name == "GET /docs"


async def test_a_method_that_no_route_has(api: httpx.AsyncClient, recorded: Spans) -> None:
    await api.request("PROPFIND", "/debug/execute")
    [span] = await ended(recorded, 1)
    assert (span.name, told(span, "http.request.method")) == ("HTTP /debug/execute", "_OTHER")


async def test_events_are_a_call_until_the_result(api: httpx.AsyncClient, recorded: Spans) -> None:
    """To watch the same command later is another one."""
    headers = {"Accept": "text/event-stream", "traceparent": CALLER}
    await api.post("/v1/clusters/local/commands", json={"argv": ["get", "both"]}, headers=headers)
    request, call = await ended(recorded, 2)
    assert (call.name, above(call), above(request)) == (STREAM, below(request), CALLER)
    assert (told(call, "openline.outcome"), told(call, "rpc.response.status_code")) == ("exited", "OK")
    recorded.clear()
    command_id = told(call, "openline.command_id")
    await api.get(f"/v1/commands/{command_id}/events", headers={"traceparent": CALLER})
    request, *_, call = await ended(recorded, 2)
    assert (call.name, above(call)) == ("openline.v1.CommandService/WatchCommand", below(request))
    assert request.name == "GET /v1/commands/{command_id}/events"


async def test_a_caller_that_leaves(api: httpx.AsyncClient, recorded: Spans, gate: Any) -> None:
    """Nobody has done anything wrong; 499 is what the log says as well."""
    name = new_id()
    body = {"cluster_id": "local", "args": ["held", name], "correlation_id": name, "timeout_seconds": 60}
    asking = asyncio.create_task(api.post(EXECUTE, json=body, headers={"traceparent": CALLER}))
    async with asyncio.timeout(30):
        while '"running"' not in (await api.get("/v1/commands", params={"correlation_id": name})).text:
            await asyncio.sleep(0.02)
    asking.cancel()
    trace_id = int(CALLER.split("-")[1], 16)

    def of_it() -> list[ReadableSpan]:
        spans = [each for each in recorded.get_finished_spans() if each.context and each.context.trace_id == trace_id]
        return sorted(spans, key=lambda span: span.start_time or 0)

    await until(lambda: len(of_it()) == 2)
    gate(name).touch()
    request, call = of_it()
    assert told(call, "rpc.response.status_code") == "CANCELLED"
    assert told(request, "http.response.status_code") in (None, 499)
    assert request.status.status_code.name == "UNSET"


async def test_a_fan_out_is_one_request_and_a_call_for_each(api: httpx.AsyncClient, recorded: Spans) -> None:
    body = {"clusters": ["local", "west"], "argv": ["get", "trace"]}
    answer = (await api.post("/v1/fanout", json=body, headers={"traceparent": CALLER})).json()
    request, *calls = await ended(recorded, 3)
    assert [above(call) for call in calls] == 2 * [below(request)]
    assert {told(call, "openline.cluster_id"): told(call, "openline.reason") for call in calls} == {
        "local": None,
        "west": "CLUSTER_OFFLINE",
    }
    [local] = [call for call in calls if told(call, "openline.cluster_id") == "local"]
    assert below(local) in str(answer)


@pytest.mark.parametrize("door", ["rest", "mcp", "a2a"])
async def test_a_cancel_is_a_call(api: httpx.AsyncClient, recorded: Spans, door: str) -> None:
    """Whichever way it comes in."""
    command_id = (await api.post("/debug/execute/async", json={"cluster_id": "local", "args": ["slow"]})).json()[
        "operation_id"
    ]
    await ended(recorded, 2)
    recorded.clear()
    method, params = {
        "rest": ("", {}),
        "mcp": ("tools/call", {"name": "cancel", "arguments": {"command_id": command_id}}),
        "a2a": ("tasks/cancel", {"id": command_id}),
    }[door]
    headers = {"traceparent": CALLER, "Accept": "application/json, text/event-stream"}
    if door == "rest":
        answer = await api.delete(f"/v1/commands/{command_id}", headers=headers)
    else:
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await api.post(f"/{door}", json=call, headers=headers)
    assert answer.is_success, answer.text
    async with asyncio.timeout(10):
        while CALLER not in map(above, spans := recorded.get_finished_spans()):
            await asyncio.sleep(0.01)
    [cancel] = [span for span in spans if span.name == "openline.v1.CommandService/CancelCommand"]
    [request] = [span for span in spans if above(span) == CALLER]
    assert above(cancel) == below(request)
    assert told(cancel, "openline.command_id") == command_id


async def test_the_line_of_a_request_leads_to_its_span(api: httpx.AsyncClient, recorded: Spans) -> None:
    with structlog.testing.capture_logs() as lines:
        await api.post(EXECUTE, json=BODY)
        await api.post(EXECUTE, json=BODY, headers={"traceparent": UNSAMPLED})
        request, _ = await ended(recorded, 2)
        async with asyncio.timeout(10):
            while len(told_of := [line for line in lines if line["event"] == "request.answered"]) < 2:
                await asyncio.sleep(0.01)
    first, second = told_of
    assert f"00-{first['trace_id']}-{first['span_id']}-01" == below(request)
    assert "trace_id" not in second
