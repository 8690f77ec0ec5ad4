"""A conversation over REST: its commands in order, its end, what it is told when it repeats itself, and refusals that
say what to do next; through the real broker and executor.
"""

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.stubs import Stubs
from openline.errors import OpenlineError
from openline.ids import new_id
from openline.next_steps import NEXT_STEPS
from openline.reasons import Reason
from openline.v1.command_service_pb2 import COMMAND_ORDER_OLDEST_FIRST, ListCommandsRequest, ListCommandsResponse

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE_S = 20.0
OTHER = {"X-API-Key": "other-key"}
READER = {"X-API-Key": "read-key"}
UNFINISHED = ("queued", "forwarded", "written", "accepted", "running")
Json = dict[str, Any]


async def run(api: httpx.AsyncClient, *argv: str, headers: dict[str, str] | None = None, **fields: Any) -> Json:
    body = {"argv": list(argv) or ["get", "pods"], **fields}
    answer = await api.post("/v1/clusters/local/commands", json=body, headers=headers)
    return dict(answer.json())


async def listed(api: httpx.AsyncClient, path: str, *command_ids: str) -> list[Json]:
    """The commands on the list, once they are these and done: they are written down behind the answers."""
    done = [(command_id, "done") for command_id in command_ids]
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page = (await api.get(path)).json()
            if [(command["command_id"], command["state"]) for command in page.get("commands", [])] == done:
                return list(page["commands"])
            await asyncio.sleep(0.05)


async def in_state(api: httpx.AsyncClient, told: str, count: int, *states: str) -> None:
    """Once so many commands of the conversation are in one of these."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page = (await api.get("/v1/commands", params={"correlation_id": told})).json()
            if sum(command["state"] in states for command in page.get("commands", [])) == count:
                return
            await asyncio.sleep(0.05)


# In order


@pytest.mark.parametrize("by", ["correlation id", "session"])
async def test_it_is_read_from_its_beginning(api: httpx.AsyncClient, by: str) -> None:
    """In pages, with all that it takes to follow it: what was asked, when, for how long, and what came of it."""
    told = new_id()
    session_id = (await api.post("/v1/sessions", json={"cluster_id": "local"})).json()["session_id"]
    belongs = {"session_id": session_id, "correlation_id": told}
    names = [(await run(api, "get", word, **belongs))["command_id"] for word in ("pods", "fail", "both")]
    path = f"/v1/sessions/{session_id}/commands?" if by == "session" else f"/v1/commands?correlation_id={told}&"
    found = await listed(api, f"{path}order=oldest", *names)
    await listed(api, path, *names[::-1])
    await listed(api, f"{path}order=newest", *names[::-1])
    assert [command["argv"] for command in found] == [["get", "pods"], ["get", "fail"], ["get", "both"]]
    assert [(c["state"], c["outcome"], c["exit_code"]) for c in found][1] == ("done", "exited", 1)
    for command in found:
        assert (command["session_id"], command["correlation_id"]) == (session_id, told)
        assert command["timings"]["total_ms"] > 0
    assert [command["created_at"] for command in found] == sorted(command["created_at"] for command in found)
    seen, cursor = [], ""
    for _ in range(3):
        page = (await api.get(f"{path}order=oldest&limit=1&cursor={cursor}")).json()
        seen += [command["command_id"] for command in page["commands"]]
        cursor = page["next_cursor"]
    assert (seen, cursor) == (names, None)


async def test_an_order_that_is_none(api: httpx.AsyncClient) -> None:
    assert (await api.get("/v1/commands?order=shuffled")).status_code == 422


async def test_a_broker_of_before_is_not_believed_to_have_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor those of another owner: it has the key's own, newest first, whatever is asked, and does not say."""

    async def ask(*_arguments: Any, **_named: Any) -> ListCommandsResponse:
        return ListCommandsResponse()

    monkeypatch.setattr(Stubs, "_ask", ask)
    stubs, caller = Stubs(None), None  # type: ignore[arg-type]
    assert await stubs.list_commands(ListCommandsRequest(), caller) == ListCommandsResponse()  # type: ignore[arg-type]
    for beyond in (ListCommandsRequest(order=COMMAND_ORDER_OLDEST_FIRST), ListCommandsRequest(owner="you")):
        with pytest.raises(OpenlineError) as refused:
            await stubs.list_commands(beyond, caller)  # type: ignore[arg-type]
        assert refused.value.reason is Reason.NOT_BUILT


async def test_an_admin_reads_that_of_another_owner(api: httpx.AsyncClient) -> None:
    """By its name, as it can be ended; for all others it is empty."""
    told = new_id()
    his = (await run(api, correlation_id=told, headers=OTHER))["command_id"]
    await listed(api, f"/v1/commands?correlation_id={told}&owner=you", his)
    assert (await api.get("/v1/commands", params={"correlation_id": told})).json()["commands"] == []
    mine = (await run(api, correlation_id=told))["command_id"]
    await listed(api, f"/v1/commands?correlation_id={told}&owner=me", mine)
    page = await api.get("/v1/commands", params={"correlation_id": told, "owner": "me"}, headers=OTHER)
    assert (page.status_code, page.json()["commands"]) == (200, [])


# What ties it together

WAYS: dict[str, tuple[str, Json, dict[str, str]]] = {
    "drop-in": ("/debug/execute", {"cluster_id": "local", "args": ["pods"]}, {}),
    "drop-in, strict": ("/debug/execute", {"cluster_id": "local", "args": ["pods"]}, {"Prefer": "handling=strict"}),
    "drop-in, events": ("/debug/execute", {"cluster_id": "local", "args": ["pods"]}, {"Accept": "text/event-stream"}),
    "drop-in, async": ("/debug/execute/async", {"cluster_id": "local", "args": ["pods"]}, {}),
    "v1": ("/v1/clusters/local/commands", {"argv": ["get", "pods"]}, {}),
    "v1, events": ("/v1/clusters/local/commands", {"argv": ["get", "pods"]}, {"Accept": "text/event-stream"}),
    "v1, async": ("/v1/clusters/local/commands", {"argv": ["get", "pause"]}, {"Prefer": "respond-async, wait=0"}),
    "fan-out": ("/v1/fanout", {"clusters": ["local"], "argv": ["get", "pods"]}, {}),
    "fan-out, events": (
        "/v1/fanout",
        {"clusters": ["local"], "argv": ["get", "pods"]},
        {"Accept": "text/event-stream"},
    ),
}


@pytest.mark.parametrize("place", ["header", "body", "both"])
@pytest.mark.parametrize("way", WAYS)
async def test_every_way_to_run_takes_a_correlation_id_and_no_session(
    api: httpx.AsyncClient, way: str, place: str
) -> None:
    """From the header or the body, of which the header wins; it is echoed, and the command is listed under it."""
    path, body, headers = WAYS[way]
    told = f"c-{new_id()}"
    if place != "header":
        body = {**body, "correlation_id": told if place == "body" else "another"}
    if place != "body":
        headers = {**headers, "X-Correlation-ID": told}
    answer = await api.post(path, json=body, headers=headers)
    assert answer.is_success
    assert answer.headers["X-Correlation-ID"] == told
    async with asyncio.timeout(PATIENCE_S):
        while not (found := (await api.get("/v1/commands", params={"correlation_id": told})).json().get("commands")):
            await asyncio.sleep(0.05)
    [command] = found
    assert (command["correlation_id"], command["session_id"]) == (told, None)


# Its end


async def test_a_caller_ends_its_own_conversation(api: httpx.AsyncClient) -> None:
    """All of it that runs, each with its output so far; neither another one nor somebody else's."""
    told = f"incident {new_id()}"  # as it travels, it is percent-encoded
    slow: Json = {"argv": ["get", "slow"], "timeout_seconds": 60}
    path = "/v1/clusters/local/commands"
    apart = {"Cache-Control": "no-cache"}
    mine = [asyncio.create_task(api.post(path, json={**slow, "correlation_id": told}, headers=apart)) for _ in range(2)]
    his = asyncio.create_task(api.post(path, json={**slow, "correlation_id": told}, headers=OTHER))
    await in_state(api, told, 2, "running")
    body = {"correlation_id": told, "reason": "nobody waits"}
    assert (await api.post("/v1/commands:cancel", json={**body, "correlation_id": "x"})).json()["cancelled"] == 0
    answer = await api.post("/v1/commands:cancel", json=body, headers={"X-Correlation-ID": "the operator's own"})
    assert (answer.status_code, answer.json()) == (
        200,
        {"cancelled": 2, "incomplete": False, "unreached_replica_ids": []},
    )
    for call in mine:
        problem = (await call).json()
        assert (problem["status"], problem["reason"], problem["detail"]) == (499, "CANCELLED", "nobody waits")
        assert problem["next_step"] == NEXT_STEPS[Reason.CANCELLED]
    assert not his.done()
    # An admin ends that of another owner, by its name as it was told back.
    spoken = {"correlation_id": told.replace(" ", "%20"), "owner": "you", "reason": "it ran away"}
    async with asyncio.timeout(PATIENCE_S):
        while (await api.post("/admin/cancel", json=spoken)).json()["cancelled"] != 1:
            await asyncio.sleep(0.05)
    assert (await his).json()["detail"] == "it ran away"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "why"},
        {"session_id": "s", "correlation_id": "c"},
        {"correlation_id": ""},
        {"session_id": "two words"},
        {"correlation_id": "c", "reason": "two\nlines"},
        {"owner": "you"},
        {"correlation_id": "c", "owner": "you"},
        {"correlation_id": "c", "cluster_id": "local"},
    ],
)
async def test_nothing_is_ended_by_mistake(api: httpx.AsyncClient, body: Json) -> None:
    answer = await api.post("/v1/commands:cancel", json=body)
    assert (answer.status_code, answer.json()["reason"]) == (422, "INVALID_COMMAND")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"correlation_id": ""}, "body.correlation_id: String should have at least 1 character"),
        ({"session_id": "s", "reason": "x" * 201}, "body.reason: String should have at most 200 characters"),
        ({"correlation_id": "c", "owner": "you"}, "body.owner: Extra inputs are not permitted"),
    ],
)
async def test_what_is_wrong_is_said_plainly(api: httpx.AsyncClient, body: Json, said: str) -> None:
    problem = (await api.post("/v1/commands:cancel", json=body)).json()
    assert problem["detail"] == said
    assert said.endswith(problem["errors"][0]["msg"])


async def test_whoever_may_only_read_ends_nothing(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/commands:cancel", json={"correlation_id": "c"}, headers=READER)
    assert (answer.status_code, answer.json()["scope"]) == (403, "execute")


# The same again and again


async def test_who_repeats_a_call_is_told(api: httpx.AsyncClient) -> None:
    """In every shape of the answer, from the third time on; and not who asks for something else."""
    told = {"X-Correlation-ID": new_id()}
    assert [(await run(api, "get", "cm", headers=told))["hint"] for _ in range(2)] == [None, None]
    third = await run(api, "get", "cm", headers=told)
    assert third["hint"].startswith("This was asked for 3 times in the last")
    assert (await api.get(f"/v1/commands/{third['command_id']}")).json()["hint"] == third["hint"]
    assert (await run(api, "get", "svc", headers=told))["hint"] is None
    assert (await run(api, "get", "cm", headers={"X-Correlation-ID": new_id()}))["hint"] is None
    events = await api.post(
        "/v1/clusters/local/commands", json={"argv": ["get", "cm"]}, headers={**told, "Accept": "text/event-stream"}
    )
    result = events.text.partition("event: result\ndata: ")[2].partition("\n")[0]
    assert json.loads(result)["hint"].startswith("This was asked for 4 times")
    same = {"cluster_id": "local", "args": ["cm"], "namespace": None}
    for _ in range(2):
        drop_in = (await api.post("/debug/execute", json=same, headers=told)).json()
    assert "--watch" in drop_in["hint"]
    changing = [(await run(api, "get", "unique", headers=told))["hint"] for _ in range(4)]
    assert changing == [None] * 4


@pytest.mark.parametrize("apart", [True, False], ids=["each runs", "shared"])
async def test_who_asks_at_the_same_time_is_not_told(api: httpx.AsyncClient, gate: Any, apart: bool) -> None:
    """Before anybody has an answer there is nothing to use; whoever goes on so is told all the same."""
    told = new_id()
    headers = {"X-Correlation-ID": told} | ({"Cache-Control": "no-cache"} if apart else {})
    said = []
    for _ in range(3):
        asking = asyncio.gather(*(run(api, "get", "held", told, headers=headers, timeout_seconds=60) for _ in range(3)))
        await in_state(api, told, 3, *UNFINISHED)
        gate(told).touch()
        said.append({(each["exit_code"], bool(each["hint"])) for each in await asking})
        gate(told).unlink()
    assert said == [{(0, False)}, {(0, False)}, {(0, True)}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/clusters/local/commands", {"argv": ["delete", "pod", "web-0"]}),
        ("/v1/clusters/lcoal/commands", {"argv": ["get", "pods"]}),
        ("/debug/execute", {"cluster_id": "nowhere", "args": ["pods"]}),
    ],
    ids=["policy", "cluster", "drop-in"],
)
async def test_who_repeats_what_is_refused_is_told(api: httpx.AsyncClient, path: str, body: Json) -> None:
    headers = {"X-Correlation-ID": new_id()}
    answers = [(await api.post(path, json=body, headers=headers)).json() for _ in range(3)]
    assert ["hint" in answer for answer in answers] == [False, False, True]
    assert "will not change by asking again" in answers[2]["hint"]


# Refusals that teach


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (
            "/v1/clusters/lcoal/commands",
            {"argv": ["get", "pods"]},
            404,
            {"reason": "CLUSTER_UNKNOWN", "near": "local", "available": "east,local,west"},
        ),
        (
            "/v1/clusters/Local/commands",
            {"argv": ["get", "pods"]},
            404,
            {"reason": "CLUSTER_UNKNOWN", "near": "local"},
        ),
        ("/v1/clusters/west/commands", {"argv": ["get", "pods"]}, 503, {"reason": "CLUSTER_OFFLINE"}),
        (
            "/v1/clusters/local/commands",
            {"argv": ["get", "pods", "--all-namespace"]},
            403,
            {
                "reason": "POLICY_DENIED",
                "rule": "flag",
                "nearest": "--all-namespaces",
                "next_step": "Ask again with --all-namespaces.",
            },
        ),
        (
            "/v1/clusters/local/commands",
            {"command": "kubectl get pods | grep web"},
            403,
            {"reason": "POLICY_DENIED", "rule": "shell"},
        ),
        ("/v1/clusters/local/commands", {"argv": ["get", "secrets"]}, 403, {"rule": "resource"}),
        ("/v1/clusters/local/commands", {"argv": ["exec", "web-0", "sh"]}, 403, {"rule": "verb"}),
        ("/v1/clusters/local/commands", {"argv": []}, 422, {"reason": "INVALID_COMMAND"}),
        ("/v1/clusters/local/commands", {"argv": ["get"], "session_id": "gone"}, 404, {"reason": "SESSION_UNKNOWN"}),
        ("/v1/clusters/local/commands", {"argv": ["get", "slow"], "timeout_seconds": 3}, 504, {"executed": "yes"}),
    ],
    ids=lambda each: "-" if isinstance(each, dict) else str(each),
)
async def test_a_problem_says_what_to_do_next(
    api: httpx.AsyncClient, path: str, body: Json, status: int, said: Json
) -> None:
    """By its reason, or better where more is known."""
    answer = await api.post(path, json=body)
    problem = answer.json()
    assert (answer.status_code, problem["executed"]) == (status, said.get("executed", "no"))
    assert said.items() <= problem.items()
    assert len(problem["next_step"]) > 20
    if problem["reason"] in ("CLUSTER_OFFLINE", "INVALID_COMMAND", "SESSION_UNKNOWN", "COMMAND_TIMEOUT"):
        assert problem["next_step"] == NEXT_STEPS[Reason(problem["reason"])]


async def test_a_session_of_another_cluster_is_named(api: httpx.AsyncClient) -> None:
    """While the words of the old API stay what they were."""
    session_id = (await api.post("/debug/session", json={"cluster_id": "west"})).json()["session_id"]
    body = {"cluster_id": "local", "args": ["pods"], "session_id": session_id}
    problem = (await api.post("/debug/execute", json=body)).json()
    assert (problem["status"], problem["detail"]) == (400, "Session cluster mismatch")
    assert problem["session_cluster_id"] == "west"
    assert "`session_id`" in problem["next_step"]
    unknown = (await api.post("/debug/execute", json={"cluster_id": "lcoal", "args": ["pods"]})).json()
    assert unknown["detail"] == "Cluster 'lcoal' not found. Available clusters: east, local, west"
    assert unknown["next_step"].startswith("Ask again with local;")


async def test_a_key_is_told_which_scope_it_lacks(api: httpx.AsyncClient) -> None:
    problem = (await api.post("/v1/clusters/local/commands", json={"argv": ["get"]}, headers=READER)).json()
    assert (problem["status"], problem["scope"]) == (403, "execute")
    assert problem["next_step"] == "Ask an admin for a key with the scope execute; this one stays refused."
    wrong = (await api.get("/v1/clusters", headers={"X-API-Key": "wrong"})).json()
    assert wrong["next_step"] == NEXT_STEPS[Reason.UNAUTHENTICATED]


async def test_plain_http_has_no_next_step(api: httpx.AsyncClient) -> None:
    assert (await api.get("/no/such/page")).json()["next_step"] is None


async def test_validating_teaches_the_same(api: httpx.AsyncClient) -> None:
    body = {"argv": ["get", "pods", "-o", "jsn"]}
    told = (await api.post("/v1/clusters/local/commands:validate", json=body)).json()
    assert (told["allowed"], told["nearest"], told["next_step"]) == (False, "json", "Ask again with json.")
    allowed = (await api.post("/v1/clusters/local/commands:validate", json={"argv": ["get", "pods"]})).json()
    assert (allowed["nearest"], allowed["next_step"]) == (None, None)


@pytest.mark.usefixtures("patience")
async def test_a_command_that_was_stopped_says_what_to_do(api: httpx.AsyncClient) -> None:
    """On the drop-in surface, where that is an ordinary answer, as its hint."""
    body = {"cluster_id": "local", "args": ["slow"], "timeout_seconds": 1, "correlation_id": new_id()}
    told = (await api.post("/debug/execute", json=body)).json()
    assert (told["status"], told["hint"]) == ("timeout", NEXT_STEPS[Reason.COMMAND_TIMEOUT])
    found = (await api.get(f"/v1/commands/{told['command_id']}")).json()
    assert found["error"]["next_step"] == NEXT_STEPS[Reason.COMMAND_TIMEOUT]
