"""/mcp as HTTP: who is let in, what is refused and how, and that no client can make it stumble."""

import json
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.mcp.door import Door

KEY, WRONG = "the-key-of-mia", "a-key-of-nobody"
ACCEPT = "application/json, text/event-stream"
OLD = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
NEW = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": NEW, "io.modelcontextprotocol/clientCapabilities": {}}


def message(method: str, params: Any = None, *, number: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method} | ({} if params is None else {"params": params})


def hello(version: str) -> dict[str, Any]:
    client = {"name": "test", "version": "1"}
    return message("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": client})


def calling(tool: str, **arguments: Any) -> dict[str, Any]:
    return message("tools/call", {"name": tool, "arguments": arguments})


def said(answer: httpx.Response) -> dict[str, Any]:
    """The message of an answer that has one."""
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        [text] = [line[5:] for line in text.split("\n") if line.startswith("data:")]
    return dict(json.loads(text))


@pytest_asyncio.fixture
async def http(mcp: Any) -> Any:
    headers = {"X-API-Key": KEY, "Accept": ACCEPT}
    async with httpx.AsyncClient(base_url=mcp.urls[0], headers=headers, timeout=60, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("version", OLD)
async def test_older_versions(http: httpx.AsyncClient, version: str) -> None:
    """Are spoken as they were: a handshake, a session, and then calls, each with or without a header of its version."""
    begun = await http.post("/mcp", json=hello(version))
    result = said(begun)["result"]
    assert result["protocolVersion"] == version
    assert result["serverInfo"]["name"] == "openline"
    session = {"Mcp-Session-Id": begun.headers["Mcp-Session-Id"]}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await http.post("/mcp", json=ready, headers=session)).status_code == 202
    for headers in (session, session | {"MCP-Protocol-Version": version}, {}):
        listed = await http.post("/mcp", json=message("tools/list"), headers=headers)
        assert len(said(listed)["result"]["tools"]) == 5
        assert "Mcp-Session-Id" not in listed.headers
        called = await http.post("/mcp", json=calling("list_clusters"), headers=headers)
        assert said(called)["result"]["isError"] is False
    assert said(await http.post("/mcp", json=message("ping")))["result"] == {}


async def test_a_version_that_nobody_speaks(http: httpx.AsyncClient) -> None:
    """A handshake is answered with one that is spoken; anything else is told which there are."""
    assert said(await http.post("/mcp", json=hello("1999-01-01")))["result"]["protocolVersion"] == OLD[-1]
    answer = await http.post("/mcp", json=message("tools/list", {"_meta": META}), headers={"MCP-Protocol-Version": "x"})
    assert answer.status_code == 400
    meta = META | {"io.modelcontextprotocol/protocolVersion": "2099-01-01"}
    headers = {"MCP-Protocol-Version": "2099-01-01", "Mcp-Method": "tools/list"}
    answer = await http.post("/mcp", json=message("tools/list", {"_meta": meta}), headers=headers)
    assert answer.status_code == 400
    assert said(answer)["error"]["data"]["supported"] == [NEW]


async def test_the_newest_version_in_plain(http: httpx.AsyncClient) -> None:
    """One request, one answer, and nothing before or after it. A listing may be kept for an hour."""
    headers = {"MCP-Protocol-Version": NEW, "Mcp-Method": "tools/list"}
    answer = await http.post("/mcp", json=message("tools/list", {"_meta": META}), headers=headers)
    assert answer.headers["content-type"] == "application/json"
    result = said(answer)["result"]
    assert (result["ttlMs"], result["cacheScope"], result["resultType"]) == (3_600_000, "public", "complete")
    assert "Mcp-Session-Id" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "PUT", "OPTIONS"])
async def test_without_a_key(mcp: Any, method: str) -> None:
    """Comes before everything else, whatever is asked and however."""
    async with httpx.AsyncClient(base_url=mcp.urls[0], trust_env=False) as client:
        for content in (json.dumps(message("tools/list")), "junk", ""):
            answer = await client.request(method, "/mcp", content=content)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json()["reason"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("version", [OLD[-1], NEW])
@pytest.mark.parametrize("method", ["initialize", "server/discover", "tools/list", "tools\\/list"])
async def test_a_wrong_key_at_the_beginning(mcp: Any, method: str, version: str) -> None:
    """Is told where a client begins, as a missing one is."""
    sent = hello(version) if method == "initialize" else message("the-method", {"_meta": META})
    content = json.dumps(sent).replace("the-method", method)
    headers = {"X-API-Key": WRONG, "Accept": ACCEPT, "MCP-Protocol-Version": version, "Mcp-Method": method}
    async with httpx.AsyncClient(base_url=mcp.urls[0], headers=headers, timeout=60, trust_env=False) as client:
        answer = await client.post("/mcp", content=content)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (answer.json()["reason"], answer.json()["detail"]) == ("UNAUTHENTICATED", "Invalid API key")
        assert "Mcp-Session-Id" not in answer.headers


@pytest.mark.parametrize("version", [None, NEW])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("kubectl", {"cluster": "real", "command": "get pods"}),
        ("kubectl", {"cluster": "Not A Name", "command": "get pods"}),
        ("kubectl", {"cluster": "real"}),
        ("kubectl", {"cluster": "real", "command": "get pods", "grep": "("}),
        ("list_clusters", {}),
        ("list_clusters", {"selector": "(("}),
        ("get_result", {"command_id": "web"}),
        ("get_result", {"cursor": "web"}),
        ("cancel", {"command_id": "01a227e1-ceb5-7053-89ba-0ec683bd6202"}),
        ("cancel", {}),
        ("kubectl_fanout", {"selector": "env=dev", "command": "get pods"}),
        ("kubectl_fanout", {"clusters": ["real", "script"], "command": "get pods"}),
        ("kubectl_fanout", {"clusters": ["Not A Name"], "command": "get pods"}),
    ],
)
async def test_a_wrong_key_in_a_call(mcp: Any, tool: str, arguments: dict[str, Any], version: str | None) -> None:
    """Comes before what is wrong with the arguments, and it is said who can help."""
    headers = {"X-API-Key": WRONG, "Accept": ACCEPT}
    sent = calling(tool, **arguments)
    if version is not None:
        headers |= {"MCP-Protocol-Version": version, "Mcp-Method": "tools/call", "Mcp-Name": tool}
        sent["params"]["_meta"] = META
    async with httpx.AsyncClient(base_url=mcp.urls[0], headers=headers, timeout=60, trust_env=False) as client:
        result = said(await client.post("/mcp", json=sent))["result"]
        assert (result["isError"], result["structuredContent"]["reason"]) == (True, "UNAUTHENTICATED")
        assert "Only the user can help" in result["content"][0]["text"]


async def test_a_wrong_key_loads_nothing(mcp: Any, serve_gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK takes is for those who may use it."""

    def load(_door: Door) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(Door, "_load", load)
    async with serve_gateway(mcp.broker) as (address, _), httpx.AsyncClient(timeout=60, trust_env=False) as client:
        answer = await client.post(f"http://{address}/mcp", json=hello(OLD[0]), headers={"X-API-Key": WRONG})
        assert answer.status_code == 401


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "OPTIONS"])
async def test_other_methods(http: httpx.AsyncClient, method: str) -> None:
    """There is no stream to listen to and no session to end."""
    answer = await http.request(method, "/mcp", headers={"Mcp-Session-Id": "x"})
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
async def test_a_key_in_either_header(mcp: Any, header: str) -> None:
    headers = {header: KEY if header == "X-API-Key" else f"Bearer {KEY}", "Accept": ACCEPT}
    async with httpx.AsyncClient(base_url=mcp.urls[0], headers=headers, trust_env=False) as client:
        answer = await client.post("/mcp", json=calling("list_clusters"))
        assert said(answer)["result"]["isError"] is False


@pytest.mark.parametrize(
    ("origin", "host", "is_taken"),
    [
        ("http://evil.example", None, False),
        ("http://evil.example", "evil.example", False),  # a name that was made to lead here
        ("http://evil.example:8080", "evil.example:8080", False),
        ("http://localhost:3000", None, False),  # another page of this machine
        ("null", None, False),
        ("", None, False),
        ("http://[", None, False),
        ("http://localhost:1234", "localhost:1234", True),  # a page of the gateway's own
        ("http://127.0.0.1:1234", "127.0.0.1:1234", True),
        ("http://[::1]:1234", "[::1]:1234", True),
        ("https://localhost", "localhost", True),
    ],
)
async def test_pages_in_browsers(http: httpx.AsyncClient, origin: str, host: str | None, is_taken: bool) -> None:
    """Only those of this gateway itself, by a name that can only be this machine."""
    headers = {"Origin": origin} | ({"Host": host} if host else {})
    for sent in (message("tools/list"), {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}}):
        answer = await http.post("/mcp", json=sent, headers=headers)
        assert answer.is_success is is_taken
        if not is_taken:
            assert answer.status_code == 403
            assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_ids(http: httpx.AsyncClient) -> None:
    """As everywhere. A session is a conversation, unless a header or, where there is no session, the call says so."""
    begun = await http.post("/mcp", json=hello("2025-06-18"), headers={"X-Request-ID": "mine"})
    session = begun.headers["Mcp-Session-Id"]
    assert (begun.headers["X-Request-ID"], begun.headers["X-Correlation-ID"]) == ("mine", session)
    call = calling("kubectl", cluster="script", command="get pods web")
    called = await http.post("/mcp", json=call, headers={"Mcp-Session-Id": session})
    assert called.headers["X-Correlation-ID"] == session
    headers = {"Mcp-Session-Id": session, "X-Correlation-ID": "other"}
    assert (await http.post("/mcp", json=call, headers=headers)).headers["X-Correlation-ID"] == "other"
    call["params"]["_meta"] = META | {"openline/correlation_id": "third"}
    headers = {"MCP-Protocol-Version": NEW, "Mcp-Method": "tools/call", "Mcp-Name": "kubectl"}
    assert (await http.post("/mcp", json=call, headers=headers)).headers["X-Correlation-ID"] == "third"


async def test_half_of_a_surrogate_pair(mcp: Any, http: httpx.AsyncClient) -> None:
    """JSON can say it and UTF-8 cannot: it is taken where anything is, as a correlation id and as what comes back."""
    headers = {"MCP-Protocol-Version": NEW, "Mcp-Method": "tools/call", "Mcp-Name": "kubectl"}
    call = calling("kubectl", cluster="script", command="get pods half -n held") | {"id": "\ud800"}
    call["params"]["_meta"] = META | {"openline/correlation_id": "half-\ud800", "progressToken": "\ud800"}
    told: list[dict[str, Any]] = []
    async with http.stream("POST", "/mcp", content=json.dumps(call), headers=headers) as answer:
        assert answer.headers["X-Correlation-ID"] == "half-%ED%A0%80"
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                told.append(json.loads(line[5:]))
                mcp.let_go("half")
    *progress, last = told
    assert {each["params"]["progressToken"] for each in progress} == {"\ud800"}
    assert (last["id"], last["result"]["structuredContent"]["exit_code"]) == ("\ud800", 0)


async def test_a_conversation_is_listed_in_order(http: httpx.AsyncClient, eventually: Any) -> None:
    """Ids are made of the session and the number, and the time in them is true all the same."""
    session = {"Mcp-Session-Id": (await http.post("/mcp", json=hello("2025-06-18"))).headers["Mcp-Session-Id"]}
    for number in range(1, 6):
        call = calling("kubectl", cluster="script", command=f"get pods web-{number}") | {"id": number}
        assert said(await http.post("/mcp", json=call, headers=session))["result"]["isError"] is False
    names: list[str] = []
    while len(names) < 5:
        listed = await http.get("/v1/commands", params={"correlation_id": session["Mcp-Session-Id"]})
        names = [each["argv"][2] for each in listed.json().get("commands", []) if each["state"] == "done"]
    assert names == ["web-5", "web-4", "web-3", "web-2", "web-1"]


async def test_a_header_says_how_long(http: httpx.AsyncClient) -> None:
    """X-Request-Timeout is the whole of a call's time, as it is for REST."""
    call = calling("kubectl", cluster="script", command="get pods header -n sleeps", timeout_seconds=30)
    answer = said(await http.post("/mcp", json=call, headers={"X-Request-Timeout": "1"}))["result"]
    assert answer["structuredContent"]["reason"] == "COMMAND_TIMEOUT"
    wrong = await http.post("/mcp", json=call, headers={"X-Request-Timeout": "x"})
    assert wrong.status_code == 422


async def test_what_is_counted(http: httpx.AsyncClient) -> None:
    """By the route, as everything else is."""
    await http.post("/mcp", json=message("tools/list"))
    metrics = (await http.get("/metrics")).text
    assert [line for line in metrics.splitlines() if 'route="/mcp"' in line and 'method="POST"' in line]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("junk", 400),
        ("", 400),
        ("[]", 400),
        (json.dumps([message("tools/list"), message("ping")]), 400),
        ("[" * 100_000, 400),
        ('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":' + '{"a":' * 5_000 + "1" + "}" * 5_000 + "}", 400),
        ("9" * 10_000, 400),
        ("null", 400),
        ('"initialize"', 400),
        ('{"method":"notifications/cancelled"}', 202),
        (json.dumps({"jsonrpc": "1.0", "id": 1, "method": "tools/list"}), 400),
        (b"\xff\xfe{}", 400),
        ('{"jsonrpc":"2.0","id":1,"method":"initialize","params":"\\ud800"}', 400),
    ],
)
@pytest.mark.parametrize("version", [None, NEW])
async def test_what_is_no_message(http: httpx.AsyncClient, content: Any, status: int, version: str | None) -> None:
    headers = {} if version is None else {"MCP-Protocol-Version": version, "Mcp-Method": "tools/list"}
    answer = await http.post("/mcp", content=content, headers=headers)
    assert answer.status_code == status
    # And it goes on.
    assert said(await http.post("/mcp", json=message("tools/list")))["result"]["tools"]


@pytest.mark.parametrize("number", [None, {"a": 1}, [1]])
async def test_what_is_no_id(http: httpx.AsyncClient, number: Any) -> None:
    """There is nobody who could be answered: the older protocols take it for something that wants no answer."""
    sent = message("tools/list", {"_meta": META}, number=number)
    assert (await http.post("/mcp", json=sent)).status_code == 202
    headers = {"MCP-Protocol-Version": NEW, "Mcp-Method": "tools/list"}
    assert (await http.post("/mcp", json=sent, headers=headers)).status_code == 400


@pytest.mark.parametrize("number", [1, "1", 0, -5, 2**53, "x" * 100_000, "é\u2028"])
async def test_any_id(http: httpx.AsyncClient, number: Any) -> None:
    assert said(await http.post("/mcp", json=message("ping", number=number)))["id"] == number


async def test_what_there_is_not(http: httpx.AsyncClient) -> None:
    """A tool, a method, and what this server has nothing of."""
    unknown = said(await http.post("/mcp", json=calling("rm -rf")))["error"]
    assert (unknown["code"], "there is no tool 'rm -rf'; there are kubectl" in unknown["message"]) == (-32602, True)
    for method in ("tools/destroy", "resources/list", "prompts/list"):
        assert said(await http.post("/mcp", json=message(method)))["error"]["code"] == -32601
    for params in ({}, {"name": 1}, {"name": "kubectl", "arguments": []}, [], "x"):
        answer = await http.post("/mcp", json=message("tools/call", params))
        assert said(answer)["error"]["code"] in (-32600, -32602)


async def test_form(http: httpx.AsyncClient) -> None:
    """A body is JSON whatever its Content-Type says; whoever does not take an answer of ours gets none."""
    body = json.dumps(message("tools/list"))
    answer = await http.post("/mcp", content=body, headers={"Content-Type": "text/plain"})
    assert said(answer)["result"]["tools"]
    answer = await http.post("/mcp", content=body, headers={"Accept": "text/html"})
    assert answer.status_code == 406
    answer = await http.post("/mcp", content=b" " * (1 << 20) + b"{}")
    assert answer.status_code == 413
    assert (await http.post("/mcp/", content=body)).status_code == 404


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(
        ["cluster", "command", "argv", "namespace", "grep", "tail", "cursor", "command_id", "clusters", "x"]
    ),
    st.sampled_from(["script", "get pods web", "real", "", None, 1, ["get", "pods"], "\0", "-n"]) | JSON,
    max_size=5,
)
MESSAGES = JSON | st.builds(
    lambda tool, arguments, number: message("tools/call", {"name": tool, "arguments": arguments}, number=number),
    st.sampled_from(["kubectl", "list_clusters", "kubectl_fanout", "get_result", "cancel", "x"]) | JSON,
    ARGUMENTS | JSON,
    st.integers() | st.text() | JSON,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=MESSAGES, headers=st.sampled_from([{}, {"MCP-Protocol-Version": NEW}, {"Mcp-Session-Id": "x"}]))
def test_arbitrary_messages(mcp: Any, sent: Any, headers: dict[str, str]) -> None:
    """Are answered, and never with a defect."""
    content = json.dumps(sent)
    headers = headers | {"X-API-Key": KEY, "Accept": ACCEPT, "X-Request-Timeout": "5"}
    if "MCP-Protocol-Version" in headers and isinstance(sent, dict) and isinstance(sent.get("params"), dict):
        sent["params"]["_meta"] = META
        content = json.dumps(sent)
        headers |= {
            "Mcp-Method": "tools/call",
            "Mcp-Name": str(sent["params"]["name"]).encode("ascii", "replace").decode(),
        }
        headers["Mcp-Name"] = "".join(each if each.isprintable() else "?" for each in headers["Mcp-Name"])
    answer = httpx.post(f"{mcp.urls[0]}/mcp", content=content, headers=headers, timeout=60, trust_env=False)
    assert answer.status_code in (200, 202, 400, 404)
    if answer.status_code == 200:
        told = said(answer)
        assert told.get("error", {}).get("code") not in (-32603, 0)
        assert told["jsonrpc"] == "2.0"
