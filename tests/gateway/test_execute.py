"""POST /debug/execute, row by row of the drop-in API, through a real broker and executor."""

from datetime import datetime
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

Json = dict[str, Any]

KEYS = {
    "command_id", "session_id", "cluster_id", "status", "correlation_id", "output", "error", "execution_time_ms",
    "executed_at", "stdout", "stderr", "exit_code", "success", "truncated", "total_bytes", "encoding_replaced",
    "timings", "executor_id", "observed_at", "masked_values", "bounded", "hint",
    "served_from", "age_s",
}  # fmt: skip


async def execute(api: httpx.AsyncClient, body: Json | None = None, /, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.post("/debug/execute", json={"cluster_id": "local", **(body or {})}, headers=named)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        pytest.param(
            ["pods"],
            {
                "status": "success",
                "success": True,
                "exit_code": 0,
                "output": "get\npods\n--namespace=default\n",
                "stdout": "get\npods\n--namespace=default\n",
                "stderr": "",
                "error": None,
                "total_bytes": 29,
                "truncated": False,
                "encoding_replaced": False,
                "session_id": None,
                "correlation_id": None,
                "cluster_id": "local",
            },
            id="a success",
        ),
        pytest.param(
            ["fail"],
            {
                "status": "failure",
                "success": False,
                "exit_code": 1,
                "error": 'Error from server (NotFound): pods "fail" not found',
                "stdout": "",
                "output": '\nError from server (NotFound): pods "fail" not found\nsecond line\n',
            },
            id="a failure has the first line of stderr",
        ),
        pytest.param(
            ["mute"], {"status": "failure", "error": "exit code 3", "exit_code": 3}, id="a failure that says nothing"
        ),
        pytest.param(
            ["both"],
            {"status": "success", "output": "out\n\nwarning\n", "stderr": "warning\n", "error": None},
            id="stderr follows stdout",
        ),
        pytest.param(
            ["binary"],
            {"output": "a\N{REPLACEMENT CHARACTER}b", "encoding_replaced": True, "total_bytes": 3},
            id="bytes that are not UTF-8 are replaced, and it is said",
        ),
    ],
)
async def test_a_command_that_ran(api: httpx.AsyncClient, args: list[str], expected: Json) -> None:
    """A command that ran is a 200 that says how it ended, with all keys present."""
    response = await execute(api, {"args": args})
    answer = response.json()
    assert response.status_code == 200
    assert set(answer) == KEYS
    assert {name: answer[name] for name in expected} == expected
    assert isinstance(answer["execution_time_ms"], int)
    assert set(answer["timings"]) == {"queue_ms", "route_ms", "deliver_ms", "run_ms", "return_ms", "total_ms"}
    assert answer["timings"]["total_ms"] >= answer["timings"]["run_ms"] > 0
    assert answer["executor_id"]
    assert answer["observed_at"] == answer["executed_at"]
    assert datetime.fromisoformat(answer["executed_at"]).utcoffset() is not None


@pytest.mark.usefixtures("patience")
async def test_a_command_that_ran_out_of_time(api: httpx.AsyncClient) -> None:
    """A timeout is a 200 with the output so far."""
    response = await execute(api, {"args": ["slow"], "timeout_seconds": 3})
    answer = response.json()
    assert response.status_code == 200
    assert set(answer) == KEYS
    assert answer["status"] == "timeout"
    assert answer["output"] == "so far\n"
    assert answer["exit_code"] is None
    assert answer["error"]


@pytest.mark.usefixtures("patience")
async def test_the_header_bounds_the_wait_and_wins_over_the_body(api: httpx.AsyncClient) -> None:
    """X-Request-Timeout wins over timeout_seconds; asked strictly, a timeout is a 504 with the output so far."""
    body = {"args": ["slow"], "timeout_seconds": 300}
    response = await execute(api, body, X_Request_Timeout="3", Prefer="respond-async, handling=strict")
    problem = response.json()
    assert response.status_code == 504
    assert response.headers["Preference-Applied"] == "handling=strict"
    assert problem["reason"] == "COMMAND_TIMEOUT"
    assert problem["executed"] == "yes"
    assert problem["stdout"] == "so far\n"
    assert set(problem) > KEYS


@pytest.mark.parametrize(
    ("body", "argv"),
    [
        ({"args": ["pods"], "namespace": "shop"}, "get pods --namespace=shop"),
        ({"args": ["pods"], "namespace": None}, "get pods"),
        ({"args": ["pods", "-n", "shop"]}, "get pods --namespace=shop"),
        ({"args": ["pods"], "extra_args": ["--namespace=shop"]}, "get pods --namespace=shop"),
        ({"args": ["pods", "-Aowide"]}, "get pods --all-namespaces=true --output=wide"),
        ({"args": ["pods"], "extra_args": ["-o", "wide"]}, "get pods --namespace=default --output=wide"),
        ({"args": ["describe", "pod", "web"]}, "describe pod web --namespace=default"),
        ({"command_type": "logs", "args": ["web"], "extra_args": None}, "logs web --namespace=default"),
        ({"command_type": "version"}, "version --namespace=default"),
        ({"command_type": "api-resources", "args": []}, "api-resources --namespace=default"),
        (
            {"args": ["pods", "-l", "app=recreate"], "timeout_seconds": None},
            "get pods --namespace=default --selector=app=recreate",
        ),
    ],
)
async def test_what_kubectl_is_asked(api: httpx.AsyncClient, body: Json, argv: str) -> None:
    """argv is [command_type, *args] + ["-n", namespace] + extra_args, and -n or -A in the arguments win.

    What runs is what the policy makes of it: arguments first, then flags in the order of the alphabet.
    """
    response = await execute(api, body)
    assert response.json()["stdout"].split() == argv.split()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"cluster_id": None}, "cluster_id"),
        ({"cluster_id": ""}, "cluster_id"),
        ({"command_type": "delete"}, "command_type"),
        ({"command_type": None}, "command_type"),
        ({"args": "pods"}, "args"),
        ({"args": ["x"] * 21}, "args"),
        ({"args": ["a\0b"]}, "args"),
        ({"args": ["x" * 16_385]}, "args"),
        ({"args": ["x" * 16_000] * 5}, "args"),
        ({"args": ["pods", "-n"]}, "args"),
        ({"args": [1]}, "args"),
        ({"extra_args": ["x"] * 41}, "extra_args"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": 301}, "timeout_seconds"),
        ({"timeout_seconds": "soon"}, "timeout_seconds"),
        ({"namespace": "a\0b"}, "namespace"),
        ({"namespace": "shop", "args": ["pods", "-n", "web"]}, "namespace"),
        ({"namespace": "shop", "extra_args": ["-nweb"]}, "namespace"),
        ({"correlation_id": "a\0b"}, "correlation_id"),
        ({"session_id": "x" * 201}, "session_id"),
    ],
)
async def test_what_is_not_valid_is_422(api: httpx.AsyncClient, change: Json, where: str) -> None:
    """Each field is bounded; what is wrong is a list in FastAPI's shape, without what was sent."""
    response = await execute(api, change)
    problem = response.json()
    assert response.status_code == 422, problem
    assert response.headers["Content-Type"] == "application/problem+json"
    assert problem["reason"] == "INVALID_COMMAND"
    assert problem["executed"] == "no"
    assert problem["retryable"] is False
    assert all(set(wrong) == {"type", "loc", "msg"} for wrong in problem["detail"])
    assert problem["detail"][0]["loc"][:2] == ["body", where]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b'"a string"',
        b"[]",
        b'{"cluster_id": "local", "args": ["\\ud800"]}',
        b'{"cluster_id": "\xff"}',
        b"[" * 100_000,
        b'{"cluster_id": "local", "timeout_seconds": ' + b"9" * 5000 + b"}",
        b'{"cluster_id": "local", "timeout_seconds": NaN}',
    ],
    ids=["empty", "no JSON", "a string", "a list", "a lone surrogate", "not UTF-8", "deep", "a huge number", "NaN"],
)
async def test_a_body_that_makes_no_sense_is_422(api: httpx.AsyncClient, body: bytes) -> None:
    """No body, however odd, is more than a 422."""
    response = await api.post("/debug/execute", content=body)
    assert response.status_code == 422, response.text
    assert isinstance(response.json()["detail"], list)


@pytest.mark.parametrize("timeout", ["0", "61", "1.5", "soon", "-1"])
async def test_the_header_is_1_to_60_whole_seconds(api: httpx.AsyncClient, timeout: str) -> None:
    """Any other X-Request-Timeout is a 422 that names the header."""
    response = await execute(api, X_Request_Timeout=timeout)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["header", "X-Request-Timeout"]


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({"X-API-Key": ""}, "Missing API key"),
        ({"X-API-Key": "", "Authorization": "Basic dGVzdDp0ZXN0"}, "Missing API key"),
        ({"X-API-Key": "nope"}, "Invalid API key"),
        ({"X-API-Key": "", "Authorization": "Bearer nope"}, "Invalid API key"),
        ({"X-API-Key": "test\xa0key"}, "Invalid API key"),
        ({"X-API-Key": "k" * 2000}, "Invalid API key"),
    ],
)
async def test_without_a_valid_key_it_is_401(api: httpx.AsyncClient, headers: dict[str, str], detail: str) -> None:
    """The two sentences are those of the old API."""
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    response = await api.post("/debug/execute", json={"cluster_id": "local"}, headers=sent)
    problem = response.json()
    assert (response.status_code, problem["detail"]) == (401, detail)
    assert problem["reason"] == "UNAUTHENTICATED"
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_bearer_token_is_a_key_as_well(api: httpx.AsyncClient) -> None:
    """Authorization: Bearer does what X-API-Key does."""
    response = await execute(api, {"args": ["pods"]}, X_API_Key="", Authorization="Bearer test-key")
    assert response.status_code == 200


async def test_a_key_without_the_scope_is_403(api: httpx.AsyncClient) -> None:
    """A key that may only read cannot execute."""
    response = await execute(api, X_API_Key="read-key")
    assert (response.status_code, response.json()["reason"]) == (403, "SCOPE_MISSING")


@pytest.mark.parametrize("cluster_id", ["elsewhere", "Prod_East", "a b"])
async def test_an_unknown_cluster_is_404_with_those_that_there_are(api: httpx.AsyncClient, cluster_id: str) -> None:
    """The sentence is that of the old API, also for what cannot be a cluster's id."""
    response = await execute(api, {"cluster_id": cluster_id})
    problem = response.json()
    assert response.status_code == 404
    assert problem["detail"] == f"Cluster '{cluster_id}' not found. Available clusters: east, local, west"
    assert problem["reason"] == "CLUSTER_UNKNOWN"
    assert problem["executed"] == "no"


async def test_an_offline_cluster_is_503_at_once(api: httpx.AsyncClient) -> None:
    """Not a wait: CLUSTER_OFFLINE, when it was last seen, and when to come back."""
    response = await execute(api, {"cluster_id": "west"})
    problem = response.json()
    assert response.status_code == 503
    assert problem["reason"] == "CLUSTER_OFFLINE"
    assert problem["executed"] == "no"
    assert problem["retryable"] is True
    assert problem["last_seen"] is None, "it never was"
    assert int(response.headers["Retry-After"]) >= 1


async def test_what_the_policy_denies_is_403(api: httpx.AsyncClient) -> None:
    """The executor's refusal arrives with its reason; the command has not run."""
    response = await execute(api, {"args": ["pods", "--kubeconfig=/etc/passwd"]})
    problem = response.json()
    assert (response.status_code, problem["reason"], problem["executed"]) == (403, "POLICY_DENIED", "no")
    assert isinstance(problem["detail"], str)


async def test_the_same_idempotency_key_is_the_same_command(api: httpx.AsyncClient) -> None:
    """The second answer is the first one, and says so; another request with the key is refused."""
    first = await execute(api, {"args": ["pods"]}, Idempotency_Key="abc")
    again = await execute(api, {"args": ["pods"]}, Idempotency_Key="abc")
    other = await execute(api, {"args": ["nodes"]}, Idempotency_Key="abc")
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["command_id"] == again.json()["command_id"]
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    assert (other.status_code, other.json()["reason"]) == (422, "IDEMPOTENCY_CONFLICT")


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "nonsense", None])
async def test_a_body_is_json_whatever_its_content_type(api: httpx.AsyncClient, content_type: str | None) -> None:
    """curl -d says application/x-www-form-urlencoded and means JSON."""
    headers = {"Content-Type": content_type} if content_type else {}
    response = await api.post("/debug/execute", content=b'{"cluster_id": "local", "args": ["pods"]}', headers=headers)
    assert response.status_code == 200


async def test_unknown_fields_are_ignored(api: httpx.AsyncClient) -> None:
    """As the old API did."""
    assert (await execute(api, {"args": ["pods"], "colour": "green"})).status_code == 200
