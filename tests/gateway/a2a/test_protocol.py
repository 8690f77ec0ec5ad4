"""/a2a and the card as HTTP: who is let in, what is refused and how, and that no client can make it stumble."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from a2a.compat.v0_3 import types as v0_3
from a2a.types import a2a_pb2 as v1_0
from google.protobuf.json_format import ParseDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.a2a.card import card
from gateway.a2a.door import ABSENT, METHODS
from openline.ids import new_id

CARD = "/.well-known/agent-card.json"
NOT_FOUND, UNSUPPORTED, NO_PUSH, BAD_CONTENT = -32001, -32004, -32003, -32005
PARSE, INVALID, NO_METHOD, PARAMS, VERSION = -32700, -32600, -32601, -32602, -32009


def asking(method: str, params: Any = None, *, number: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method} | ({} if params is None else {"params": params})


def sending(*parts: Any, configuration: Any = None, **message: Any) -> dict[str, Any]:
    said = {"messageId": new_id(), "role": "ROLE_USER", "parts": list(parts) or [{"text": "script: get pods web"}]}
    return {"message": said | message} | ({} if configuration is None else {"configuration": configuration})


async def test_the_card(a2a: Any) -> None:
    """Needs no key, is complete in the words of each version, and says that no model is inside."""
    async with httpx.AsyncClient(base_url=a2a.urls[0], trust_env=False) as client:
        answer = await client.get(CARD)
        assert (await client.head(CARD)).status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    said = answer.json()
    old = v0_3.AgentCard.model_validate(said)
    assert (old.url, old.preferred_transport, old.protocol_version) == (f"{a2a.urls[0]}/a2a", "JSONRPC", "0.3.0")
    assert [each.root.type for each in old.security_schemes.values()] == ["http", "apiKey"]
    new = ParseDict(said, v1_0.AgentCard(), ignore_unknown_fields=True)
    assert [(each.url, each.protocol_version) for each in new.supported_interfaces] == [
        (f"{a2a.urls[0]}/a2a", "1.0"), (f"{a2a.urls[0]}/a2a", "0.3"),
    ]  # fmt: skip
    assert new.security_schemes["bearer"].http_auth_security_scheme.scheme == "bearer"
    assert new.security_schemes["apiKey"].api_key_security_scheme.name == "X-API-Key"
    assert (new.capabilities.streaming, new.capabilities.push_notifications) == (True, False)
    [skill] = new.skills
    assert "no model inside" in new.description
    assert skill.examples


async def test_examples_of_the_card(http: httpx.AsyncClient) -> None:
    """Are read: whoever copies one is told of the cluster, and nothing else."""
    for example in card("")["skills"][0]["examples"]:
        part = {"data": json.loads(example)} if example.startswith("{") else {"text": example}
        answer = (await http.post("/a2a", json=asking("SendMessage", sending(part)))).json()
        assert answer["result"]["task"]["metadata"]["reason"] == "CLUSTER_UNKNOWN"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("openline.example.com", "http://openline.example.com/a2a"),
        ("openline.example.com:8443", "http://openline.example.com:8443/a2a"),
        ("[::1]:8080", "http://[::1]:8080/a2a"),
        ("", None),
        ("evil.example/path?", None),
        ("user@evil.example", None),
        ('x"y', None),
        ("a b", None),
        ("x:123456", None),
    ],
)
async def test_where_a_card_says_to_go(http: httpx.AsyncClient, host: str, url: str | None) -> None:
    """To where it was asked for, if that can be a host."""
    answer = await http.get(CARD, headers={"Host": host})
    if url is None:
        assert answer.status_code == 400
    else:
        assert answer.json()["url"] == url


async def test_where_it_is_told_to_say(run_program: Any) -> None:
    """`--public-url` is what it says to everybody, and then it may be kept."""
    flags = ("--listen", "127.0.0.1:0", "--broker", "127.0.0.1:1", "--public-url", "https://openline.example.com/x/")
    with run_program("openline-gateway", *flags) as gateway:
        address = gateway.until("gateway.listening")["address"]
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
            answer = await client.get(CARD, headers={"Host": "evil.example"})
    assert answer.json()["url"] == "https://openline.example.com/x/a2a"
    assert answer.headers["cache-control"] == "public, max-age=3600"


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "OPTIONS"])
async def test_without_a_key(a2a: Any, method: str) -> None:
    """Comes before everything else, whatever is asked and however."""
    async with httpx.AsyncClient(base_url=a2a.urls[0], trust_env=False) as client:
        for content in (json.dumps(asking("GetTask")), "junk", ""):
            answer = await client.request(method, "/a2a", content=content)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_other_methods(http: httpx.AsyncClient) -> None:
    answer = await http.get("/a2a")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


async def test_web_pages(http: httpx.AsyncClient) -> None:
    """Are not served, as at /mcp."""
    answer = await http.post("/a2a", json=asking("GetTask"), headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403


DEEP = b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":' + b'{"a":' * 5000 + b"1" + b"}" * 5001


@pytest.mark.parametrize(
    ("content", "code", "number"),
    [
        (b"", PARSE, None),
        (b"junk", PARSE, None),
        (b"\xff\xfe", PARSE, None),
        (b'"\\ud800"', PARSE, None),
        (DEEP, PARSE, None),
        (json.dumps([asking("GetTask", {"id": "x"})] * 3).encode(), INVALID, None),
        (b"[]", INVALID, None),
        (b"null", INVALID, None),
        (b'{"id": 1, "method": "GetTask"}', INVALID, None),
        (json.dumps(asking("GetTask", number=None)).encode(), INVALID, None),
        (json.dumps(asking("GetTask", number=True)).encode(), INVALID, None),
        (json.dumps(asking("GetTask", number={"a": 1})).encode(), INVALID, None),
        (json.dumps({"jsonrpc": "2.0", "id": "a", "method": 7}).encode(), INVALID, "a"),
        (json.dumps(asking("GetTask", [])).encode(), PARAMS, 1),
        (json.dumps(asking("GetTask", {})).encode(), PARAMS, 1),
        (json.dumps(asking("GetTask", {"id": 7})).encode(), PARAMS, 1),
        (json.dumps(asking("tasks/getx", {})).encode(), NO_METHOD, 1),
        (json.dumps(asking("SendMessage", {})).encode(), PARAMS, 1),
        (json.dumps(asking("SendMessage", {"message": "hi"})).encode(), PARAMS, 1),
        (json.dumps(asking("SendMessage", {"message": {"messageId": "x", "parts": []}})).encode(), PARAMS, 1),
        (json.dumps(asking("SendMessage", {"message": {"parts": [{"text": "x"}]}})).encode(), PARAMS, 1),
        (json.dumps(asking("SendMessage", sending(contextId="with a space"))).encode(), PARAMS, 1),
        (json.dumps(asking("SendMessage", sending(contextId="x" * 201))).encode(), PARAMS, 1),
        (json.dumps(asking("SendMessage", sending({"url": "http://x"}))).encode(), BAD_CONTENT, 1),
        (json.dumps(asking("SendMessage", sending({"raw": "aGk="}))).encode(), BAD_CONTENT, 1),
        (
            json.dumps(asking("message/send", sending({"kind": "file", "file": {"uri": "http://x"}}))).encode(),
            BAD_CONTENT,
            1,
        ),
        (
            json.dumps(asking("SendMessage", sending(configuration={"acceptedOutputModes": ["image/png"]}))).encode(),
            BAD_CONTENT,
            1,
        ),
        (
            json.dumps(
                asking("message/stream", sending(configuration={"pushNotificationConfig": {"url": "http://x"}}))
            ).encode(),
            NO_PUSH,
            1,
        ),
    ],
)
async def test_what_is_no_request(http: httpx.AsyncClient, content: bytes, code: int, number: Any) -> None:
    """Is an error of JSON-RPC, with the id where there is one."""
    answer = await http.post("/a2a", content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    said = answer.json()
    assert (said["jsonrpc"], said["id"], said["error"]["code"]) == ("2.0", number, code)
    assert said["error"]["message"]
    stranger = await http.post("/a2a", content=content, headers={"X-API-Key": "wrong"})
    assert stranger.status_code == 401


async def test_too_large(http: httpx.AsyncClient) -> None:
    assert (await http.post("/a2a", content=b" " * ((1 << 20) + 1))).status_code == 413


@pytest.mark.parametrize("method", sorted(ABSENT))
async def test_what_there_is_not(http: httpx.AsyncClient, method: str) -> None:
    """Of the protocol is refused as the protocol says, not as unknown."""
    answer = (await http.post("/a2a", json=asking(method, {}))).json()
    assert answer["error"]["code"] in (UNSUPPORTED, NO_PUSH, -32007)
    stranger = await http.post("/a2a", json=asking(method, {}), headers={"X-API-Key": "wrong"})
    assert stranger.status_code == 401


@pytest.mark.parametrize(
    ("version", "is_spoken"),
    [("1.0", True), ("0.3", True), ("0.3.0", True), ("2.0", False), ("0.2.5", False), ("x", False)],
)
async def test_versions(http: httpx.AsyncClient, version: str, is_spoken: bool) -> None:
    answer = (await http.post("/a2a", json=asking("SendMessage", sending()), headers={"A2A-Version": version})).json()
    assert ("result" in answer) == is_spoken
    assert is_spoken or answer["error"]["code"] == VERSION


@pytest.mark.parametrize("method", ["message/send", "message/stream"])
async def test_in_the_words_of_0_3(http: httpx.AsyncClient, method: str) -> None:
    """What is answered is right by that version's own schema, whole."""
    answer = await http.post("/a2a", json=asking(method, sending({"kind": "text", "text": "script: get pods web"})))
    if method == "message/send":
        v0_3.SendMessageResponse.model_validate(answer.json())
        assert answer.json()["result"]["kind"] == "task"
        return
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: ")]
    for event in events:
        v0_3.SendStreamingMessageResponse.model_validate(event)
    finals = [event["result"].get("final") for event in events if event["result"]["kind"] == "status-update"]
    assert finals == [False] * (len(finals) - 1) + [True]


async def test_the_metrics(http: httpx.AsyncClient) -> None:
    """Requests are counted under their routes, however many tasks there are."""
    await http.get(CARD)
    await http.post("/a2a", json=asking("SendMessage", sending()))
    metrics = (await http.get("/metrics")).text
    assert 'route="/a2a"' in metrics
    assert f'route="{CARD}"' in metrics


async def test_a_broker_that_is_not_there(run_program: Any) -> None:
    """Is told as such: nothing was run, or nobody knows; never that a task is not there."""
    with run_program("openline-gateway", "--listen", "127.0.0.1:0", "--broker", "127.0.0.1:1") as gateway:
        address = gateway.until("gateway.listening")["address"]
        headers = {"X-API-Key": "x"}
        async with httpx.AsyncClient(base_url=f"http://{address}", headers=headers, timeout=60, trust_env=False) as api:
            for method in ("GetTask", "tasks/cancel", "SubscribeToTask"):
                answer = (await api.post("/a2a", json=asking(method, {"id": new_id()}))).json()
                assert answer["error"]["code"] == -32603
                assert answer["error"]["message"].startswith("BROKER_UNAVAILABLE")
            part = {"data": {"cluster": "script", "command": "get pods", "timeout_seconds": 1}}
            # Whose key cannot be checked is told of a mistake nevertheless: it says nothing of anybody.
            assert (await api.post("/a2a", content=b"junk")).json()["error"]["code"] == PARSE
            for wrong in ({"data": {"cluster": "script", "command": "get pods | wc -l"}}, {"text": "what is this?"}):
                refused = (await api.post("/a2a", json=asking("SendMessage", sending(wrong)))).json()["result"]["task"]
                assert refused["metadata"]["reason"] == "INVALID_COMMAND"
            answer, streamed = await asyncio.gather(
                *(api.post("/a2a", json=asking(how, sending(part))) for how in ("SendMessage", "SendStreamingMessage"))
            )
    assert answer.json()["result"]["task"]["status"]["state"] == "TASK_STATE_REJECTED"
    assert "TASK_STATE_REJECTED" in streamed.text


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
parts = st.fixed_dictionaries(
    {}, optional={"text": values, "data": values, "kind": values, "file": values, "url": values, "metadata": values}
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "messageId": values | st.just("m"),
        "parts": values | st.lists(parts, max_size=2),
        "contextId": values,
        "taskId": values,
        "role": values,
    },
)
params = values | st.fixed_dictionaries({}, optional={"message": messages, "configuration": values, "id": values})


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(sorted(METHODS)), params=params)
async def test_anything(http: httpx.AsyncClient, method: str, params: Any) -> None:
    """Is answered in the protocol's words, and never with a defect."""
    answer = await http.post("/a2a", json=asking(method, params))
    assert answer.status_code == 200
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = text.partition("\n")[0].removeprefix("data: ")
    said = json.loads(text)
    assert ("result" in said) != ("error" in said)
    assert "error" not in said or said["error"]["code"] != -32603
