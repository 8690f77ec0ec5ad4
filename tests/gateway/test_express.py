"""The short way of POST /debug/execute: nobody can tell it from the usual one."""

import json
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/debug/execute"
# A wish that changes nothing about the answer, and makes the request go the usual way.
USUAL = {"Prefer": "handling=lenient"}
# What is another one in each answer.
OWN = {
    "command_id", "correlation_id", "request_id", "executed_at", "execution_time_ms", "timings", "observed_at", "hint",
}  # fmt: skip

BODIES: dict[str, Any] = {
    "plain": {"cluster_id": "local", "args": ["pods"]},
    "with everything": {
        "cluster_id": "local", "command_type": "get", "args": ["pods"], "namespace": "shop", "timeout_seconds": 5,
        "correlation_id": "c 1", "extra_args": ["-o", "json"],
    },
    "fails": {"cluster_id": "local", "args": ["fail"]},
    "verb in args": {"cluster_id": "local", "args": ["describe", "pods"]},
    "denied": {"cluster_id": "local", "args": ["secrets"]},
    "unknown cluster": {"cluster_id": "nowhere", "args": ["pods"]},
    "no cluster's id": {"cluster_id": "No Where", "args": ["pods"]},
    "offline": {"cluster_id": "west", "args": ["pods"]},
    "unknown session": {"cluster_id": "local", "args": ["pods"], "session_id": "none"},
    "two namespaces": {"cluster_id": "local", "args": ["pods", "-n", "a"], "namespace": "b"},
    "no body": None,
    "no object": [],
    "wrong types": {"cluster_id": 5, "args": "pods"},
    "as text": {"cluster_id": "local", "args": ["pods"], "timeout_seconds": "5"},
    "NUL": {"cluster_id": "local", "args": ["a\0b"]},
    "a surrogate": {"cluster_id": "local", "args": ["\ud800"]},
    "unknown field": {"cluster_id": "local", "args": ["pods"], "more": 1},
    "too long": {"cluster_id": "local", "args": ["pods"], "timeout_seconds": 301},
}  # fmt: skip


def seen(answer: httpx.Response) -> tuple[int, Any, set[str]]:
    told = answer.json()
    kept = {name: value for name, value in told.items() if name not in OWN}
    names = {name for name in answer.headers if name not in ("content-length", "date")}
    return answer.status_code, kept | {"keys": sorted(told.keys() - {"hint"})}, names


@pytest.mark.parametrize("name", BODIES)
async def test_both_ways_answer_the_same(api: httpx.AsyncClient, name: str) -> None:
    """Status, fields and headers, whatever is asked."""
    body = json.dumps(BODIES[name]).encode()
    short, usual = [await api.post(PATH, content=body, headers=headers) for headers in ({}, USUAL)]
    assert seen(short) == seen(usual)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"cluster_id": NaN}', b"[" * 100_000])
async def test_what_is_no_json(api: httpx.AsyncClient, body: bytes) -> None:
    short, usual = [await api.post(PATH, content=body, headers=headers) for headers in ({}, USUAL)]
    assert seen(short) == seen(usual)
    assert short.status_code == 422


@pytest.mark.parametrize("headers", [{"X-API-Key": "wrong"}, {"X-API-Key": ""}, {"X-Request-Timeout": "0"}])
async def test_headers_that_are_wrong(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    body = json.dumps(BODIES["plain"]).encode()
    short, usual = [await api.post(PATH, content=body, headers=headers | more) for more in ({}, USUAL)]
    assert seen(short) == seen(usual)
    assert short.status_code in (401, 422)
