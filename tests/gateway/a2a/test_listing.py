"""ListTasks: by the SDK's client, and in plain HTTP what that does not send."""

import asyncio
from typing import Any

import httpx
import pytest
from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.told import MAX_TIMESTAMP_S
from gateway.a2a.agent import MOST_PAGES
from gateway.a2a.listing import Listing
from gateway.a2a.telling import task_of
from openline.ids import new_id
from openline.v1 import command_pb2

OTHER, EXECUTER = "the-key-of-noa", "the-key-of-an-executer"
STEPS = 5
# As a list has the states of tasks.
UNFINISHED = ("SUBMITTED", "WORKING")


async def unused(*_: Any) -> None:
    """No command is asked for."""


def asking(**params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": params}


async def ask(http: httpx.AsyncClient, **params: Any) -> dict[str, Any]:
    """What is answered, which is right by the protocol's own schema."""
    answer = dict((await http.post("/a2a", json=asking(**params))).json()["result"])
    ParseDict(answer, pb.ListTasksResponse())
    return answer


async def listed(http: httpx.AsyncClient, count: int, *, running: int = 0, **params: Any) -> dict[str, Any]:
    """When there are so many, and no more of them run or are about to: a list is written behind the answers."""
    async with asyncio.timeout(60):
        while True:
            # On a busy machine there may be none.
            answer = dict((await http.post("/a2a", json=asking(**params))).json().get("result", {}))
            states = [task["status"]["state"].removeprefix("TASK_STATE_") for task in answer.get("tasks", [])]
            if (answer.get("totalSize"), sum(map(states.count, UNFINISHED))) == (count, running):
                return answer
            await asyncio.sleep(0.02)


def ids_of(answer: dict[str, Any]) -> list[str]:
    return [task["id"] for task in answer["tasks"]]


async def test_a_context(a2a: Any, connect: Any, http: httpx.AsyncClient) -> None:
    """Has its tasks, those that ended last first, each as it is told of by itself but for its output."""
    context = new_id()
    async with connect(a2a.urls[0], "1.0") as agent:
        sent = [await agent.task(f"script: get pods {each}", context_id=context) for each in range(STEPS)]
        sent.append(await agent.task("script: get pods x -n fails", context_id=context))
        sent.append(await agent.task("script: delete pods web", context_id=context))
    answer = await listed(http, len(sent), contextId=context)
    assert ids_of(answer) == [task["id"] for task in reversed(sent)]
    assert (answer["pageSize"], answer["nextPageToken"]) == (50, "")
    for told, task in zip(answer["tasks"], reversed(sent), strict=True):
        assert "artifacts" not in told
        assert {name: task[name] for name in task if name != "artifacts"} == told
    assert (await ask(http, contextId=new_id()))["totalSize"] == 0


async def test_by_the_client(a2a: Any, connect: Any, http: httpx.AsyncClient) -> None:
    """Of the SDK, which leaves out what is not asked for."""
    context = new_id()
    async with connect(a2a.urls[0], "1.0") as agent:
        task = await agent.task("script: get pods web", context_id=context)
        await listed(http, 1, contextId=context)
        answer = await agent.client.list_tasks(pb.ListTasksRequest(context_id=context))
    assert [each.id for each in answer.tasks] == [task["id"]]
    assert answer.total_size == 1


async def test_pages(a2a: Any, connect: Any, http: httpx.AsyncClient) -> None:
    """Go on where the one before ended, and say how many there are; the last one has an empty token."""
    context = new_id()
    async with connect(a2a.urls[0], "1.0") as agent:
        sent = [(await agent.task("script: get pods x", context_id=context))["id"] for _ in range(STEPS)]
    await listed(http, STEPS, contextId=context)
    found: list[str] = []
    token, sizes = "", []
    while True:
        page = await ask(http, contextId=context, pageSize=2, pageToken=token)
        found += ids_of(page)
        sizes.append((len(page["tasks"]), page["pageSize"], page["totalSize"]))
        if not (token := page["nextPageToken"]):
            break
        # What is new comes before all that is still to be shown.
        async with connect(a2a.urls[0], "1.0") as agent:
            await agent.task("script: get pods y", context_id=context)
        await listed(http, sizes[-1][2] + 1, contextId=context)
    assert found == sent[::-1]
    assert sizes == [(2, 2, STEPS), (2, 2, STEPS + 1), (1, 2, STEPS + 2)]


async def test_states(a2a: Any, connect: Any, http: httpx.AsyncClient, eventually: Any) -> None:
    """Choose among them; one that runs comes first, whenever it was asked for."""
    context, name = new_id(), new_id()
    async with connect(a2a.urls[0], "1.0") as agent:
        said = {"cluster": "script", "command": f"get pods {name} -n sleeps", "timeout_seconds": 100}
        runs = await agent.task(said, context_id=context, at_once=True)
        await eventually(lambda: a2a.marks(name) == ["begun"])
        good = await agent.task("script: get pods x", context_id=context)
        bad = await agent.task("script: get pods x -n fails", context_id=context)
        refused = await agent.task("script: delete pods x", context_id=context)
        order = [task["id"] for task in (runs, refused, bad, good)]
        assert ids_of(await listed(http, 4, running=1, contextId=context)) == order
        at = [task["status"]["timestamp"] for task in (await ask(http, contextId=context))["tasks"]]
        assert at == sorted(at, reverse=True)
        for state, task in (("WORKING", runs), ("COMPLETED", good), ("FAILED", bad), ("REJECTED", refused)):
            assert ids_of(await ask(http, contextId=context, status=f"TASK_STATE_{state}")) == [task["id"]]
        assert ids_of(await ask(http, contextId=context, status="TASK_STATE_INPUT_REQUIRED")) == []
        # It ends, and is the one that was told of last, though it was asked for first.
        await agent.cancel(runs["id"])
    ended = await listed(http, 1, contextId=context, status="TASK_STATE_CANCELED")
    assert ended["tasks"][0]["metadata"]["reason"] == "CANCELLED"
    assert ids_of(await ask(http, contextId=context)) == order


async def test_since(a2a: Any, connect: Any, http: httpx.AsyncClient, eventually: Any) -> None:
    """Is by when they ended; what runs may change at any time, and is told of."""
    context, name = new_id(), new_id()
    async with connect(a2a.urls[0], "1.0") as agent:
        said = {"cluster": "script", "command": f"get pods {name} -n sleeps", "timeout_seconds": 100}
        runs = await agent.task(said, context_id=context, at_once=True)
        first = await agent.task("script: get pods x", context_id=context)
        await asyncio.sleep(0.01)  # a timestamp is in milliseconds
        second = await agent.task("script: get pods x", context_id=context)
        await listed(http, 3, running=1, contextId=context)
        since = second["status"]["timestamp"]
        assert ids_of(await ask(http, contextId=context, statusTimestampAfter=since)) == [runs["id"], second["id"]]
        await agent.cancel(runs["id"])
        # It was asked for before that.
        later = await listed(http, 1, contextId=context, statusTimestampAfter=since, status="TASK_STATE_CANCELED")
        assert ids_of(later) == [runs["id"]]
        whole = await ask(http, contextId=context, statusTimestampAfter=first["status"]["timestamp"])
        assert whole["totalSize"] == 3


async def test_with_output(a2a: Any, connect: Any, http: httpx.AsyncClient, eventually: Any) -> None:
    """Where that is asked for, on a page of a few: output may be long."""
    context, name = new_id(), new_id()
    async with connect(a2a.urls[0], "1.0") as agent:
        task = await agent.task("script: get pods web", context_id=context)
        said = {"cluster": "script", "command": f"get pods {name} -n sleeps", "timeout_seconds": 100}
        runs = await agent.task(said, context_id=context, at_once=True)
        await eventually(lambda: a2a.marks(name) == ["begun"])
        await listed(http, 2, running=1, contextId=context)
        answer = await ask(http, contextId=context, includeArtifacts=True, pageSize=100)
        await agent.cancel(runs["id"])
    assert answer["pageSize"] == 10
    assert answer["tasks"][0]["artifacts"] == []
    assert answer["tasks"][1] == task


async def test_whose(a2a: Any, connect: Any, http: httpx.AsyncClient) -> None:
    """An owner's own, of every context where none is named; a key that may not look is told so by HTTP."""
    context = new_id()
    async with connect(a2a.urls[0], "1.0") as agent:
        mine = await agent.task("script: get pods x", context_id=context)
    async with connect(a2a.urls[0], "1.0", key=OTHER) as agent:
        noas = await agent.task("script: get pods x", context_id=context)
    assert ids_of(await listed(http, 1, contextId=context)) == [mine["id"]]
    assert mine["id"] in ids_of(await ask(http))
    assert noas["id"] not in ids_of(await ask(http, pageSize=100))
    assert (await http.post("/a2a", json=asking(), headers={"X-API-Key": EXECUTER})).status_code == 403
    assert (await http.post("/a2a", json=asking(), headers={"X-API-Key": "wrong"})).status_code == 401


@pytest.mark.parametrize(
    "params",
    [
        {"pageSize": 0},
        {"pageSize": 101},
        {"pageSize": "many"},
        {"pageToken": "made-up"},
        {"pageToken": "9" * 20 + "." + new_id()},
        {"status": "TASK_STATE_ASLEEP"},
        {"status": "completed"},
        {"statusTimestampAfter": "yesterday"},
        {"historyLength": -1},
        {"contextId": 7},
        {"includeArtifacts": "perhaps"},
    ],
)
async def test_what_makes_no_sense(http: httpx.AsyncClient, params: dict[str, Any]) -> None:
    """Is an error of the protocol, and names what it is about."""
    said = (await http.post("/a2a", json=asking(**params))).json()["error"]
    assert said["code"] == -32602
    assert said["message"].startswith(next(iter(params)))


@pytest.mark.parametrize(
    "params",
    [
        {"status": "TASK_STATE_UNSPECIFIED", "pageToken": "", "tenant": "", "historyLength": 0},
        {"contextId": None, "status": None, "pageSize": None, "pageToken": None, "includeArtifacts": None},
        {"contextId": "", "statusTimestampAfter": "2026-01-01T00:00:00.123456789Z", "historyLength": 10},
        {"contextId": "no such one with a space"},
        {"contextId": "x" * 5000},
    ],
)
async def test_what_chooses_nothing(http: httpx.AsyncClient, params: dict[str, Any]) -> None:
    """Is taken, as other programs write it."""
    await ask(http, **params)


def ended(asked_at: int, total_s: float, *, said: int) -> command_pb2.Command:
    """One whose executor says when it ended."""
    return command_pb2.Command(
        command_id=new_id(),
        state=command_pb2.COMMAND_STATE_DONE,
        created_at=Timestamp(seconds=asked_at),
        result=command_pb2.CommandResult(
            outcome=command_pb2.OUTCOME_EXITED,
            observed_at=Timestamp(seconds=said),
            timings=command_pb2.Timings(total_s=total_s),
        ),
    )


def test_a_run_of_before() -> None:
    """A task that was given another one's result has ended when it was asked for, not when that was seen."""
    made = [ended(100, 5, said=105), ended(106, 0, said=104), ended(101, 0, said=101)]
    page = Listing().page(made)
    assert [each.created_at.seconds for each in page.commands] == [106, 100, 101]
    since = Listing.read({"statusTimestampAfter": "1970-01-01T00:01:45Z"})
    assert since.page(made).total == 2


@pytest.mark.parametrize("off_s", [-300, 300], ids=["behind", "before"])
async def test_an_executors_clock_that_is_off(off_s: int) -> None:
    """Hides nothing from whoever goes on from the newest timestamp that it saw, which is the brokers' word."""
    made = [ended(1000 + number, 600 - 2 * number, said=1600 - number + off_s) for number in range(3)]
    newest_first = Listing().page(made).commands
    assert list(newest_first) == made
    told = [(await task_of(each)).status.at for each in newest_first]
    assert [at.timestamp() for at in told] == [1600, 1599, 1598]
    since = Listing.read({"statusTimestampAfter": told[1].isoformat()})
    assert list(since.page(made).commands) == made[:2]


def test_a_cluster_that_lies_about_times() -> None:
    """Its tasks have their places nevertheless, and every page leads to the next one."""
    lies = (MAX_TIMESTAMP_S, 1, MAX_TIMESTAMP_S, 1700)
    made = [ended(1000 - number, 10, said=said) for number, said in enumerate(lies)]
    found, params = [], {"pageSize": 1}
    while True:
        page = Listing.read(params).page(made)
        found += page.commands
        if not page.next_token:
            break
        params["pageToken"] = page.next_token
    assert found == made


@pytest.mark.parametrize(
    ("pages", "sizes", "total"),
    [
        ([400, 400, 300], [1000, 600, 200], 1000),
        ([400, 0, 300], [1000, 600, 600], 700),
        ([999, 1, 1], [1000, 1], 1000),
        ([1] * 50, list(range(1000, 1000 - MOST_PAGES, -1)), MOST_PAGES),
    ],
    ids=["a thousand", "fewer", "just as many", "in small pages"],
)
async def test_what_brokers_tell_in_pages(stage: Any, pages: list[int], sizes: list[int], total: int) -> None:
    """Where each has much to say: it is asked for until there are enough, and not for ever."""
    async with stage(unused) as scene:
        scene.broker.are_pages = True
        scene.broker.lists = [[ended(1000, 10, said=1) for _ in range(count)] for count in pages]
        # Never more than are asked for, as brokers have it.
        for listed, size in zip(scene.broker.lists, sizes, strict=False):
            del listed[size:]
        assert (await ask(scene.api, contextId="c"))["totalSize"] == total
        requests = scene.broker.list_requests
    assert [request.page_size for request in requests] == sizes
    assert [request.page_token for request in requests] == ["", *(f"page {n}" for n in range(1, len(sizes)))]
    assert {request.correlation_id for request in requests} == {"c"}


async def test_in_0_3(http: httpx.AsyncClient) -> None:
    """There is no such method in its JSON-RPC."""
    answer = (await http.post("/a2a", json=asking() | {"method": "tasks/list"})).json()
    assert answer["error"]["code"] == -32601
