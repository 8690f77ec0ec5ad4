"""The contract of the drop-in surface: each row of its table and each failure, keys and types exact.

What today's AI agents send is sent here, through the real broker and executor, and what they read is read. Details of
each route are in the other modules; this one is to be held against the table, row by row.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.answers import session_answer
from gateway.app import build_app
from openline.errors import error
from openline.pipes import Pipes
from openline.reasons import Reason
from openline.settings import Address
from openline.v1 import session_service_pb2

pytestmark = pytest.mark.asyncio(loop_scope="session")

Json = dict[str, Any]


class Instant:
    """A string of RFC 3339 with an offset."""


NULL = type(None)
Kind = type | tuple[type, ...]

PROBLEM: dict[str, Kind] = {
    "type": str, "title": str, "status": int, "detail": str, "instance": str, "reason": str, "executed": str,
    "retryable": bool, "next_step": (str, NULL), "request_id": str, "correlation_id": str,
}  # fmt: skip
TIMINGS: dict[str, Kind] = dict.fromkeys(
    ("queue_ms", "route_ms", "deliver_ms", "run_ms", "return_ms", "total_ms"), float
)
# The nine of the old API, and what is there as well.
EXECUTED: dict[str, Kind] = {
    "command_id": str, "session_id": (str, NULL), "cluster_id": str, "status": str, "correlation_id": (str, NULL),
    "output": str, "error": (str, NULL), "execution_time_ms": int, "executed_at": Instant,
    "stdout": str, "stderr": str, "exit_code": (int, NULL), "success": bool, "truncated": bool, "total_bytes": int,
    "encoding_replaced": bool, "masked_values": int, "bounded": list, "timings": dict, "executor_id": (str, NULL),
    "observed_at": (Instant, NULL), "hint": (str, NULL), "served_from": str, "age_s": float,
}  # fmt: skip
SESSION: dict[str, Kind] = {
    "session_id": str, "cluster_id": str, "status": str, "created_at": Instant, "expires_at": Instant,
    "ttl_seconds": int, "correlation_id": (str, NULL), "service_identity": (str, NULL),
}  # fmt: skip
CLUSTER: dict[str, Kind] = {
    "clusterId": str, "status": dict, "capabilities": (dict, NULL), "ttlRemaining": (int, NULL)
}  # fmt: skip
STATUS: dict[str, Kind] = {
    "cluster_id": str, "is_active": bool, "active_for_seconds": int, "is_connected": bool,
    "last_seen": (Instant, NULL), "executors": int,
}  # fmt: skip
CLUSTER_ID: dict[str, Kind] = {"cluster_id": str}
AUDITED: dict[str, Kind] = {
    "timestamp": Instant, "cluster_id": (str, NULL), "session_id": (str, NULL), "command_id": (str, NULL),
    "correlation_id": (str, NULL), "owner": str, "command": (str, NULL), "status": str, "reason": (str, NULL),
    "exit_code": (int, NULL), "executed": (str, NULL), "execution_time_ms": (int, NULL), "action": str,
    "executor_id": (str, NULL), "replica_id": str, "detail": (str, NULL),
}  # fmt: skip
NO_REASON: dict[str, Kind] = {"reason": NULL}
CAPABILITIES: dict[str, Kind] = {"clusterId": str, "capabilities": (dict, NULL), "available": bool}
TOKEN: dict[str, Kind] = {
    "token": str, "tokenId": str, "clusterId": str, "createdAt": Instant, "expiresAt": (Instant, NULL),
}  # fmt: skip
LISTED_TOKEN: dict[str, Kind] = {
    "tokenId": str, "clusterId": str, "createdAt": (Instant, NULL), "expiresAt": (Instant, NULL),
}  # fmt: skip
AGENT: dict[str, Kind] = {"id": str, "connected": bool, "lastSeen": (Instant, NULL)}
AGENT_STATUS: dict[str, Kind] = {
    "id": str, "connected": bool, "status": str, "lastSeen": (Instant, NULL), "version": (str, NULL),
    "kubernetesVersion": (str, NULL), "capabilities": (dict, NULL), "mode": (str, NULL),
}  # fmt: skip
OFFLINE = PROBLEM | {"cluster_id": str, "last_seen": (Instant, NULL)}


def is_a(value: object, kind: type) -> bool:
    if kind is Instant:
        return isinstance(value, str) and datetime.fromisoformat(value).utcoffset() is not None
    return type(value) is kind


def check(told: Json, shape: dict[str, Kind]) -> None:
    """These keys and no others, each of its type: true is no number here, and 1 no float."""
    assert set(told) == set(shape)
    for name, kind in shape.items():
        kinds = kind if isinstance(kind, tuple) else (kind,)
        assert any(is_a(told[name], each) for each in kinds), (name, told[name])


def check_problem(answer: httpx.Response, status: int, reason: str | None, detail: str | None = None) -> Json:
    told: Json = answer.json()
    assert (answer.status_code, told["status"], told["reason"]) == (status, status, reason), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {name for name in PROBLEM} <= set(told)
    assert detail is None or told["detail"] == detail
    check_ids(answer)
    return told


def check_ids(answer: httpx.Response) -> None:
    assert answer.headers["X-Request-ID"]
    assert answer.headers["X-Correlation-ID"]


async def execute(api: httpx.AsyncClient, body: Json | None = None, /, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.post("/debug/execute", json={"cluster_id": "local", **(body or {})}, headers=named)


async def session_of(api: httpx.AsyncClient, cluster_id: str = "local") -> str:
    answer = await api.post("/debug/session", json={"cluster_id": cluster_id})
    return str(answer.json()["session_id"])


# POST /debug/execute


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(
    ("args", "status", "error", "exit_code"),
    [
        (["pods"], "success", None, 0),
        (["fail"], "failure", 'Error from server (NotFound): pods "fail" not found', 1),
        (["slow"], "timeout", ..., None),
    ],
)
async def test_execute(api: httpx.AsyncClient, args: list[str], status: str, error: Any, exit_code: int) -> None:
    """200, all keys always present, however the command ended."""
    answer = await execute(api, {"args": args, "timeout_seconds": 1 if status == "timeout" else 20})
    told = answer.json()
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    check(told, EXECUTED)
    check(told["timings"], TIMINGS)
    check_ids(answer)
    assert (told["status"], told["cluster_id"], told["exit_code"]) == (status, "local", exit_code)
    assert told["success"] is (status == "success")
    assert told["error"] if error is ... else told["error"] == error


async def test_execute_cancelled(api: httpx.AsyncClient) -> None:
    """The fourth status: somebody stopped the command, and its caller has the same keys and the output so far."""
    body = {"cluster_id": "local", "args": ["slow"], "timeout_seconds": 60}
    key = {"Idempotency-Key": "drop-in-cancelled"}
    begun = (await api.post("/debug/execute/async", json=body, headers=key)).json()
    async with api.stream("GET", f"/v1/commands/{begun['operation_id']}/events") as events:
        async for line in events.aiter_lines():
            if line == "event: output":
                break
    assert (await api.delete(f"/v1/commands/{begun['operation_id']}")).status_code in (200, 202)
    answer = await api.post("/debug/execute", json=body, headers=key)
    told = answer.json()
    assert answer.status_code == 200
    check(told, EXECUTED)
    assert (told["status"], told["output"], told["exit_code"]) == ("cancelled", "so far\n", None)
    assert told["command_id"] == begun["operation_id"]


async def test_execute_defaults(api: httpx.AsyncClient) -> None:
    """get, in the namespace default, with no arguments; null is the default of what may be null."""
    for body in ({}, {"session_id": None, "correlation_id": None, "extra_args": None, "timeout_seconds": None}):
        assert (await execute(api, body)).json()["stdout"].split() == ["get", "--namespace=default"]
    assert (await execute(api, {"namespace": None, "args": ["pods"]})).json()["stdout"].split() == ["get", "pods"]


@pytest.mark.parametrize(
    "verb",
    ["get", "describe", "logs", "top", "events", "version", "api-resources", "api-versions", "explain", "rollout"],
)
async def test_execute_command_types(api: httpx.AsyncClient, verb: str) -> None:
    """Each verb of the old API is understood, and is the first word."""
    args = {"top": ["pods"], "rollout": ["status", "deploy/web"], "explain": ["pods"], "logs": ["web-0"]}.get(verb, [])
    told = (await execute(api, {"command_type": verb, "args": args})).json()
    assert told["stdout"].split() == [verb, *args, "--namespace=default"]


async def test_execute_argv(api: httpx.AsyncClient) -> None:
    """[command_type, *args] + ["-n", namespace] + extra_args."""
    body = {"command_type": "describe", "args": ["pod", "web"], "namespace": "shop", "extra_args": ["--show-events"]}
    assert (await execute(api, body)).json()["stdout"] == "describe\npod\nweb\n--namespace=shop\n--show-events=true\n"


@pytest.mark.parametrize(
    ("headers", "detail"),
    [({"X_API_Key": ""}, "Missing API key"), ({"X_API_Key": "wrong"}, "Invalid API key")],
)
async def test_execute_401(api: httpx.AsyncClient, headers: dict[str, str], detail: str) -> None:
    """In the words of the old API."""
    check(check_problem(await execute(api, **headers), 401, "UNAUTHENTICATED", detail), PROBLEM)


async def test_execute_404_cluster(api: httpx.AsyncClient) -> None:
    """With the clusters that the key may see."""
    detail = "Cluster 'x' not found. Available clusters: east, local, west"
    check_problem(await execute(api, {"cluster_id": "x"}), 404, "CLUSTER_UNKNOWN", detail)


async def test_execute_404_session(api: httpx.AsyncClient) -> None:
    """A session that there is not."""
    check_problem(await execute(api, {"session_id": "gone"}), 404, "SESSION_UNKNOWN", "Session not found")


async def test_execute_400(api: httpx.AsyncClient) -> None:
    """A session of another cluster."""
    session_id = await session_of(api, "west")
    answer = await execute(api, {"session_id": session_id})
    check_problem(answer, 400, "SESSION_MISMATCH", "Session cluster mismatch")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"cluster_id": 1}, ["body", "cluster_id"]),
        ({"command_type": "delete"}, ["body", "command_type"]),
        ({"args": ["x"] * 21}, ["body", "args"]),
        ({"args": "pods"}, ["body", "args"]),
        ({"args": ["pods", 1]}, ["body", "args", 1]),
        ({"namespace": 1}, ["body", "namespace"]),
        ({"timeout_seconds": 0}, ["body", "timeout_seconds"]),
        ({"timeout_seconds": 301}, ["body", "timeout_seconds"]),
        ({"extra_args": "x"}, ["body", "extra_args"]),
    ],
)
async def test_execute_422(api: httpx.AsyncClient, change: Json, where: list[str | int]) -> None:
    """FastAPI's shape: `detail` is a list, and says where."""
    told = check_problem(await execute(api, change), 422, "INVALID_COMMAND")
    check(told, PROBLEM | {"detail": list})
    assert where in [wrong["loc"] for wrong in told["detail"]]
    for wrong in told["detail"]:
        check(wrong, {"type": str, "loc": list, "msg": str})


@pytest.mark.parametrize("reason", [Reason.CLUSTER_BUSY, Reason.QUOTA_EXCEEDED])
async def test_execute_429(stage: Any, reason: Reason) -> None:
    """Too much at once: when to come back."""

    async def refuse(_frame: Any, say: Any) -> None:
        await say.reply(error=error(reason, "too much at once", retry_after_s=1.2))

    async with stage(refuse) as scene:
        answer = await execute(scene.api)
    told = check_problem(answer, 429, reason, "too much at once")
    assert (told["executed"], told["retryable"], answer.headers["Retry-After"]) == ("no", True, "2")


async def test_execute_503_no_broker() -> None:
    """No broker replica answers: it has not run, and may be asked again."""
    async with Pipes((Address("127.0.0.1:9"),), client="test") as pipes, direct(pipes) as api:
        told = check_problem(await execute(api), 503, "BROKER_UNAVAILABLE")
    assert (told["executed"], told["retryable"]) == ("no", True)


def direct(pipes: Pipes) -> httpx.AsyncClient:
    """A client of a gateway that listens nowhere."""
    transport = httpx.ASGITransport(app=build_app(pipes))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://gateway", headers={"X-API-Key": "test-key"})


# /debug/session


async def test_create_session(api: httpx.AsyncClient) -> None:
    """201 with the record; what was given is in it, and 300 s is the default."""
    given = {"cluster_id": "local", "correlation_id": "c-1", "service_identity": "agent"}
    answer = await api.post("/debug/session", json={**given, "user_id": "u-1"})
    told = answer.json()
    assert answer.status_code == 201
    check(told, SESSION)
    check_ids(answer)
    assert {name: told[name] for name in given} == given
    assert (told["status"], told["ttl_seconds"]) == ("active", 300)


@pytest.mark.parametrize("ttl", [60, 3600])
async def test_create_session_bounds(api: httpx.AsyncClient, ttl: int) -> None:
    """The bounds themselves are taken."""
    answer = await api.post("/debug/session", json={"cluster_id": "local", "ttl_seconds": ttl})
    assert (answer.status_code, answer.json()["ttl_seconds"]) == (201, ttl)


async def test_create_session_404(api: httpx.AsyncClient) -> None:
    """As for a command."""
    detail = "Cluster 'x' not found. Available clusters: east, local, west"
    check_problem(await api.post("/debug/session", json={"cluster_id": "x"}), 404, "CLUSTER_UNKNOWN", detail)


@pytest.mark.parametrize(
    "change", [{"cluster_id": "-x"}, {"cluster_id": "X"}, {"cluster_id": "x" * 101}, {"ttl_seconds": 59}]
)
async def test_create_session_422(api: httpx.AsyncClient, change: Json) -> None:
    """As for a command."""
    told = check_problem(
        await api.post("/debug/session", json={"cluster_id": "local", **change}), 422, "INVALID_COMMAND"
    )
    check(told, PROBLEM | {"detail": list})
    assert told["detail"][0]["loc"] == ["body", next(iter(change))]


async def test_get_session(api: httpx.AsyncClient) -> None:
    """200, the same shape."""
    session_id = await session_of(api)
    answer = await api.get(f"/debug/session/{session_id}")
    assert (answer.status_code, answer.json()["session_id"]) == (200, session_id)
    check(answer.json(), SESSION)


@pytest.mark.parametrize(("ago_s", "status"), [(0, "active"), (59, "active"), (61, "idle")])
async def test_get_session_status(ago_s: int, status: str) -> None:
    """Active for a minute after each use, then idle."""
    now = datetime.now(UTC)
    session = session_service_pb2.Session(session_id="s", cluster_id="local", ttl_s=300)
    session.created_at.CopyFrom(stamp(now - timedelta(seconds=100)))
    session.last_used_at.CopyFrom(stamp(now - timedelta(seconds=ago_s)))
    assert session_answer(session).status == status


def stamp(at: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(at)
    return made


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_session_404(api: httpx.AsyncClient, method: str) -> None:
    """In the words of the old API."""
    check_problem(await api.request(method, "/debug/session/gone"), 404, "SESSION_UNKNOWN", "Session not found")


async def test_delete_session(api: httpx.AsyncClient) -> None:
    """204 without a body, and then there is none."""
    session_id = await session_of(api)
    answer = await api.delete(f"/debug/session/{session_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    check_ids(answer)
    assert (await api.get(f"/debug/session/{session_id}")).status_code == 404


# Clusters


async def test_clusters(api: httpx.AsyncClient) -> None:
    """Registered ones, sorted, and how many."""
    answer = await api.get("/debug/clusters")
    assert (answer.status_code, answer.json()) == (200, {"clusters": ["east", "local", "west"], "count": 3})
    check_ids(answer)


async def test_cluster(api: httpx.AsyncClient) -> None:
    """One that is connected and was asked; and one that never was, of which nothing is made up."""
    await execute(api, {"session_id": await session_of(api)})
    told = (await api.get("/debug/clusters/local")).json()
    check(told, CLUSTER)
    flags = {"hasToken": True, "hasActiveSession": True, "executorReporting": True}
    assert (told["clusterId"], told["status"]) == ("local", flags)
    assert type(told["ttlRemaining"]) is int
    assert type(told["capabilities"]) is dict
    told = (await api.get("/debug/clusters/west")).json()
    check(told, CLUSTER)
    assert told["status"]["executorReporting"] is False
    assert told["capabilities"] is None


async def test_cluster_status(api: httpx.AsyncClient) -> None:
    """is_active, and more."""
    await execute(api)
    answer = await api.get("/cluster/local/status")
    check(answer.json(), STATUS)
    assert (answer.status_code, answer.json()["is_active"], answer.json()["is_connected"]) == (200, True, True)
    told = (await api.get("/cluster/west/status")).json()
    check(told, STATUS)
    assert told["is_connected"] is False


@pytest.mark.parametrize("path", ["/debug/clusters/x", "/cluster/x/status"])
async def test_cluster_404(api: httpx.AsyncClient, path: str) -> None:
    """As for a command."""
    detail = "Cluster 'x' not found. Available clusters: east, local, west"
    check_problem(await api.get(path), 404, "CLUSTER_UNKNOWN", detail)


@pytest.mark.parametrize(("cluster_id", "is_there"), [("local", True), ("west", False), ("x", False)])
async def test_capabilities(api: httpx.AsyncClient, cluster_id: str, is_there: bool) -> None:
    """200 for every id: who asks wants to know what it can do, and the answer may be nothing."""
    answer = await api.get(f"/api/v1/clusters/{cluster_id}/capabilities")
    told = answer.json()
    assert answer.status_code == 200
    check(told, CAPABILITIES)
    assert (told["clusterId"], told["available"], told["capabilities"] is not None) == (cluster_id, is_there, is_there)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/debug/session"),
        ("GET", "/debug/session/x"),
        ("DELETE", "/debug/session/x"),
        ("GET", "/debug/clusters"),
        ("GET", "/debug/clusters/local"),
        ("GET", "/cluster/local/status"),
        ("GET", "/api/v1/clusters/local/capabilities"),
        ("POST", "/admin/agents/local/token"),
        ("DELETE", "/admin/agents/local/token"),
        ("GET", "/admin/agents"),
        ("GET", "/admin/agents/local/status"),
        ("GET", "/admin/agents/local/tokens"),
        ("GET", "/audit"),
    ],
)
@pytest.mark.parametrize(("key", "detail"), [("", "Missing API key"), ("wrong", "Invalid API key")])
async def test_401(api: httpx.AsyncClient, method: str, path: str, key: str, detail: str) -> None:
    """Everything but health asks for a key, and says which of the two it is."""
    body = {"cluster_id": "local"} if path == "/debug/session" else None
    answer = await api.request(method, path, json=body, headers={"X-API-Key": key})
    check(check_problem(answer, 401, "UNAUTHENTICATED", detail), PROBLEM)


# /admin

CHOSEN = "a-token_of-my-own-choice-0123456789"


@pytest_asyncio.fixture(loop_scope="session")
async def new_cluster(api: httpx.AsyncClient) -> AsyncIterator[str]:
    """The id of a cluster that there is not yet, and not any more afterwards."""
    cluster_id = f"new-{secrets.token_hex(4)}"
    yield cluster_id
    await api.delete(f"/admin/agents/{cluster_id}/token")


@pytest.mark.parametrize(
    ("body", "token"),
    [("", None), ("{}", None), ('{"token": null}', None), (json.dumps({"token": CHOSEN}), CHOSEN)],
    ids=["no body", "empty", "null", "chosen"],
)
async def test_create_token(api: httpx.AsyncClient, new_cluster: str, body: str, token: str | None) -> None:
    """200 with the token, which was made or is the one that was given; and the cluster is registered."""
    answer = await api.post(f"/admin/agents/{new_cluster}/token", content=body)
    told = answer.json()
    assert answer.status_code == 200
    check(told, TOKEN)
    check_ids(answer)
    assert told["clusterId"] == new_cluster
    assert told["token"] == token if token else len(told["token"]) >= 43
    assert abs(datetime.fromisoformat(told["createdAt"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert new_cluster in (await api.get("/debug/clusters")).json()["clusters"]


async def test_create_token_that_expires(api: httpx.AsyncClient, new_cluster: str) -> None:
    """Beyond the old API: after so many seconds, and the answer says when."""
    answer = await api.post(f"/admin/agents/{new_cluster}/token", json={"ttl_seconds": 3600})
    assert answer.status_code == 200
    expires_at = datetime.fromisoformat(answer.json()["expiresAt"])
    assert abs(expires_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)


async def test_list_tokens(api: httpx.AsyncClient, new_cluster: str) -> None:
    """Beyond the old API: those of a cluster, sorted by id, with when they end; never the token."""
    path = f"/admin/agents/{new_cluster}/token"
    made = [(await api.post(path, json=body)).json() for body in ({}, {"ttl_seconds": 3600})]
    answer = await api.get(f"{path}s")
    told = answer.json()
    assert answer.status_code == 200
    check(told, {"tokens": list, "count": int})
    check_ids(answer)
    for each in told["tokens"]:
        check(each, LISTED_TOKEN)
    assert told["tokens"] == sorted(
        ({name: each[name] for name in LISTED_TOKEN} for each in made), key=lambda token: token["tokenId"]
    )
    assert told["count"] == 2
    assert not any(each["token"] in answer.text for each in made)
    assert (await api.delete(path, params={"token_id": made[0]["tokenId"]})).status_code == 204
    assert [each["tokenId"] for each in (await api.get(f"{path}s")).json()["tokens"]] == [made[1]["tokenId"]]


async def test_list_tokens_given_at_start(api: httpx.AsyncClient) -> None:
    """They are listed, too, and can be revoked by the id; when they were made is not known."""
    [token] = (await api.get("/admin/agents/west/tokens")).json()["tokens"]
    check(token, LISTED_TOKEN)
    assert (token["clusterId"], token["createdAt"], token["expiresAt"]) == ("west", None, None)


@pytest.mark.parametrize("ttl_seconds", [0, -1, 10**10, "soon", 1.5])
async def test_create_token_422_ttl(api: httpx.AsyncClient, ttl_seconds: Any) -> None:
    answer = await api.post("/admin/agents/local/token", json={"ttl_seconds": ttl_seconds})
    told = check_problem(answer, 422, "INVALID_COMMAND")
    assert [wrong["loc"] for wrong in told["detail"]] == [["body", "ttl_seconds"]]


async def test_create_another_token(api: httpx.AsyncClient, new_cluster: str) -> None:
    """Without a body it is another one each time, so that one can be replaced without a gap."""
    path = f"/admin/agents/{new_cluster}/token"
    tokens = [(await api.post(path)).json()["token"] for _ in range(2)]
    assert len(set(tokens)) == 2


async def test_create_token_409(api: httpx.AsyncClient, new_cluster: str) -> None:
    """This very token is there, or was."""
    path = f"/admin/agents/{new_cluster}/token"
    assert (await api.post(path, json={"token": CHOSEN})).status_code == 200
    check(check_problem(await api.post(path, json={"token": CHOSEN}), 409, "TOKEN_EXISTS"), PROBLEM | CLUSTER_ID)
    assert (await api.delete(path)).status_code == 204
    check_problem(await api.post(path, json={"token": CHOSEN}), 409, "TOKEN_EXISTS")


@pytest.mark.parametrize("token", ["x" * 31, "x" * 129, "x" * 31 + "!", "x" * 32 + "\n", "ü" * 32, 32, ["x" * 32]])
async def test_create_token_422(api: httpx.AsyncClient, token: Any) -> None:
    """32..128 of [A-Za-z0-9_-]; in FastAPI's shape."""
    answer = await api.post("/admin/agents/local/token", json={"token": token})
    told = check_problem(answer, 422, "INVALID_COMMAND")
    check(told, PROBLEM | {"detail": list})
    assert [wrong["loc"] for wrong in told["detail"]] == [["body", "token"]]


@pytest.mark.parametrize("cluster_id", ["-x", "X", "a_b", "x" * 101])
async def test_create_token_422_cluster(api: httpx.AsyncClient, cluster_id: str) -> None:
    """A cluster that could not be asked for."""
    told = check_problem(await api.post(f"/admin/agents/{cluster_id}/token"), 422, "INVALID_COMMAND")
    assert told["detail"][0]["loc"] == ["path", "cluster_id"]


@pytest.mark.parametrize("key", ["other-key", "read-key"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/admin/agents/local/token"),
        ("DELETE", "/admin/agents/local/token"),
        ("GET", "/admin/agents"),
        ("GET", "/admin/agents/local/status"),
        ("GET", "/admin/agents/local/tokens"),
    ],
)
async def test_admin_403(api: httpx.AsyncClient, method: str, path: str, key: str) -> None:
    """Without the admin scope."""
    told = check_problem(await api.request(method, path, headers={"X-API-Key": key}), 403, "SCOPE_MISSING")
    assert told["scope"] == "admin"


async def test_agents(api: httpx.AsyncClient, new_cluster: str) -> None:
    """Every registered cluster, sorted, and how many; one that was never connected was never seen."""
    await api.post(f"/admin/agents/{new_cluster}/token")
    answer = await api.get("/admin/agents")
    told = answer.json()
    assert answer.status_code == 200
    check(told, {"clusters": list, "count": int})
    check_ids(answer)
    for each in told["clusters"]:
        check(each, AGENT)
    assert [each["id"] for each in told["clusters"]] == ["east", "local", new_cluster, "west"]
    assert told["count"] == 4
    assert [each["connected"] for each in told["clusters"]] == [False, True, False, False]
    seen = {each["id"]: each["lastSeen"] is not None for each in told["clusters"]}
    # East's executor comes and goes in another module.
    assert (seen["local"], seen[new_cluster], seen["west"]) == (True, False, False)


async def test_agent_status(api: httpx.AsyncClient) -> None:
    """One that is connected, and one that is not, of which nothing is made up."""
    answer = await api.get("/admin/agents/local/status")
    told = answer.json()
    assert answer.status_code == 200
    check(told, AGENT_STATUS)
    check_ids(answer)
    assert (told["id"], told["connected"], told["status"], told["mode"]) == ("local", True, "connected", "readOnly")
    assert told["version"]
    assert "get" in told["capabilities"]["verbs"]
    told = (await api.get("/admin/agents/west/status")).json()
    check(told, AGENT_STATUS)
    assert (told["connected"], told["status"]) == (False, "disconnected")
    assert [told[name] for name in ("version", "kubernetesVersion", "capabilities", "mode")] == [None] * 4


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/admin/agents/x/status"), ("DELETE", "/admin/agents/x/token"), ("GET", "/admin/agents/x/tokens")],
)
async def test_agent_404(api: httpx.AsyncClient, method: str, path: str) -> None:
    """As for a command."""
    detail = "Cluster 'x' not found. Available clusters: east, local, west"
    check_problem(await api.request(method, path), 404, "CLUSTER_UNKNOWN", detail)


async def test_delete_token(api: httpx.AsyncClient, new_cluster: str) -> None:
    """204 without a body; all of the cluster's tokens are gone, and with them the cluster."""
    path = f"/admin/agents/{new_cluster}/token"
    for _ in range(2):
        await api.post(path)
    answer = await api.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    check_ids(answer)
    for gone in (await api.delete(path), await api.get(f"/admin/agents/{new_cluster}/status")):
        check_problem(gone, 404, "CLUSTER_UNKNOWN")


async def test_delete_one_token(api: httpx.AsyncClient, new_cluster: str) -> None:
    """Beyond the old API: by its id, which there must be."""
    path = f"/admin/agents/{new_cluster}/token"
    first, second = [(await api.post(path)).json() for _ in range(2)]
    check_problem(await api.delete(path, params={"token_id": "no-such-id"}), 404, "TOKEN_UNKNOWN")
    assert first["tokenId"] != second["tokenId"]
    assert (await api.delete(path, params={"token_id": first["tokenId"]})).status_code == 204
    check_problem(await api.delete(path, params={"token_id": first["tokenId"]}), 404, "TOKEN_UNKNOWN")
    assert (await api.get(f"/admin/agents/{new_cluster}/status")).status_code == 200


# GET /audit


async def audit(api: httpx.AsyncClient, *, action: str = "", **query: str | int) -> list[Json]:
    """The entries that fit, once there are any: they are written down behind the answers."""
    async with asyncio.timeout(20):
        while True:
            answer = await api.get("/audit", params=query)
            assert answer.status_code == 200, answer.text
            told = answer.json()
            check(told, {"entries": list, "count": int, "next_cursor": (str, NULL)})
            assert told["count"] == len(told["entries"])
            if found := [entry for entry in told["entries"] if action in ("", entry["action"])]:
                return found
            await asyncio.sleep(0.05)


async def test_audit(api: httpx.AsyncClient) -> None:
    """200, a command with who, what, where and how it ended; chosen by owner, cluster, session and time."""
    session_id = await session_of(api)
    before = datetime.now(UTC) - timedelta(seconds=1)
    ran = (await execute(api, {"args": ["fail"], "session_id": session_id, "correlation_id": "c-1"})).json()
    [entry] = await audit(api, action="execute", session_id=session_id)
    check(entry, AUDITED)
    assert datetime.fromisoformat(entry["timestamp"]) > before
    assert (entry["owner"], entry["cluster_id"], entry["session_id"]) == ("me", "local", session_id)
    assert (entry["command_id"], entry["correlation_id"]) == (ran["command_id"], "c-1")
    assert (entry["command"], entry["status"], entry["exit_code"]) == ("get fail -n default", "failure", 1)
    assert (entry["executed"], entry["reason"], entry["execution_time_ms"]) == ("yes", None, ran["execution_time_ms"])
    until = datetime.now(UTC) + timedelta(minutes=1)
    when = {"since": before.isoformat(), "until": until.isoformat()}
    assert await audit(api, session_id=session_id, cluster_id="local", owner="me", limit=1, **when) == [entry]
    out_of_time = ({"since": until.isoformat()}, {"until": before.isoformat()})
    for query in ({"cluster_id": "west"}, {"owner": "you"}, *out_of_time):
        answer = await api.get("/audit", params={"session_id": session_id, **query})
        assert answer.json()["entries"] == []


async def test_audit_of_a_refusal(api: httpx.AsyncClient) -> None:
    """What the policy denies, and what is for no cluster."""
    session_id = await session_of(api)
    denied = await api.post(
        "/v1/clusters/local/commands", json={"argv": ["delete", "pod", "x"], "session_id": session_id}
    )
    check_problem(denied, 403, "POLICY_DENIED")
    [entry] = await audit(api, action="execute", session_id=session_id)
    check(entry, AUDITED)
    assert (entry["status"], entry["reason"], entry["executed"]) == ("rejected", "POLICY_DENIED", "no")
    assert (entry["command"], entry["exit_code"]) == ("delete pod x", None)
    await execute(api, {"cluster_id": "nowhere-at-all"})
    [entry, *_] = await audit(api, cluster_id="nowhere-at-all")
    assert (entry["status"], entry["reason"], entry["command"]) == ("rejected", "CLUSTER_UNKNOWN", "get -n default")


async def test_audit_of_sessions_and_cancels(api: httpx.AsyncClient) -> None:
    """Who made and ended a session, and who stopped what; none of them is a command of its own."""
    session_id = await session_of(api)
    body = {"argv": ["logs", "slow"], "session_id": session_id}
    asked = await api.post("/v1/clusters/local/commands", json=body, headers={"Prefer": "respond-async, wait=0"})
    command_id = asked.json()["command_id"]
    assert (await api.delete(f"/v1/commands/{command_id}")).status_code in (200, 202)
    assert (await api.delete(f"/debug/session/{session_id}")).status_code == 204
    [cancelled] = await audit(api, action="cancel", session_id=session_id)
    [made] = await audit(api, action="create_session", session_id=session_id)
    [ended] = await audit(api, action="delete_session", session_id=session_id)
    for entry in (cancelled, made, ended):
        check(entry, AUDITED)
        assert (entry["owner"], entry["cluster_id"], entry["status"]) == ("me", "local", "success")
        assert (entry["command"], entry["executed"], entry["exit_code"]) == (None, None, None)
    assert (cancelled["command_id"], made["command_id"]) == (command_id, None)
    assert cancelled["detail"].startswith("asked by me: ")


async def test_audit_of_an_admin(api: httpx.AsyncClient, new_cluster: str) -> None:
    """A token made, and one that could not be: who, which, and never the token."""
    path = f"/admin/agents/{new_cluster}/token"
    said = {"X-Correlation-ID": "rotation-7"}
    token = (await api.post(path, json={"token": CHOSEN}, headers=said)).json()["token"]
    assert (await api.post(path, json={"token": CHOSEN})).status_code == 409
    while len(told := await audit(api, cluster_id=new_cluster)) < 2:
        pass  # until the second one is written, too
    for entry in told:
        check(entry, AUDITED)
    assert [(entry["action"], entry["owner"]) for entry in told] == [("create_executor_token", "me")] * 2
    assert [entry["reason"] for entry in told] == ["TOKEN_EXISTS", None]
    assert [entry["correlation_id"] for entry in told] == [None, "rotation-7"]
    assert told[1]["detail"].startswith("token ")
    assert token not in str(told)


@pytest.mark.parametrize("name", ["since", "until"])
async def test_audit_400(api: httpx.AsyncClient, name: str) -> None:
    """A time that is none."""
    detail = f"{name} is not a time: RFC 3339, such as 2026-11-28T21:00:00Z"
    check(check_problem(await api.get("/audit", params={name: "yesterday"}), 400, None, detail), PROBLEM | NO_REASON)


async def test_audit_403(api: httpx.AsyncClient) -> None:
    """Without the audit scope."""
    check_problem(await api.get("/audit", headers={"X-API-Key": "other-key"}), 403, "SCOPE_MISSING")


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"cursor": "x"}])
async def test_audit_422(api: httpx.AsyncClient, query: dict[str, str | int]) -> None:
    """In FastAPI's shape."""
    answer = await api.get("/audit", params=query)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", next(iter(query))]


# Health


async def test_health(api: httpx.AsyncClient) -> None:
    """No key; 200 with JSON."""
    answer = await api.get("/health", headers={"X-API-Key": ""})
    told = answer.json()
    assert (answer.status_code, told["status"]) == (200, "healthy")
    check(told, {"status": str, "brokers": list, "version": str})
    check(told["brokers"][0], {"address": str, "connected": bool, "replica_id": str, "degraded": bool})
    answer = await api.get("/healthz", headers={"X-API-Key": ""})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_health_503() -> None:
    """Without a broker it is not healthy, but it runs."""
    async with Pipes((Address("127.0.0.1:9"),), client="test") as pipes, direct(pipes) as api:
        answer = await api.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
        assert (await api.get("/healthz")).status_code == 200


# What is said of sessions below the table


async def test_execute_without_a_session_marks_the_cluster_active(api: httpx.AsyncClient) -> None:
    """It is the normal case."""
    assert (await execute(api)).json()["session_id"] is None
    assert (await api.get("/cluster/local/status")).json()["active_for_seconds"] in range(50, 61)


async def test_execute_with_a_session_keeps_it(api: httpx.AsyncClient) -> None:
    """Its end moves on with each command."""
    session_id = await session_of(api)
    before = (await api.get(f"/debug/session/{session_id}")).json()
    told = (await execute(api, {"session_id": session_id, "args": ["pause"]})).json()
    assert told["session_id"] == session_id
    after = (await api.get(f"/debug/session/{session_id}")).json()
    assert datetime.fromisoformat(after["expires_at"]) > datetime.fromisoformat(before["expires_at"])


# Where the old behaviour hurts


async def test_offline_is_503_at_once(api: httpx.AsyncClient) -> None:
    """Long before the wait is over, with Retry-After, a reason, and when it was last seen."""
    answer = await execute(api, {"cluster_id": "west", "timeout_seconds": 300})
    told = check_problem(answer, 503, "CLUSTER_OFFLINE")
    check(told, OFFLINE)
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.elapsed.total_seconds() < 15


@pytest.mark.usefixtures("patience")
async def test_out_of_time_is_200_and_504_for_who_wants_it(api: httpx.AsyncClient) -> None:
    """With the output so far in each."""
    slow = {"args": ["slow"], "timeout_seconds": 3}
    plain, strict, v1 = await asyncio.gather(
        execute(api, slow),
        execute(api, slow, Prefer="handling=strict"),
        api.post("/v1/clusters/local/commands", json={"argv": ["get", "slow"], "timeout_seconds": 3}),
    )
    assert (plain.status_code, plain.json()["status"], plain.json()["output"]) == (200, "timeout", "so far\n")
    for answer in (strict, v1):
        assert check_problem(answer, 504, "COMMAND_TIMEOUT")["stdout"] == "so far\n"


@pytest.mark.parametrize(
    ("args", "argv"),
    [
        (["pods", "-n", "shop"], "get pods --namespace=shop"),
        (["pods", "--namespace=shop"], "get pods --namespace=shop"),
        (["pods", "-A"], "get pods --all-namespaces=true"),
        (["pods", "--all-namespaces"], "get pods --all-namespaces=true"),
    ],
)
async def test_a_namespace_in_args_wins(api: httpx.AsyncClient, args: list[str], argv: str) -> None:
    """Over one that was only the default."""
    assert (await execute(api, {"args": args})).json()["stdout"].split() == argv.split()


async def test_two_explicit_namespaces_are_422(api: httpx.AsyncClient) -> None:
    """The same one twice is none too many."""
    both = {"namespace": "shop", "args": ["pods", "-n", "web"]}
    assert check_problem(await execute(api, both), 422, "INVALID_COMMAND")["detail"][0]["loc"] == ["body", "namespace"]
    assert (await execute(api, {"namespace": "web", "args": ["pods", "-n", "web"]})).status_code == 200


@pytest.mark.parametrize(
    "args", [["hpa", "autoscaler"], ["pod/recreate"], ["pod", "patch-server"], ["deploy", "delete-me"]]
)
async def test_names_are_not_scanned_for_words(api: httpx.AsyncClient, args: list[str]) -> None:
    """The policy parses: what is a name may be called anything."""
    answer = await execute(api, {"args": args})
    assert (answer.status_code, answer.json()["stdout"].split()) == (200, ["get", *args, "--namespace=default"])


@pytest.mark.parametrize("verb", ["version", "api-resources", "api-versions", "events"])
async def test_args_may_be_empty(api: httpx.AsyncClient, verb: str) -> None:
    """For verbs that need none."""
    assert (await execute(api, {"command_type": verb, "args": []})).json()["status"] == "success"


async def test_the_verb_may_be_the_first_argument(api: httpx.AsyncClient) -> None:
    """Where command_type is absent; where it is there, the word is an argument."""
    absent = await execute(api, {"args": ["describe", "pod", "web"]})
    present = await execute(api, {"command_type": "get", "args": ["events"]})
    assert absent.json()["stdout"].split()[:3] == ["describe", "pod", "web"]
    assert present.json()["stdout"].split()[:2] == ["get", "events"]


async def test_a_failure_says_why(api: httpx.AsyncClient) -> None:
    """`error` is the first line of stderr; `output` is stdout, a newline, and stderr where there is any."""
    failed = (await execute(api, {"args": ["fail"]})).json()
    assert failed["error"] == failed["stderr"].splitlines()[0]
    assert (failed["stdout"], failed["output"]) == ("", "\n" + failed["stderr"])
    assert (failed["exit_code"], failed["success"], failed["truncated"]) == (1, False, False)
    assert failed["total_bytes"] == len(failed["stderr"])
    both = (await execute(api, {"args": ["both"]})).json()
    assert (both["output"], both["error"], both["success"]) == ("out\n\nwarning\n", None, True)
    assert (await execute(api, {"args": ["pods"]})).json()["output"] == "get\npods\n--namespace=default\n"


async def test_a_late_result_is_not_lost(api: httpx.AsyncClient) -> None:
    """execute/async says where it is; there it is found, by both names."""
    begun = await api.post("/debug/execute/async", json={"cluster_id": "local", "args": ["pause"]})
    told = begun.json()
    assert begun.status_code == 202
    check(told, {"operation_id": str, "status": str, "poll_url": str})
    assert (told["status"], told["poll_url"]) == ("pending", f"/debug/operations/{told['operation_id']}")
    for path in (told["poll_url"], f"/v1/commands/{told['operation_id']}"):
        found = await api.get(path, params={"wait": 20})
        assert (found.status_code, found.json()["state"], found.json()["stdout"]) == (200, "done", "done\n")


async def test_the_id_of_an_answer_finds_it_again(api: httpx.AsyncClient) -> None:
    """Also for a command that was waited for."""
    told = (await execute(api, {"args": ["pods"]})).json()
    found = (await api.get(f"/debug/operations/{told['command_id']}")).json()
    assert (found["stdout"], found["observed_at"]) == (told["stdout"], told["observed_at"])


@pytest.mark.parametrize("field", ["args", "extra_args"])
@pytest.mark.parametrize("word", ["a\0b", "\ud800", "x" * 16_385], ids=["NUL", "lone surrogate", "oversized"])
async def test_words_that_cannot_be_arguments_are_422(api: httpx.AsyncClient, field: str, word: str) -> None:
    """At the gateway."""
    body = json.dumps({"cluster_id": "local", field: [word]})
    check_problem(await api.post("/debug/execute", content=body), 422, "INVALID_COMMAND")


async def test_headers_win_over_the_body(api: httpx.AsyncClient) -> None:
    """X-Correlation-ID and X-Request-Timeout; the ids are echoed."""
    body = {"args": ["slow"], "timeout_seconds": 300, "correlation_id": "from-body"}
    answer = await execute(api, body, X_Correlation_ID="from-header", X_Request_Timeout="1", X_Request_ID="r-1")
    assert (answer.json()["status"], answer.json()["correlation_id"]) == ("timeout", "from-header")
    assert (answer.headers["X-Correlation-ID"], answer.headers["X-Request-ID"]) == ("from-header", "r-1")
