"""/v1/clusters/{id}/commands:validate, in front of a real executor and of ones that only say what they allow."""

from typing import Any

import httpx
import pytest

from openline.policy import Policy, Selection
from openline.policy.wire import capabilities_of
from openline.v1 import cluster_service_pb2

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOCAL = "/v1/clusters/local/commands:validate"


def cluster_with(*policies: Policy | None) -> cluster_service_pb2.Cluster:
    """Its executors, one for each policy; None for one that does not say."""
    executors = [
        cluster_service_pb2.ConnectedExecutor(
            executor_id=f"e{index}", capabilities=None if policy is None else capabilities_of(policy)
        )
        for index, policy in enumerate(policies)
    ]
    return cluster_service_pb2.Cluster(cluster_id="local", connected=True, executors=executors)


async def test_what_would_run_is_shown(api: httpx.AsyncClient) -> None:
    """As it would run, in either form of the body; nothing runs, and a key that may only read is enough."""
    for body in ({"argv": ["get", "pods", "-nshop"]}, {"command": "kubectl -n shop get pods"}):
        answer = await api.post(LOCAL, json=body, headers={"X-API-Key": "read-key"})
        assert (answer.status_code, answer.json()) == (
            200,
            {
                "allowed": True,
                "rule": None,
                "detail": None,
                "instead": None,
                "nearest": None,
                "next_step": None,
                "argv": ["get", "pods", "--namespace=shop", "--request-timeout=10s"],
                "policy": "cluster",
            },
        )


async def test_a_denial_says_the_rule_and_what_is_allowed(api: httpx.AsyncClient) -> None:
    answer = (await api.post(LOCAL, json={"argv": ["get", "secrets"]})).json()
    assert (answer["allowed"], answer["rule"], answer["argv"]) == (False, "resource", None)
    assert answer["detail"] == "'secrets' may not be read here"
    assert answer["instead"].startswith("every type but secrets, ")


async def test_it_is_what_the_executor_answers(api: httpx.AsyncClient) -> None:
    """The same rule and the same words when it is run."""
    for argv in (["delete", "pods"], ["get", "pods", "-w"], ["get", "pods", "--token=x"], ["rollout", "undo", "x"]):
        said = (await api.post(LOCAL, json={"argv": argv})).json()
        ran = await api.post("/v1/clusters/local/commands", json={"argv": argv})
        assert (ran.status_code, ran.json()["reason"], ran.json()["executed"]) == (403, "POLICY_DENIED", "no")
        assert (said["detail"], said["instead"]) == (ran.json()["detail"], ran.json()["allowed"])
        assert ran.json()["rule"] == said["rule"]


async def test_who_reads_along_may_follow(api: httpx.AsyncClient) -> None:
    asked = {"argv": ["logs", "-f", "web-0"]}
    assert (await api.post(LOCAL, json=asked)).json()["rule"] == "streaming"
    streamed = (await api.post(LOCAL, json=asked, headers={"Accept": "text/event-stream"})).json()
    assert streamed["argv"] == ["logs", "web-0", "--follow=true", "--request-timeout=10s"]


async def test_a_cluster_is_judged_by_what_its_executors_say(stage: Any) -> None:
    """By the strictest of them, since any may get the command; what each allows is shown."""
    narrow = Policy(verbs=("get",), namespaces=Selection(allow=("shop",)))

    async def nothing(_frame: Any, _say: Any) -> None:
        pass

    async with stage(nothing) as scene:

        async def rule(*argv: str) -> str | None:
            answer = (await scene.api.post(LOCAL, json={"argv": argv})).json()
            return str(answer["rule"] or answer["policy"])

        scene.broker.fleet.clusters = [cluster_with(Policy(), narrow)]
        assert await rule("get", "pods", "-n", "shop") == "cluster"
        assert await rule("get", "pods", "-n", "web") == "namespace"
        assert await rule("version") == "verb"
        shown = (await scene.api.get("/v1/clusters/local")).json()["executors"]
        assert [executor["policy"]["namespaces"]["allowed"] for executor in shown] == [None, ["shop"]]
        assert shown[0]["policy"]["digest"] != shown[1]["policy"]["digest"]
        old = (await scene.api.get("/api/v1/clusters/local/capabilities")).json()["capabilities"]
        assert old["policy"] == shown[0]["policy"]

        scene.broker.fleet.clusters = [cluster_with(None)]
        assert await rule("version") == "default"
        assert (await scene.api.get("/v1/clusters/local")).json()["executors"][0]["policy"] is None


async def test_an_absent_cluster_is_judged_by_the_default(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/clusters/west/commands:validate", json={"argv": ["get", "pods"]})
    assert (answer.status_code, answer.json()["allowed"], answer.json()["policy"]) == (200, True, "default")


@pytest.mark.parametrize("cluster_id", ["nowhere", "No_Where"])
async def test_an_unknown_cluster_is_404(api: httpx.AsyncClient, cluster_id: str) -> None:
    answer = await api.post(f"/v1/clusters/{cluster_id}/commands:validate", json={"argv": ["get", "pods"]})
    assert (answer.status_code, answer.json()["reason"]) == (404, "CLUSTER_UNKNOWN")


@pytest.mark.parametrize(
    "body", [{}, {"argv": []}, {"argv": ["get"], "command": "get"}, {"argv": "get"}, {"command": "'"}]
)
async def test_a_malformed_body_is_422(api: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await api.post(LOCAL, json=body)).status_code == 422


async def test_a_key_is_needed(api: httpx.AsyncClient) -> None:
    assert (await api.post(LOCAL, json={"argv": ["get"]}, headers={"X-API-Key": "nope"})).status_code == 401
