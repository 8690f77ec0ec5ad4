"""/debug/session, row by row of the drop-in API."""

from collections.abc import AsyncIterator
from datetime import datetime

import httpx
import pytest
import pytest_asyncio

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYS = {
    "session_id", "cluster_id", "status", "created_at", "expires_at", "ttl_seconds", "correlation_id",
    "service_identity",
}  # fmt: skip


@pytest_asyncio.fixture(loop_scope="session")
async def session_id(api: httpx.AsyncClient) -> AsyncIterator[str]:
    response = await api.post("/debug/session", json={"cluster_id": "local"})
    yield response.json()["session_id"]


async def test_a_session_is_made_and_shown(api: httpx.AsyncClient) -> None:
    """201 with the record, and the same again by its id."""
    body = {"cluster_id": "local", "ttl_seconds": 600, "correlation_id": "c-1", "service_identity": "a2a"}
    response = await api.post("/debug/session", json=body)
    made = response.json()
    assert response.status_code == 201
    assert response.headers["X-Correlation-ID"] == "c-1"
    assert set(made) == KEYS
    assert {name: made[name] for name in body} == body
    assert made["status"] == "active"
    lifetime = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert 595 <= lifetime.total_seconds() <= 605
    shown = await api.get(f"/debug/session/{made['session_id']}")
    assert shown.status_code == 200
    assert set(shown.json()) == KEYS
    assert shown.json()["session_id"] == made["session_id"]


async def test_a_command_may_belong_to_a_session(api: httpx.AsyncClient, session_id: str) -> None:
    """The answer names the session, whose end moves on."""
    before = (await api.get(f"/debug/session/{session_id}")).json()
    body = {"cluster_id": "local", "args": ["pods"], "session_id": session_id}
    response = await api.post("/debug/execute", json=body)
    assert (response.status_code, response.json()["session_id"]) == (200, session_id)
    after = (await api.get(f"/debug/session/{session_id}")).json()
    assert after["expires_at"] >= before["expires_at"]
    assert after["status"] == "active"


async def test_an_ended_session_is_gone(api: httpx.AsyncClient, session_id: str) -> None:
    """204 once, then 404 for looking, ending and executing."""
    assert (await api.delete(f"/debug/session/{session_id}")).status_code == 204
    body = {"cluster_id": "local", "session_id": session_id}
    for response in (
        await api.get(f"/debug/session/{session_id}"),
        await api.delete(f"/debug/session/{session_id}"),
        await api.post("/debug/execute", json=body),
    ):
        assert (response.status_code, response.json()["detail"]) == (404, "Session not found")
        assert response.json()["reason"] == "SESSION_UNKNOWN"


@pytest.mark.parametrize("unknown", ["nope", "a b", "ä", "x" * 199])
async def test_an_unknown_session_is_404(api: httpx.AsyncClient, unknown: str) -> None:
    """Also where no session can have such an id."""
    looked_at = await api.get(f"/debug/session/{unknown}")
    used = await api.post("/debug/execute", json={"cluster_id": "local", "session_id": unknown})
    for response in (looked_at, used):
        assert (response.status_code, response.json()["detail"]) == (404, "Session not found")


async def test_another_owners_session_is_404(api: httpx.AsyncClient, session_id: str) -> None:
    """Sessions of others do not exist for a key."""
    response = await api.get(f"/debug/session/{session_id}", headers={"X-API-Key": "other-key"})
    assert response.status_code == 404


async def test_a_session_belongs_to_one_cluster(api: httpx.AsyncClient, session_id: str) -> None:
    """Used with another cluster it is a 400."""
    response = await api.post("/debug/execute", json={"cluster_id": "west", "session_id": session_id})
    assert (response.status_code, response.json()["detail"]) == (400, "Session cluster mismatch")
    assert response.json()["reason"] == "SESSION_MISMATCH"


async def test_a_session_needs_a_known_cluster(api: httpx.AsyncClient) -> None:
    """404 with the clusters that there are."""
    response = await api.post("/debug/session", json={"cluster_id": "nowhere"})
    expected = "Cluster 'nowhere' not found. Available clusters: east, local, west"
    assert (response.status_code, response.json()["detail"]) == (404, expected)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"cluster_id": "Local"}, "cluster_id"),
        ({"cluster_id": "-local"}, "cluster_id"),
        ({"cluster_id": "local\n"}, "cluster_id"),
        ({"cluster_id": "x" * 101}, "cluster_id"),
        ({"cluster_id": ""}, "cluster_id"),
        ({"ttl_seconds": 59}, "ttl_seconds"),
        ({"ttl_seconds": 3601}, "ttl_seconds"),
        ({"ttl_seconds": None}, "ttl_seconds"),
        ({"user_id": "two\nlines"}, "user_id"),
    ],
)
async def test_what_is_not_valid_is_422(api: httpx.AsyncClient, change: dict[str, object], where: str) -> None:
    """Every field has its bounds."""
    response = await api.post("/debug/session", json={"cluster_id": "local", **change})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", where]


async def test_people_have_names(api: httpx.AsyncClient) -> None:
    """Any text on one line, with spaces and of any script, is who asks."""
    for path in ("/debug/session", "/v1/sessions"):
        names = {"user_id": "Jane Doe", "service_identity": "Störungsdienst №1"}
        made = await api.post(path, json={"cluster_id": "local", **names})
        assert (made.status_code, made.json()["service_identity"]) == (201, names["service_identity"])
        for wrong in ("two\nlines", "bell\a", "x" * 201):
            refused = await api.post(path, json={"cluster_id": "local", "user_id": wrong})
            assert (refused.status_code, refused.json()["reason"]) == (422, "INVALID_COMMAND")
