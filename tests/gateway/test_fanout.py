"""/v1/fanout: one command on many clusters, in front of the real broker and of one that keeps to a script."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gateway import fanning
from gateway.requests import FANOUT_BYTES
from openline.errors import error
from openline.ids import new_id
from openline.reasons import Reason
from openline.v1 import cluster_service_pb2, command_pb2, executor_service_pb2
from openline.v1 import command_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")

POST = "/v1/fanout"
ACCEPT = {"Accept": "text/event-stream"}
ARGV = ["get", "pods"]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def by_name(frame: pb.CallerFrame, say: Any) -> None:
    """What the cluster is called says what comes of it."""
    name, command_id = frame.execute.cluster_id, frame.execute.command_id
    if name.startswith("offline"):
        await say.reply(error=error(Reason.CLUSTER_OFFLINE, "not connected", retry_after_s=1))
        return
    result = command_pb2.CommandResult(command_id=command_id, outcome=command_pb2.OUTCOME_EXITED, stdout=b"v1\n")
    if name.startswith("other"):
        result.stdout = b"v2\n"
    if name.startswith("slow"):
        result.outcome, result.stdout = command_pb2.OUTCOME_TIMED_OUT, b"so far"
        result.error.CopyFrom(error(Reason.COMMAND_TIMEOUT, "out of time"))
    await say.reply(response=pb.ExecuteResponse(result=result))


async def silent(_frame: pb.CallerFrame, _say: Any) -> None:
    await asyncio.sleep(60)


def cluster(cluster_id: str, **labels: str) -> cluster_service_pb2.Cluster:
    capabilities = executor_service_pb2.Capabilities(labels=labels)
    executor = cluster_service_pb2.ConnectedExecutor(executor_id="e", capabilities=capabilities)
    return cluster_service_pb2.Cluster(cluster_id=cluster_id, connected=True, executors=[executor])


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    parts = [part.split("\n") for part in text.split("\n\n") if part.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


async def test_one_cluster_that_is_there_and_one_that_is_not(api: httpx.AsyncClient) -> None:
    """Through the real broker: an answer and a problem, side by side."""
    response = await api.post(POST, json={"clusters": ["local", "west", "nowhere"], "argv": ARGV})
    told = response.json()
    assert response.status_code == 200
    assert told["summary"] == "1 cluster answered; 2 failed: west (CLUSTER_OFFLINE), nowhere (CLUSTER_UNKNOWN)"
    [group] = told["groups"]
    assert (group["clusters"], group["output"], group["exit_code"]) == (["local"], "get\npods\n", 0)
    [result] = told["results"]
    assert (result["cluster_id"], result["success"]) == ("local", True)
    assert result["executor_id"]
    assert result["timings"]["run_ms"] > 0
    found = (await api.get(f"/v1/commands/{result['command_id']}")).json()
    assert (found["stdout"], found["digest"]) == (group["output"], result["digest"])
    offline, unknown = told["problems"]
    assert (offline["cluster_id"], offline["status"], offline["executed"], offline["retryable"]) == (
        "west", 503, "no", True,
    )  # fmt: skip
    assert offline["retry_after_s"] >= 1
    assert (unknown["retry_after_s"], unknown["detail"].startswith("Cluster 'nowhere' not found")) == (None, True)
    assert (unknown["cluster_id"], unknown["status"], unknown["executed"]) == ("nowhere", 404, "no")


async def test_40_clusters_are_said_in_a_sentence(stage: Any) -> None:
    """38 the same, 2 differ."""
    names = [f"same-{n}" for n in range(38)] + ["other-1", "other-2"]
    async with stage(by_name) as scene:
        told = (await scene.api.post(POST, json={"clusters": names, "argv": ARGV})).json()
    assert told["summary"] == "38 clusters the same, 2 differ"
    assert [(len(group["clusters"]), group["output"]) for group in told["groups"]] == [(38, "v1\n"), (2, "v2\n")]
    assert [result["cluster_id"] for result in told["results"]] == names
    assert (told["problems"], told["labels_unknown"]) == ([], [])


async def test_a_cluster_that_runs_out_of_time_is_nothing_to_the_others(stage: Any) -> None:
    """A problem with its output so far, and `executed` says that it ran."""
    body = {"clusters": ["slow-1", "same-1"], "argv": ARGV, "timeout_seconds": 2}
    async with stage(by_name) as scene:
        told = (await scene.api.post(POST, json=body)).json()
        assert all(1 < frame.execute.timeout_s <= 2 for frame in scene.broker.asked)
    [problem] = told["problems"]
    assert (problem["cluster_id"], problem["status"], problem["executed"]) == ("slow-1", 504, "yes")
    assert problem["stdout"] == "so far"
    assert [group["clusters"] for group in told["groups"]] == [["same-1"]]


async def test_groups_are_of_what_is_shown(stage: Any) -> None:
    """Outputs that differ only in what was left out are the same."""

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        stdout = f"age of {frame.execute.cluster_id}\nimage web:7\n".encode()
        result = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, stdout=stdout)
        await say.reply(response=pb.ExecuteResponse(result=result))

    async with stage(script) as scene:
        told = (await scene.api.post(POST, json={"clusters": ["a", "b"], "argv": ARGV, "grep": "image"})).json()
    [group] = told["groups"]
    assert (sorted(group["clusters"]), group["output"]) == (["a", "b"], "image web:7\n")
    assert group["shaping"]["stdout"]["left_out_by_grep"]["lines"] == 1
    assert len({result["digest"] for result in told["results"]}) == 2


async def test_answers_come_as_they_are_there(stage: Any) -> None:
    """Events, of which the last sums up, without the output that was told."""
    others = asyncio.Event()

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        if frame.execute.cluster_id == "same-1":
            await others.wait()
        await by_name(frame, say)

    text = ""
    async with stage(script) as scene:
        body = {"clusters": ["same-1", "other-1", "offline-1"], "argv": ARGV}
        async with scene.api.stream("POST", POST, json=body, headers=ACCEPT) as response:
            async for piece in response.aiter_text():
                text += piece
                if len(events_of(text)) == 2:
                    others.set()
    assert response.headers["Content-Type"].startswith("text/event-stream")
    told = events_of(text)
    assert [name for name, _ in told][2:] == ["result", "summary"]
    assert {(name, data["cluster_id"]) for name, data in told[:3]} == {
        ("result", "other-1"), ("error", "offline-1"), ("result", "same-1"),
    }  # fmt: skip
    assert told[2][1]["stdout"] == "v1\n"
    summed = told[3][1]
    assert summed["summary"] == "2 clusters, each different; 1 failed: offline-1 (CLUSTER_OFFLINE)"
    assert {group["output"] for group in summed["groups"]} == {None}


@pytest.mark.parametrize("headers", [{}, ACCEPT], ids=["together", "events"])
@pytest.mark.parametrize(("key", "status"), [("wrong", 401), ("read-key", 403)])
async def test_a_key_that_may_not_is_a_problem(
    api: httpx.AsyncClient, headers: dict[str, str], key: str, status: int
) -> None:
    """Of its own, not one for each cluster, also where the answers would be events."""
    body = {"clusters": ["local", "west", "east"], "argv": ["get", "pods"]}
    response = await api.post(POST, json=body, headers=headers | {"X-API-Key": key})
    assert (response.status_code, response.json()["status"]) == (status, status)
    assert response.headers["Content-Type"] == "application/problem+json"


async def test_the_head_of_events_does_not_wait_for_a_slow_cluster(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent after a moment, and answers come when they are there."""
    monkeypatch.setattr("gateway.fanout.HEAD_WAIT_S", 0.05)
    slow = asyncio.Event()

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        await slow.wait()
        await by_name(frame, say)

    async with stage(script) as scene:
        body = {"clusters": ["same-1", "same-2"], "argv": ARGV}
        async with scene.api.stream("POST", POST, json=body, headers=ACCEPT) as response:
            assert response.status_code == 200
            slow.set()
            await response.aread()
    assert [name for name, _ in events_of(response.text)] == ["result", "result", "summary"]


async def test_so_many_at_a_time(stage: Any) -> None:
    """The rest wait their turn; each has its time for itself."""
    open_now, most = 0, 0
    full = asyncio.Event()

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        if open_now == fanning.AT_A_TIME:
            full.set()
        await full.wait()
        # In which one too many would show.
        await asyncio.sleep(0.02)
        open_now -= 1
        await by_name(frame, say)

    async with stage(script) as scene:
        told = (await scene.api.post(POST, json={"clusters": [f"c{n}" for n in range(200)], "argv": ARGV})).json()
        limits = {frame.execute.output_limits.max_bytes for frame in scene.broker.asked}
    assert (told["summary"], most) == ("all 200 clusters the same", fanning.AT_A_TIME)
    assert limits == {FANOUT_BYTES // 200}, "all of their output is here at one time"


@pytest.mark.parametrize("headers", [{}, ACCEPT])
async def test_a_caller_that_leaves_leaves_nothing_behind(stage: Any, headers: dict[str, str]) -> None:
    """Every call is abandoned, and what waited its turn is never asked."""
    async with stage(silent) as scene:
        body = {"clusters": [f"c{n}" for n in range(120)], "argv": ARGV}
        call = asyncio.create_task(scene.api.post(POST, json=body, headers=headers))
        await until(lambda: len(scene.broker.asked) == fanning.AT_A_TIME)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: len(scene.broker.abandoned) == fanning.AT_A_TIME)
        assert scene.open_calls == 0
        await until(lambda: not {t.get_name() for t in asyncio.all_tasks()} & {"fanout", "events-ping", "caller-watch"})
        assert len(scene.broker.asked) == fanning.AT_A_TIME


async def test_a_key_holds_for_each_cluster(api: httpx.AsyncClient) -> None:
    """The same fan-out again is the same commands, and says so."""
    body = {"clusters": ["local"], "argv": ["get", "unique"]}
    headers = {"Idempotency-Key": new_id()}
    first, second = [await api.post(POST, json=body, headers=headers) for _ in range(2)]
    assert first.json()["groups"] == second.json()["groups"]
    assert first.json()["results"][0]["command_id"] == second.json()["results"][0]["command_id"]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"


async def test_keys_of_clusters_differ(stage: Any) -> None:
    """A broker knows a key by its owner alone."""
    async with stage(by_name) as scene:
        headers = {"Idempotency-Key": "i"}
        await scene.api.post(POST, json={"clusters": ["a", "b"], "argv": ARGV}, headers=headers)
        keys = {frame.execute.cluster_id: frame.execute.idempotency_key for frame in scene.broker.asked}
    assert len(set(keys.values())) == 2
    assert "i" not in keys.values()


async def test_a_selector_chooses_by_labels(stage: Any) -> None:
    """Over all pages; and says of whom nobody knows."""
    async with stage(by_name) as scene:
        fleet = [cluster(f"c{n:02}", env="prod" if n % 2 else "dev") for n in range(30)]
        scene.broker.fleet.clusters = [*fleet, cluster_service_pb2.Cluster(cluster_id="gone")]
        told = (await scene.api.post(POST, json={"selector": "env=prod", "argv": ARGV})).json()
        none = (await scene.api.post(POST, json={"selector": "env=test", "argv": ARGV})).json()
    assert told["groups"][0]["clusters"] == [f"c{n:02}" for n in range(1, 30, 2)]
    assert told["labels_unknown"] == ["gone"]
    assert (none["summary"], none["groups"]) == ("no cluster was asked", [])


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "clusters"),
        ({"clusters": ["a"], "selector": "x"}, "clusters"),
        ({"clusters": []}, "clusters"),
        ({"clusters": [f"c{n}" for n in range(201)]}, "clusters"),
        ({"clusters": ["No Such"]}, "clusters"),
        ({"selector": ","}, "selector"),
        ({"clusters": ["a"], "argv": None}, "argv"),
        ({"clusters": ["a"], "grep": "("}, "grep"),
        ({"clusters": ["a"], "timeout_seconds": 0}, "timeout_seconds"),
    ],
)
async def test_what_is_not_valid_is_422(stage: Any, body: dict[str, Any], named: str) -> None:
    """Before anything runs anywhere."""
    async with stage(by_name) as scene:
        response = await scene.api.post(POST, json={"argv": ARGV, **body})
        assert scene.broker.asked == []
    assert (response.status_code, response.json()["errors"][0]["loc"][1]) == (422, named)


async def test_a_selector_that_fits_too_many_is_422(stage: Any) -> None:
    """And says how many they are."""
    async with stage(by_name) as scene:
        scene.broker.fleet.clusters = [cluster(f"c{n:03}", env="prod") for n in range(201)]
        response = await scene.api.post(POST, json={"argv": ARGV, "selector": "env"})
    assert (response.status_code, "201 clusters" in response.json()["detail"]) == (422, True)


async def test_a_wrong_key_is_401(api: httpx.AsyncClient) -> None:
    """Not a 200 in which everything failed."""
    response = await api.post(POST, json={"clusters": ["local"], "argv": ARGV}, headers={"X-API-Key": "nope"})
    assert (response.status_code, response.json()["detail"]) == (401, "Invalid API key")


# The kill switch


@pytest.mark.parametrize("headers", [{}, ACCEPT], ids=["together", "events"])
async def test_the_end_of_a_conversation_is_that_of_its_fan_outs(
    broker: Any, cluster: str, serve_gateway: Any, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """What runs is stopped, and what waits for its turn is not begun. Asked for again, it is: nothing is forbidden."""
    monkeypatch.setattr(fanning, "AT_A_TIME", 1)
    told = new_id()
    body = {"clusters": [cluster, "west", "east"], "argv": ["get", "slow"], "correlation_id": told}
    headers = headers | {"Idempotency-Key": new_id()}
    async with serve_gateway(broker) as (address, _), client_of(address) as api:
        asked = asyncio.create_task(api.post(POST, json=body, headers=headers))
        await kill(api, "/v1/commands:cancel", {"correlation_id": told, "reason": "nobody waits"})
        problems = problems_of(await asked)
        assert {name: (each["status"], each["executed"], each["detail"]) for name, each in problems.items()} == {
            cluster: (499, "yes", "nobody waits"),
            "west": (499, "no", "nobody waits"),
            "east": (499, "no", "nobody waits"),
        }
        assert problems[cluster]["cancelled_with"] == "conversation"
        again = problems_of(await api.post(POST, json=body, headers=headers))
        assert {name: each["reason"] for name, each in again.items()} == {
            cluster: "CANCELLED", "west": "CLUSTER_OFFLINE", "east": "CLUSTER_OFFLINE",
        }  # fmt: skip


@pytest.mark.parametrize("way", ["alone", "cluster"])
async def test_the_end_of_less_is_nothing_to_the_others(
    broker: Any, cluster: str, serve_gateway: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Of one command, or of all that runs in its cluster."""
    monkeypatch.setattr(fanning, "AT_A_TIME", 1)
    told = new_id()
    body = {"clusters": [cluster, "west"], "argv": ["get", "slow"], "correlation_id": told}
    async with serve_gateway(broker) as (address, _), client_of(address) as api:
        asked = asyncio.create_task(api.post(POST, json=body, headers={"Cache-Control": "no-cache"}))
        if way == "alone":
            [command] = await running(api, told)
            await api.delete(f"/v1/commands/{command['command_id']}")
        else:
            await running(api, told)
            await kill(api, "/admin/cancel", {"cluster_id": cluster})
        reasons = {name: each["reason"] for name, each in problems_of(await asked).items()}
        assert reasons == {cluster: "CANCELLED", "west": "CLUSTER_OFFLINE"}


async def test_what_the_kill_switch_did_not_meet_is_cancelled(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was begun a moment later: whoever runs the fan-out cancels it, for the same reason."""
    monkeypatch.setattr(fanning, "AT_A_TIME", 2)
    stopped = asyncio.Event()

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        if frame.HasField("cancel"):
            stopped.set()
            await say.reply(cancelled={"state": command_pb2.COMMAND_STATE_RUNNING})
            return
        more = {"cancelled_with": "owner"}
        if frame.execute.cluster_id == "later":
            await stopped.wait()
            more = {}
        why = error(Reason.CANCELLED, "it ran away", metadata=more)
        await say.reply(response={"result": {"outcome": command_pb2.OUTCOME_CANCELLED, "error": why}})

    async with stage(script) as scene:
        await scene.api.post(POST, json={"clusters": ["later", "killed", "never"], "argv": ARGV})
        asked = [frame.execute for frame in scene.broker.asked if frame.HasField("execute")]
        assert [each.cluster_id for each in asked] == ["later", "killed"]
        cancels = [frame.cancel for frame in scene.broker.asked if frame.HasField("cancel")]
        assert [(each.command_id, each.why) for each in cancels] == [
            (asked[0].command_id, "with its fan-out: it ran away")
        ]


def client_of(address: str) -> httpx.AsyncClient:
    headers = {"X-API-Key": "test-key"}
    return httpx.AsyncClient(base_url=f"http://{address}", headers=headers, timeout=60, trust_env=False)


def problems_of(answer: httpx.Response) -> dict[str, dict[str, Any]]:
    """By cluster."""
    if answer.headers["Content-Type"].startswith("text/event-stream"):
        return {data["cluster_id"]: data for name, data in events_of(answer.text) if name == "error"}
    return {each["cluster_id"]: each for each in answer.json()["problems"]}


async def running(api: httpx.AsyncClient, told: str) -> list[dict[str, Any]]:
    """The commands of the conversation, once one of them runs."""
    async with asyncio.timeout(20):
        while True:
            listed = (await api.get("/v1/commands", params={"correlation_id": told})).json().get("commands", [])
            if any(each["state"] == "running" for each in listed):
                return list(listed)
            await asyncio.sleep(0.02)


async def kill(api: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    """Once there is something to be stopped, and it runs."""
    if "correlation_id" in body:
        await running(api, body["correlation_id"])
    assert (await api.post(path, json=body)).json()["cancelled"] == 1
