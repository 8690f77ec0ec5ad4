"""/admin/keys and /admin/cancel: the life of an API key over REST, and everything of somebody's stopped."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHOSEN = "a-key_of-my-own-choice-0123456789"
KEYS = {"key_id", "owner", "scopes", "clusters", "created_at", "expires_at", "quota"}
PROBLEM = "application/problem+json"


@pytest_asyncio.fixture(loop_scope="session")
async def owner(api: httpx.AsyncClient) -> AsyncIterator[str]:
    """Somebody who has no keys yet, and has none any more afterwards."""
    name = f"agent-{secrets.token_hex(4)}"
    yield name
    for key in (await api.get("/admin/keys", params={"owner": name})).json()["keys"]:
        await api.delete(f"/admin/keys/{key['key_id']}")


async def create(api: httpx.AsyncClient, owner: str, **fields: Any) -> httpx.Response:
    return await api.post("/admin/keys", json={"owner": owner, "scopes": ["read"], **fields})


def problem(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    told: dict[str, Any] = answer.json()
    assert (answer.status_code, told["reason"]) == (status, reason), answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    return told


# Keys


async def test_a_key_is_made_and_may_do_what_it_was_given(api: httpx.AsyncClient, owner: str) -> None:
    """201, with the key this once; it sees its clusters, and no others."""
    answer = await create(
        api,
        owner,
        scopes=["read", "execute"],
        clusters=["lo*", "west"],
        ttl_seconds=3600,
        quota={"commands_per_minute": 60, "in_flight": 4},
    )
    told = answer.json()
    assert answer.status_code == 201
    assert set(told) == KEYS | {"key"}
    assert (told["owner"], told["scopes"], told["clusters"]) == (owner, ["execute", "read"], ["lo*", "west"])
    assert told["quota"] == {"commands_per_minute": 60, "in_flight": 4}
    expires_at = datetime.fromisoformat(told["expires_at"])
    assert abs(expires_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    mine = {"X-API-Key": told["key"]}
    assert (await api.get("/debug/clusters", headers=mine)).json()["clusters"] == ["local", "west"]
    ran = await api.post("/v1/clusters/local/commands", json={"argv": ["get", "pods"]}, headers=mine)
    assert ran.status_code == 200
    assert "60" in ran.headers["RateLimit-Policy"]
    problem(await api.get("/admin/keys", headers=mine), 403, "SCOPE_MISSING")


async def test_what_is_left_out_is_no_limit(api: httpx.AsyncClient, owner: str) -> None:
    """Every cluster, for ever, with the quota of everybody."""
    told = (await create(api, owner)).json()
    assert (told["clusters"], told["expires_at"], told["quota"]) == ([], None, None)
    no_limit = (await create(api, owner, quota={})).json()
    assert no_limit["quota"] == {"commands_per_minute": 0, "in_flight": 0}


async def test_a_chosen_key(api: httpx.AsyncClient, owner: str) -> None:
    """409 for one that there is, or was."""
    key = f"{CHOSEN}{secrets.token_hex(8)}"
    told = (await create(api, owner, key=key)).json()
    assert told["key"] == key
    problem(await create(api, owner, key=key), 409, "KEY_EXISTS")
    assert (await api.delete(f"/admin/keys/{told['key_id']}")).status_code == 204
    problem(await create(api, owner, key=key), 409, "KEY_EXISTS")


async def test_keys_are_listed_and_never_shown(api: httpx.AsyncClient, owner: str) -> None:
    """All, or an owner's; page by page."""
    made = [(await create(api, owner)).json() for _ in range(3)]
    answer = await api.get("/admin/keys", params={"owner": owner})
    told = answer.json()
    assert set(told) == {"keys", "count", "next_cursor"}
    assert (told["count"], told["next_cursor"]) == (3, None)
    ids = sorted(each["key_id"] for each in made)
    assert [each["key_id"] for each in told["keys"]] == ids
    assert all(set(each) == KEYS for each in told["keys"])
    assert not any(each["key"] in answer.text for each in made)
    paged: list[str] = []
    cursor = ""
    while cursor is not None:
        page = (await api.get("/admin/keys", params={"owner": owner, "limit": 2, "cursor": cursor})).json()
        paged += [each["key_id"] for each in page["keys"]]
        cursor = page["next_cursor"]
    assert paged == ids
    owners = {each["owner"] for each in (await api.get("/admin/keys")).json()["keys"]}
    assert owners >= {owner, "me", "you", "looker"}


async def test_a_revoked_key_is_refused(api: httpx.AsyncClient, owner: str) -> None:
    """204, once; its key is then as good as any other text."""
    told = (await create(api, owner)).json()
    mine = {"X-API-Key": told["key"]}
    assert (await api.get("/debug/clusters", headers=mine)).status_code == 200
    answer = await api.delete(f"/admin/keys/{told['key_id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    problem(await api.get("/debug/clusters", headers=mine), 401, "UNAUTHENTICATED")
    problem(await api.delete(f"/admin/keys/{told['key_id']}"), 404, "KEY_UNKNOWN")


async def test_an_admin_cannot_give_what_it_has_not(api: httpx.AsyncClient, owner: str) -> None:
    """Neither a scope nor a cluster; nor does it learn of keys that see more."""
    of_prod = (await create(api, owner, scopes=["admin", "read"], clusters=["lo*"])).json()
    mine = {"X-API-Key": of_prod["key"]}
    for beyond in ({"scopes": ["execute"], "clusters": ["local"]}, {"scopes": ["read"], "clusters": ["*"]}):
        refused = await api.post("/admin/keys", json={"owner": owner, **beyond}, headers=mine)
        problem(refused, 403, "SCOPE_MISSING")
    everywhere = (await create(api, owner)).json()
    listed = (await api.get("/admin/keys", headers=mine)).json()["keys"]
    assert [each["key_id"] for each in listed] == [of_prod["key_id"]]
    problem(await api.delete(f"/admin/keys/{everywhere['key_id']}", headers=mine), 404, "KEY_UNKNOWN")
    problem(await api.get("/admin/agents/west/tokens", headers=mine), 404, "CLUSTER_UNKNOWN")
    problem(await api.post("/admin/cancel", json={"cluster_id": "west"}, headers=mine), 404, "CLUSTER_UNKNOWN")


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"owner": ""}, "owner"),
        ({"owner": "a b"}, "owner"),
        ({"owner": "x" * 101}, "owner"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["all"]}, "scopes"),
        ({"clusters": ["Prod"]}, "clusters"),
        ({"clusters": ["x"] * 101}, "clusters"),
        ({"ttl_seconds": 0}, "ttl_seconds"),
        ({"key": "short"}, "key"),
        ({"quota": {"in_flight": -1}}, "quota"),
        ({"quota": {"commands_per_minute": 10**8}}, "quota"),
    ],
)
async def test_a_key_that_cannot_be(api: httpx.AsyncClient, fields: dict[str, Any], where: str) -> None:
    told = problem(await create(api, **{"owner": "somebody", **fields}), 422, "INVALID_COMMAND")
    assert told["detail"][0]["loc"][:2] == ["body", where]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/admin/keys", {"owner": "x", "scopes": ["read"]}),
        ("GET", "/admin/keys", None),
        ("DELETE", "/admin/keys/x", None),
        ("POST", "/admin/cancel", {"owner": "x"}),
    ],
)
@pytest.mark.parametrize(
    ("key", "status", "reason"),
    [
        ("", 401, "UNAUTHENTICATED"),
        ("wrong", 401, "UNAUTHENTICATED"),
        ("other-key", 403, "SCOPE_MISSING"),
        ("read-key", 403, "SCOPE_MISSING"),
    ],
)
async def test_who_may(
    api: httpx.AsyncClient, method: str, path: str, body: Any, key: str, status: int, reason: str
) -> None:
    problem(await api.request(method, path, json=body, headers={"X-API-Key": key}), status, reason)


# The kill switch


async def test_everything_of_an_owner_is_stopped(api: httpx.AsyncClient, owner: str) -> None:
    """200 with how many; each caller is told why, and what runs ends with the output so far."""
    key = (await create(api, owner, scopes=["execute", "read", "session"])).json()["key"]
    mine = {"X-API-Key": key}
    session = await api.post("/debug/session", json={"cluster_id": "local"}, headers=mine)
    asked: dict[str, Any] = {"argv": ["logs", "slow"], "timeout_seconds": 60}
    own = {**mine, "Cache-Control": "no-cache"}
    calls = [
        asyncio.create_task(api.post("/v1/clusters/local/commands", json={**asked, **more}, headers=own))
        for more in ({}, {"session_id": session.json()["session_id"]})
    ]
    async with asyncio.timeout(20):
        while sum(c["state"] == "running" for c in await commands(api, mine)) < 2:
            await asyncio.sleep(0.05)
    answer = await api.post("/admin/cancel", json={"owner": owner, "reason": "it ran away"})
    assert (answer.status_code, answer.json()) == (200, {"cancelled": 2, "unreached_replica_ids": []})
    for call in calls:
        told = problem(await call, 499, "CANCELLED")
        assert told["executed"] == "yes"
    again = await api.post("/admin/cancel", json={"session_id": session.json()["session_id"]})
    assert (again.status_code, again.json()["cancelled"]) == (200, 0)


async def commands(api: httpx.AsyncClient, mine: dict[str, str]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = (await api.get("/v1/commands", headers=mine)).json().get("commands", [])
    return told


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "why"},
        {"owner": "x", "cluster_id": "local"},
        {"owner": ""},
        {"owner": "x\ny"},
        {"session_id": "a b"},
        {"correlation_id": "c", "session_id": "s"},
        {"correlation_id": "c", "cluster_id": "local"},
        {"correlation_id": ""},
        {"cluster_id": "LOCAL"},
        {"owner": "x", "reason": "y" * 201},
        {"owner": "x", "reason": "\ud800"},
        {"owner": "x", "reason": "two\nlines"},
    ],
)
async def test_nothing_is_stopped_by_mistake(api: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """Exactly one of the three says whose."""
    problem(await api.post("/admin/cancel", content=json.dumps(body)), 422, "INVALID_COMMAND")


async def test_a_cluster_that_there_is_not(api: httpx.AsyncClient) -> None:
    problem(await api.post("/admin/cancel", json={"cluster_id": "nowhere"}), 404, "CLUSTER_UNKNOWN")
