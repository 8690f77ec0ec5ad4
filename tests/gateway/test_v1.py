"""/v1/clusters and /v1/sessions, and the capabilities of the drop-in surface."""

from typing import Any

import httpx
import pytest

from openline.v1 import cluster_service_pb2, executor_service_pb2

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_clusters_are_listed(api: httpx.AsyncClient) -> None:
    """With who is connected."""
    page = (await api.get("/v1/clusters")).json()
    assert [cluster["cluster_id"] for cluster in page["clusters"]] == ["east", "local", "west"]
    assert (page["count"], page["next_page_token"]) == (3, None)
    assert {cluster["cluster_id"]: cluster["is_connected"] for cluster in page["clusters"]}["local"] is True


async def test_clusters_come_in_pages(api: httpx.AsyncClient) -> None:
    """Each once."""
    seen: list[str] = []
    query: dict[str, str | int] = {"page_size": 2}
    while True:
        page = (await api.get("/v1/clusters", params=query)).json()
        seen += [cluster["cluster_id"] for cluster in page["clusters"]]
        if page["next_page_token"] is None:
            break
        query["page_token"] = page["next_page_token"]
    assert seen == ["east", "local", "west"]


async def test_a_cluster_is_shown(api: httpx.AsyncClient) -> None:
    """Its activity, its executors, what they can do, and which replicas have them."""
    await api.post("/v1/clusters/local/commands", json={"argv": ["get", "pods"]})
    cluster = (await api.get("/v1/clusters/local")).json()
    assert (cluster["is_connected"], cluster["is_active"]) == (True, True)
    assert 1 <= cluster["active_for_seconds"] <= 60
    [executor] = cluster["executors"]
    assert "get" in executor["verbs"]
    assert executor["max_concurrency"] >= 1
    assert cluster["replicas"] == [executor["replica_id"]]
    assert executor["versions"]["executor"]
    assert executor["versions"]["protocol"] == 1


async def test_labels_are_those_of_all_executors(stage: Any) -> None:
    """Where two differ, one of them is believed, always the same."""

    def executor(executor_id: str, replica_id: str, **labels: str) -> cluster_service_pb2.ConnectedExecutor:
        capabilities = executor_service_pb2.Capabilities(labels=labels)
        return cluster_service_pb2.ConnectedExecutor(
            executor_id=executor_id, replica_id=replica_id, capabilities=capabilities
        )

    executors = [executor("b", "r2", env="dev", zone="1"), executor("a", "r1", env="prod")]

    async def nothing(_frame: Any, _say: Any) -> None:
        pass

    async with stage(nothing) as scene:
        scene.broker.fleet.clusters = [
            cluster_service_pb2.Cluster(cluster_id="c", executors=executors, more_executors=3)
        ]
        shown = (await scene.api.get("/v1/clusters/c")).json()
        status = (await scene.api.get("/cluster/c/status")).json()
    assert shown["labels"] == {"env": "prod", "zone": "1"}
    assert shown["replicas"] == ["r1", "r2"]
    assert [executor["executor_id"] for executor in shown["executors"]] == ["a", "b"]
    assert (shown["more_executors"], status["executors"]) == (3, 5)


@pytest.mark.parametrize("cluster_id", ["nowhere", "No_Where"])
async def test_a_cluster_that_is_not_is_404(api: httpx.AsyncClient, cluster_id: str) -> None:
    """With those that are."""
    response = await api.get(f"/v1/clusters/{cluster_id}")
    assert (response.status_code, response.json()["reason"]) == (404, "CLUSTER_UNKNOWN")
    assert "east, local, west" in response.json()["detail"]


@pytest.mark.parametrize("query", ["page_size=0", "page_size=1001", "page_size=x", "page_token=" + "x" * 254])
async def test_a_page_has_bounds(api: httpx.AsyncClient, query: str) -> None:
    """422 beyond them."""
    assert (await api.get(f"/v1/clusters?{query}")).status_code == 422


async def test_a_session_lives_on_v1(api: httpx.AsyncClient) -> None:
    """Made, shown where Location says, used, and ended."""
    made = await api.post("/v1/sessions", json={"cluster_id": "local", "ttl_seconds": 60, "user_id": "u"})
    session = made.json()
    assert (made.status_code, made.headers["Location"]) == (201, f"/v1/sessions/{session['session_id']}")
    assert (session["status"], session["user_id"], session["ttl_seconds"]) == ("active", "u", 60)
    body = {"argv": ["get", "pods"], "session_id": session["session_id"]}
    ran = (await api.post("/v1/clusters/local/commands", json=body)).json()
    assert ran["session_id"] == session["session_id"]
    assert (await api.get(made.headers["Location"])).json()["session_id"] == session["session_id"]
    assert (await api.delete(made.headers["Location"])).status_code == 204
    gone = await api.get(made.headers["Location"])
    assert (gone.status_code, gone.json()["reason"]) == (404, "SESSION_UNKNOWN")


async def test_what_cannot_be_a_session_is_404(api: httpx.AsyncClient) -> None:
    """As any other that is not there."""
    for method in ("GET", "DELETE"):
        response = await api.request(method, "/v1/sessions/two%20words")
        assert (response.status_code, response.json()["reason"]) == (404, "SESSION_UNKNOWN")


async def test_capabilities(api: httpx.AsyncClient) -> None:
    """Three keys, as the old API has them; of a cluster that is not there, that it is not available."""
    local = (await api.get("/api/v1/clusters/local/capabilities")).json()
    assert (local["clusterId"], local["available"], "get" in local["capabilities"]["verbs"]) == ("local", True, True)
    for cluster_id in ("west", "nowhere", "No_Where"):
        response = await api.get(f"/api/v1/clusters/{cluster_id}/capabilities")
        assert response.status_code == 200
        assert response.json() == {"clusterId": cluster_id, "capabilities": None, "available": False}


@pytest.mark.parametrize(
    "path", ["/v1/clusters", "/v1/clusters/local", "/v1/sessions/x", "/api/v1/clusters/local/capabilities"]
)
async def test_a_key_is_needed(api: httpx.AsyncClient, path: str) -> None:
    """401 without one and with a wrong one."""
    assert (await api.get(path, headers={"X-API-Key": ""})).status_code == 401
    assert (await api.get(path, headers={"X-API-Key": "nope"})).status_code == 401
