"""/v1's lists of commands and sessions, through the real broker and executor."""

import asyncio
from typing import Any

import httpx
import pytest

from openline.ids import new_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE_S = 15.0


async def run(api: httpx.AsyncClient, *argv: str, **fields: str) -> str:
    answer = await api.post("/v1/clusters/local/commands", json={"argv": argv or ["get", "pods"], **fields})
    return str(answer.json()["command_id"])


async def listed(api: httpx.AsyncClient, path: str, *command_ids: str) -> list[dict[str, Any]]:
    """The commands on the list, once they are these: they are written down behind the answers."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page = (await api.get(path)).json()
            if [command["command_id"] for command in page.get("commands", [])] == list(command_ids):
                assert page["count"] == len(command_ids)
                return list(page["commands"])
            await asyncio.sleep(0.05)


async def test_a_conversation_s_commands(api: httpx.AsyncClient) -> None:
    """Newest first, with what became of them, and without output."""
    told = new_id()
    first = await run(api, "get", "pods", correlation_id=told)
    second = await run(api, "get", "fail", correlation_id=told)
    newest, oldest = await listed(api, f"/v1/commands?correlation_id={told}&cluster_id=local", second, first)
    assert (newest["argv"], newest["state"], newest["exit_code"]) == (["get", "fail"], "done", 1)
    assert (oldest["outcome"], oldest["correlation_id"], oldest["truncated"]) == ("exited", told, False)
    assert oldest["timings"]["total_ms"] > 0
    assert "stdout" not in oldest
    assert (await api.get(oldest["links"]["self"])).json()["command_id"] == first
    since = {"correlation_id": told, "since": newest["created_at"]}
    assert (await api.get("/v1/commands", params=since)).json()["commands"] == [newest]
    assert (await api.get(f"/v1/commands?correlation_id={told}&since=2099-01-01")).json()["commands"] == []
    assert (await api.get(f"/v1/commands?correlation_id={told}&cluster_id=west")).json()["commands"] == []


async def test_a_session_and_its_commands(api: httpx.AsyncClient) -> None:
    """The session is on its owner's list; its commands can be listed also when it has ended; not by others."""
    session_id = (await api.post("/v1/sessions", json={"cluster_id": "local"})).json()["session_id"]
    page = (await api.get("/v1/sessions", params={"cluster_id": "local", "limit": 1})).json()
    assert [session["session_id"] for session in page["sessions"]] == [session_id]
    command_id = await run(api, session_id=session_id)
    path = f"/v1/sessions/{session_id}/commands"
    await listed(api, path, command_id)
    assert (await api.get(path, headers={"X-API-Key": "other-key"})).json()["commands"] == []
    await api.delete(f"/v1/sessions/{session_id}")
    await listed(api, path, command_id)
    assert session_id not in str((await api.get("/v1/sessions")).json())
    assert (await api.get("/v1/sessions/two%20words/commands")).status_code == 404


async def test_pages(api: httpx.AsyncClient) -> None:
    """Each once, by the cursor of the page before."""
    told = new_id()
    names = [await run(api, correlation_id=told) for _ in range(3)][::-1]
    await listed(api, f"/v1/commands?correlation_id={told}", *names)
    seen: list[str] = []
    cursor = ""
    for _ in range(2):
        page = (await api.get(f"/v1/commands?correlation_id={told}&limit=2&cursor={cursor}")).json()
        seen += [command["command_id"] for command in page["commands"]]
        cursor = page["next_cursor"]
    assert (seen, cursor) == (names, None)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=x", f"cursor={'x' * 36}", f"cursor={'-' * 36}"])
@pytest.mark.parametrize("path", ["/v1/commands", "/v1/sessions", "/v1/sessions/x/commands"])
async def test_a_list_has_bounds(api: httpx.AsyncClient, path: str, query: str) -> None:
    """422 beyond them."""
    assert (await api.get(f"{path}?{query}")).status_code == 422


@pytest.mark.parametrize("since", ["yesterday", "nan", "inf", "1e400", "0001-01-01T00:00:00%2B14:00"])
async def test_a_time_that_is_none(api: httpx.AsyncClient, since: str) -> None:
    """422 on /v1, 400 of the audit trail."""
    assert (await api.get(f"/v1/commands?since={since}")).status_code == 422
    assert (await api.get(f"/audit?since={since}")).status_code == 400


@pytest.mark.parametrize("path", ["/v1/commands", "/v1/sessions", "/v1/sessions/x/commands"])
async def test_a_list_needs_a_key(api: httpx.AsyncClient, path: str) -> None:
    """And its scope: read, or session."""
    assert (await api.get(path, headers={"X-API-Key": "wrong"})).status_code == 401
    status = 403 if path == "/v1/sessions" else 200
    assert (await api.get(path, headers={"X-API-Key": "read-key"})).status_code == status
