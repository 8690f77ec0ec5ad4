"""What every request passes: ids, bounds on its head and body, its log line, and errors of the framework."""

import asyncio
import json
from typing import Any

import httpx
import pytest
import structlog

from gateway import edge, serving
from gateway.traffic import Traffic
from openline.ids import is_command_id
from openline.settings import Address
from tests.programs import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

BODY = {"cluster_id": "local", "args": ["pods"]}


async def raw(gateway: Address, sent: bytes, *, timeout_s: float = 10.0) -> bytes:
    """What the gateway answers to these bytes, until it closes the connection."""
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(timeout_s):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_ids_are_echoed(api: httpx.AsyncClient) -> None:
    """Acceptable ids come back as they were; the header's correlation id wins over the body's."""
    headers = {"X-Request-ID": "r-1", "X-Correlation-ID": "c-1"}
    response = await api.post("/debug/execute", json={**BODY, "correlation_id": "c-2"}, headers=headers)
    assert (response.headers["X-Request-ID"], response.headers["X-Correlation-ID"]) == ("r-1", "c-1")
    assert response.json()["correlation_id"] == "c-1"


async def test_the_bodys_correlation_id_is_echoed_too(api: httpx.AsyncClient) -> None:
    """Without a header the body's is the one."""
    response = await api.post("/debug/execute", json={**BODY, "correlation_id": "c-2"})
    assert response.headers["X-Correlation-ID"] == response.json()["correlation_id"] == "c-2"


@pytest.mark.parametrize("given", [None, b"", b"two words", b"x" * 201, b"\xc3\xa4"])
async def test_ids_are_made_where_none_is_acceptable(api: httpx.AsyncClient, given: bytes | None) -> None:
    """Every answer has both ids, an error as well."""
    headers = {"X-Request-ID": given} if given is not None else {}
    for response in (await api.get("/healthz", headers=headers), await api.get("/nowhere", headers=headers)):
        assert is_command_id(response.headers["X-Request-ID"])
        assert is_command_id(response.headers["X-Correlation-ID"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("incident 7", "incident%207"),
        ("Störung/7%", "St%C3%B6rung/7%"),
        ("tab\there", "tab%09here"),
        ("x" * 300, "x" * 200),
    ],
    ids=["a space", "not ASCII", "a control character", "too long"],
)
async def test_no_correlation_id_is_refused_or_replaced(api: httpx.AsyncClient, given: str, told: str) -> None:
    """It is told back as it travels, the same from the header and from the body, and commands are found by either."""
    by_header = await api.post("/debug/execute", json=BODY, headers={"X-Correlation-ID": given.encode()})
    by_body = await api.post("/debug/execute", json={**BODY, "correlation_id": given})
    session = await api.post("/debug/session", json={"cluster_id": "local", "correlation_id": given})
    for answer in (by_header, by_body, session):
        assert answer.headers["X-Correlation-ID"] == answer.json()["correlation_id"] == told
    ids = {by_header.json()["command_id"], by_body.json()["command_id"]}
    async with asyncio.timeout(10):
        while True:
            found = (await api.get("/v1/commands", params={"correlation_id": given})).json().get("commands", [])
            if ids <= {command["command_id"] for command in found}:
                break
            await asyncio.sleep(0.02)


async def test_an_agent_call_is_logged_with_its_correlation_id(api: httpx.AsyncClient) -> None:
    """One line a request, with ids and the route's template; a made correlation id is not an agent call."""
    with structlog.testing.capture_logs() as lines:
        await api.post("/debug/execute", json=BODY, headers={"X-Correlation-ID": "test-a2a-123"})
        await api.post("/debug/execute", json=BODY)
        await api.get("/debug/session/nope")
    agent, other, session = [line for line in lines if line["event"] == "request.answered"]
    assert agent["log_level"] == "info"
    assert (agent["method"], agent["route"], agent["status"]) == ("POST", "/debug/execute", 200)
    assert agent["correlation_id"] == "test-a2a-123"
    assert is_command_id(agent["command_id"])
    assert "correlation_id" not in other
    assert (session["route"], session["reason"]) == ("/debug/session/{session_id}", "SESSION_UNKNOWN")
    assert "test-key" not in repr(lines)
    assert "pods" not in repr(lines)


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [("GET", "/nowhere", 404, "Not Found"), ("GET", "/debug/execute", 405, "Method Not Allowed")],
)
async def test_what_the_framework_refuses_is_a_problem(
    api: httpx.AsyncClient, method: str, path: str, status: int, detail: str
) -> None:
    """Unknown paths and methods have the shape of every other error."""
    response = await api.request(method, path)
    problem = response.json()
    assert (response.status_code, problem["status"], problem["detail"]) == (status, status, detail)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "instance", "reason", "executed", "retryable", "request_id", "correlation_id"} < set(
        problem
    )


async def test_a_body_over_1_mib_is_413(gateway: Address) -> None:
    """At once where its length is announced, otherwise as soon as it is over."""
    head = b"POST /debug/execute HTTP/1.1\r\nHost: x\r\nX-API-Key: test-key\r\n"
    too_much = edge.MAX_BODY_BYTES + 1
    announced = await raw(gateway, head + b"Content-Length: %d\r\n\r\n" % too_much)
    chunked = await raw(gateway, head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % too_much + b"x" * too_much)
    for answer in (announced, chunked):
        assert answer.startswith(b"HTTP/1.1 413")
        assert b'"detail":"The body is larger' in answer


async def test_a_body_that_does_not_come_is_408(gateway: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that announces a body and sends half of it is not waited for."""
    monkeypatch.setattr(edge, "BODY_TIMEOUT_S", 0.2)
    head = b"POST /debug/execute HTTP/1.1\r\nHost: x\r\nX-API-Key: test-key\r\nContent-Length: 100\r\n\r\n{"
    assert (await raw(gateway, head)).startswith(b"HTTP/1.1 408")


async def test_a_client_that_leaves_in_its_body_costs_nothing(gateway: Address, api: httpx.AsyncClient) -> None:
    """The line says 499, and the next request is served."""

    async def in_flight(count: int) -> None:
        """Until so many are, beside the one that asks."""
        line = f"\nopenline_gateway_requests_in_flight {count + 1}.0\n"
        async with asyncio.timeout(30):
            while line not in (await api.get("/metrics")).text:
                await asyncio.sleep(0.01)

    await in_flight(0)
    with structlog.testing.capture_logs() as lines:
        _, writer = await asyncio.open_connection(gateway.host, gateway.port)
        writer.write(b"POST /debug/execute HTTP/1.1\r\nHost: x\r\nX-API-Key: k\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        await in_flight(1)
        writer.transport.abort()
        [line] = await until(lambda: [line for line in lines if line.get("method") == "POST"])
    assert line["status"] == 499
    assert (await api.get("/healthz")).status_code == 200


async def test_a_head_that_does_not_come_is_cut_off(gateway: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that never finishes a request's head is closed, and one that only sends what may come before."""
    monkeypatch.setattr(serving, "HEAD_TIMEOUT_S", 0.2)
    assert await raw(gateway, b"GET /healthz HTTP/1.1\r\nHost: ") == b""
    assert await raw(gateway, b"\r\n") == b""


async def test_a_connection_has_time_before_its_first_request(
    gateway: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As between two requests, not as for a head: who opens very many at once does not get round to each at once."""
    monkeypatch.setattr(serving, "HEAD_TIMEOUT_S", 0.2)
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    await asyncio.sleep(0.6)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_an_idle_connection_is_closed(
    broker: Address, serve_gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one, and one between two requests."""
    monkeypatch.setattr(serving, "KEEP_ALIVE_S", 0.2)
    async with serve_gateway(broker) as (address, _):
        assert await raw(address, b"") == b""
        assert (await raw(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_head_without_end_is_cut_off(gateway: Address) -> None:
    """A head beyond its bound is not collected; whoever still sends may not see why."""
    told = await raw(gateway, b"GET /healthz HTTP/1.1\r\nX-Long: " + b"x" * (1 << 20))
    assert told == b"" or told.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("size", "status", "pieces"),
    [(63 << 10, 200, 1), (63 << 10, 200, 8), (65 << 10, 431, 1), (65 << 10, 431, 8), (90 << 10, 431, 1)],
)
async def test_a_head_has_64_kib(gateway: Address, size: int, status: int, pieces: int) -> None:
    """Whether it comes at once or in pieces."""
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: %b\r\n\r\n" % (b"x" * size)
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    for start in range(0, len(head), step := -(-len(head) // pieces)):
        writer.write(head[start : start + step])
        await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        told = await reader.read()
    writer.close()
    assert told.startswith(b"HTTP/1.1 %d " % status)
    assert b"x-request-id: " in told.lower()


async def test_garbage_is_400(gateway: Address) -> None:
    """Bytes that are no HTTP are refused without fuss."""
    assert (await raw(gateway, b"\x16\x03\x01 hello\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_the_documentation_describes_the_routes(api: httpx.AsyncClient) -> None:
    """OpenAPI 3.1 with short operation ids, the key, an example, and what errors look like."""
    document = (await api.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    operations = {
        operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()
    }
    assert set(operations) == {
        "execute", "create_session", "get_session", "delete_session", "list_clusters", "get_cluster",
        "get_cluster_status", "health", "healthz", "metrics", "run_command", "get_command", "get_operation",
        "get_output", "watch_command", "cancel_command", "execute_async", "fan_out", "list_clusters_v1",
        "get_cluster_v1", "create_session_v1", "get_session_v1", "delete_session_v1", "get_capabilities",
        "list_commands", "list_session_commands", "list_sessions", "list_audit_entries",
        "create_token", "revoke_token", "list_agents", "get_agent_status",
        "list_tokens", "create_key", "list_keys", "revoke_key", "cancel_all", "set_log_level",
        "validate_command", "cancel_commands", "drain", "get_overview", "watch_overview",
    }  # fmt: skip
    execute = operations["execute"]
    assert execute["security"] == [{"ApiKey": []}, {"Bearer": []}]
    assert {"401", "404", "422", "503"} < set(execute["responses"])
    assert document["components"]["schemas"]["ExecuteBody"]["examples"]
    assert {p["name"] for p in execute["parameters"]} >= {"X-Request-Timeout", "X-Correlation-ID", "Prefer"}
    assert "security" not in operations["health"]
    for streaming in ("execute", "run_command", "watch_command"):
        assert "text/event-stream" in operations[streaming]["responses"]["200"]["content"]
    assert "application/json" in operations["run_command"]["responses"]["200"]["content"]
    assert set(operations["get_output"]["responses"]["200"]["content"]) == {"application/octet-stream"}
    assert "Last-Event-ID" in {p["name"] for p in operations["watch_command"]["parameters"]}
    assert {p["name"] for p in operations["get_output"]["parameters"]} > {"offset", "limit", "source", "wait"}
    assert document["components"]["schemas"]["CommandBody"]["examples"]
    assert {"410", "499", "504"} < set(operations["run_command"]["responses"])
    assert {p["name"] for p in operations["get_session"]["parameters"]} > {"session_id", "X-Request-ID"}


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_to_upgrade_is_answered_as_what_it_is(
    gateway: Address, cluster: str, caplog: pytest.LogCaptureFixture, chunked: bool
) -> None:
    """Java's client asks for h2c by default: its body counts, however the bytes arrive; nothing is logged about it."""
    body = b'{"cluster_id":"local","args":["pods"]}'
    told = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    head = (
        b"POST /debug/execute HTTP/1.1\r\nHost: here\r\nX-API-Key: test-key\r\nContent-Type: application/json\r\n"
        b"Connection: Upgrade, HTTP2-Settings%b\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n%b\r\n\r\n"
    )
    # Two on one connection, of which the second closes it; in one piece, and byte by byte.
    requests = head % (b"", told) + sent + head % (b", close", told) + sent
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    for piece in (requests[i : i + 1] for i in range(len(requests))):
        writer.write(piece)
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        slowly = await reader.read()
    writer.close()
    for answered in (await raw(gateway, requests, timeout_s=20), slowly):
        assert answered.count(b"HTTP/1.1 200 OK") == 2
    assert "upgrade" not in caplog.text.lower()


async def test_connect_is_refused(gateway: Address) -> None:
    """It is an upgrade that is nothing else."""
    assert (await raw(gateway, b"CONNECT there:443 HTTP/1.1\r\nHost: there\r\n\r\n")).startswith(b"HTTP/1.1 4")


async def test_the_documents_problems_are_those_that_happen(api: httpx.AsyncClient) -> None:
    """Also the ones that any route can answer; an Idempotency-Key is taken where commands are run."""
    paths = (await api.get("/openapi.json")).json()["paths"]
    execute = paths["/debug/execute"]["post"]
    assert {"401", "403", "404", "413", "422", "429", "501", "502", "503"} <= set(execute["responses"])
    taking = {
        operation["operationId"]
        for path in paths.values()
        for operation in path.values()
        if any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", []))
    }
    assert taking == {"execute", "execute_async", "run_command", "fan_out"}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/debug/execute", "POST"),
        ("/debug/session/x", "DELETE, GET"),
        ("/v1/commands/x", "DELETE, GET"),
        ("/v1/sessions/x", "DELETE, GET"),
        ("/v1/clusters", "GET"),
    ],
)
async def test_405_says_what_is_allowed(api: httpx.AsyncClient, path: str, allowed: str) -> None:
    """Every method that the resource has, not only the first one's (RFC 9110, 10.2.1)."""
    response = await api.put(path)
    assert (response.status_code, response.headers["Allow"]) == (405, allowed)
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET /healthz?" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"],
    ids=["no HTTP", "a URL that is too long"],
)
async def test_what_is_no_http_is_a_problem_as_well(gateway: Address, sent: bytes) -> None:
    """400 as every other refusal: a problem, with its ids in the headers and in the body."""
    reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
    writer.write(sent)
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    told = json.loads(body)
    assert status == "HTTP/1.1 400 Bad Request"
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert (told["status"], told["executed"], told["retryable"]) == (400, "no", False)
    assert (headers["x-request-id"], headers["x-correlation-id"]) == (told["request_id"], told["correlation_id"])


async def test_a_crowd_is_told_to_come_later(
    gateway: Address, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 as every other refusal, counted and logged, and nothing has run; whatever watches the gateway is answered."""
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 0)
    with structlog.testing.capture_logs() as lines:
        refused = await api.post("/debug/execute", json=BODY)
    told = refused.json()
    assert (refused.status_code, told["reason"], told["executed"]) == (503, "BROKER_UNAVAILABLE", "no")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert (told["retryable"], refused.headers["Retry-After"], refused.headers["Connection"]) == (True, "1", "close")
    assert refused.headers["X-Request-ID"] == told["request_id"]
    assert (lines[0]["status"], lines[0]["reason"]) == (503, "BROKER_UNAVAILABLE")
    for path in ("/health", "/healthz", "/metrics"):
        assert (await api.get(path)).status_code == 200
    monkeypatch.setattr(serving, "MOST_CONNECTIONS", 0)
    assert await raw(gateway, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == b""


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/debug/execute", b"{no json"),
        ("POST", "/v1/fanout", b"[]"),
        ("POST", "/v1/clusters/local/commands", b"x" * (edge.MAX_BODY_BYTES + 1)),
        ("GET", "/v1/commands/nope", b""),
        ("GET", "/audit?limit=0", b""),
        ("GET", "/v1/nowhere", b""),
    ],
)
async def test_the_key_is_asked_for_first(api: httpx.AsyncClient, method: str, path: str, body: bytes) -> None:
    """Whoever shows none hears of nothing else that is wrong."""
    answer = await api.request(method, path, content=body, headers={"X-API-Key": ""})
    assert (answer.status_code, answer.json()["detail"]) == (401, "Missing API key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_every_route_that_takes_a_key_asks_for_it(api: httpx.AsyncClient) -> None:
    """As the document has it."""
    paths = (await api.get("/openapi.json")).json()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            answer = await api.request(
                method,
                path.format(cluster_id="x", command_id="x", session_id="x", key_id="x"),
                headers={"X-API-Key": ""},
            )
            assert (answer.status_code == 401) == ("security" in operation), path


@pytest.mark.parametrize("path", ["/v1/clusters/a%00b", "/debug/session/%00", "/nowhere%00"])
async def test_nul_in_a_path_is_404(api: httpx.AsyncClient, path: str) -> None:
    """And is not told back as it came."""
    answer = await api.get(path)
    assert answer.status_code == 404
    assert "\0" not in answer.text
    assert "\\u0000" not in answer.text
    assert answer.json()["instance"] == path


@pytest.mark.parametrize("path", ["/health", "/healthz", "/metrics", "/docs", "/openapi.json"])
async def test_head_works_where_get_does(api: httpx.AsyncClient, path: str) -> None:
    """The same head, and no body."""
    asked, got = await api.head(path), await api.get(path)
    assert (asked.status_code, asked.headers["Content-Type"]) == (got.status_code, got.headers["Content-Type"])
    assert asked.content == b""


async def test_a_slash_too_many_is_404(api: httpx.AsyncClient) -> None:
    """Nobody is sent elsewhere: many clients leave their key behind on the way."""
    assert (await api.get("/debug/clusters/")).status_code == 404


async def test_a_defect_is_told_with_its_request() -> None:
    """The server's own traceback says nothing of whose it was."""

    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise LookupError("a defect")

    transport = httpx.ASGITransport(app=edge.Edge(broken, Traffic()))  # type: ignore[arg-type]
    ids = {"X-Request-ID": "r", "X-Correlation-ID": "c", "X-API-Key": "k"}
    with structlog.testing.capture_logs() as lines, pytest.raises(LookupError):
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get("/v1/clusters", headers=ids)
    assert [(line["event"], line["request_id"], line["correlation_id"]) for line in lines] == [
        ("request.failed", "r", "c"),
        ("request.answered", "r", "c"),
    ]
