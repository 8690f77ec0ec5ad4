"""/debug/clusters and /cluster, row by row of the drop-in API."""

from datetime import datetime
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_clusters_are_listed(api: httpx.AsyncClient) -> None:
    """Registered clusters, sorted and counted."""
    response = await api.get("/debug/clusters")
    assert (response.status_code, response.json()) == (200, {"clusters": ["east", "local", "west"], "count": 3})


async def test_a_connected_cluster_is_shown(api: httpx.AsyncClient) -> None:
    """Its flags, what its executor can do, and how long it stays active."""
    await api.post("/debug/execute", json={"cluster_id": "local", "args": ["pods"]})
    response = await api.get("/debug/clusters/local")
    shown = response.json()
    assert response.status_code == 200
    assert set(shown) == {"clusterId", "status", "capabilities", "ttlRemaining"}
    assert set(shown["status"]) == {"hasToken", "hasActiveSession", "executorReporting"}
    assert shown["status"]["hasToken"] is True
    assert shown["status"]["executorReporting"] is True
    assert "get" in shown["capabilities"]["verbs"]
    assert 1 <= shown["ttlRemaining"] <= 60


async def test_a_cluster_that_never_connected_is_shown(api: httpx.AsyncClient) -> None:
    """Nothing is made up for it."""
    shown = (await api.get("/debug/clusters/west")).json()
    assert shown["clusterId"] == "west"
    assert shown["status"]["executorReporting"] is False
    assert shown["capabilities"] is None


async def test_a_cluster_is_active_after_a_command(api: httpx.AsyncClient) -> None:
    """is_active is true for a while after an Execute, with no session anywhere."""
    await api.post("/debug/execute", json={"cluster_id": "local", "args": ["pods"]})
    response = await api.get("/cluster/local/status")
    status = response.json()
    assert response.status_code == 200
    assert status["is_active"] is True
    assert 1 <= status["active_for_seconds"] <= 60
    assert status["is_connected"] is True
    assert status["executors"] == 1


@pytest.mark.parametrize("path", ["/debug/clusters/nowhere", "/cluster/nowhere/status", "/cluster/No_Where/status"])
async def test_an_unknown_cluster_is_404(api: httpx.AsyncClient, path: str) -> None:
    """With the clusters that there are."""
    response = await api.get(path)
    assert response.status_code == 404
    assert response.json()["detail"].endswith("not found. Available clusters: east, local, west")


@pytest.mark.parametrize("path", ["/debug/clusters", "/debug/clusters/local", "/cluster/local/status"])
async def test_a_key_is_needed(api: httpx.AsyncClient, path: str) -> None:
    """401 without one and with a wrong one."""
    assert (await api.get(path, headers={"X-API-Key": ""})).json()["detail"] == "Missing API key"
    response = await api.get(path, headers={"X-API-Key": "nope"})
    assert (response.status_code, response.json()["detail"]) == (401, "Invalid API key")


async def test_an_offline_cluster_says_when_it_was_last_seen(
    api: httpx.AsyncClient, broker: str, run_program: Any
) -> None:
    """After its executor has stopped, 503 carries last_seen as an instant of RFC 3339."""
    flags = ("--broker", broker, "--cluster-id", "east", "--token", "the-token-of-east", "--kubectl", "/bin/echo")
    with run_program("openline-executor", *flags) as executor:
        executor.until("connection.opened")
        assert (await api.get("/cluster/east/status")).json()["is_connected"] is True
        executor.stop()
    problem = (await api.post("/debug/execute", json={"cluster_id": "east"})).json()
    assert problem["reason"] == "CLUSTER_OFFLINE"
    assert problem["last_seen"].endswith("Z")
    assert datetime.fromisoformat(problem["last_seen"]).year >= 2024
