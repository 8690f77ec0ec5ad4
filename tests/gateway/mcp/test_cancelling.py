"""Taking a call back: the process in the cluster is stopped, in every version of the protocol, at either gateway."""

import asyncio
import json
import threading
import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
import structlog

from gateway import fanning
from gateway.calling_off import Commands
from gateway.command_answers import ALL
from gateway.fanning import AT_A_TIME, Failed
from gateway.mcp import many
from gateway.mcp.call import Call
from gateway.mcp.cancelling import InFlight
from gateway.mcp.door import Door
from gateway.mcp.naming import id_of, name_of
from gateway.mcp.searching import MOST_LOOKS, MOST_LOOKS_OF_KEY
from openline.errors import TAKEN_BACK, OpenlineError, error
from openline.ids import new_id
from openline.reasons import YES, Reason
from openline.v1 import cluster_service_pb2
from openline.v1 import command_pb2 as pb
from openline.v1.command_service_pb2 import ExecuteRequest

KEY, OTHER = "the-key-of-mia", "the-key-of-noa"
HEADERS = {"Authorization": f"Bearer {KEY}", "Accept": "application/json, text/event-stream"}


def calling(name: str, *, number: Any = 7, tool: str = "kubectl", **arguments: Any) -> dict[str, Any]:
    arguments = {"cluster": "script", "command": f"get pods {name} -n sleeps", "timeout_seconds": 40} | arguments
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def cancelled(number: Any = 7) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number, "reason": "enough"}}


async def test_by_the_client(mcp: Any, connect: Any, call: Any, eventually: Any, mode: str) -> None:
    """Whoever stops waiting in the SDK's client has cancelled."""
    name = f"client-{mode}"
    async with connect(mcp.urls[0], mode) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as waiting:

                async def ask() -> None:
                    await call(client, "kubectl", cluster="script", command=f"get pods {name} -n sleeps")

                waiting.start_soon(ask)
                await eventually(lambda: mcp.marks(name) == ["begun"])
                scope.cancel()
        await eventually(lambda: not mcp.is_running(name))
        # The session goes on.
        assert not (await call(client, "list_clusters")).is_error


async def test_by_the_tool(mcp: Any, connect: Any, call: Any, eventually: Any, mode: str) -> None:
    """Of a command that somebody else waits for, who is told."""
    name = f"tool-{mode}"
    async with connect(mcp.urls[0], mode) as client, connect(mcp.urls[1], mode) as other:
        asked = asyncio.create_task(
            call(client, "kubectl", cluster="script", command=f"get pods {name} -n sleeps", timeout_seconds=40)
        )
        await eventually(lambda: mcp.marks(name) == ["begun"])
        [command] = await mcp.unfinished(name)
        answer = await call(other, "cancel", command_id=command["command_id"])
        assert not answer.is_error
        assert answer.fields["command_id"] == command["command_id"]
        told = await asked
        assert told.is_error
        assert told.text.startswith("so far\n[CANCELLED: ")
        assert (told.fields["reason"], told.fields["executed"]) == ("CANCELLED", "yes")
        await eventually(lambda: not mcp.is_running(name))
        again = await call(other, "cancel", command_id=command["command_id"])
        assert "had ended before" in again.text


@pytest.mark.parametrize("at", [0, 1], ids=["same", "other"])
@pytest.mark.parametrize("number", [7, "7", -1, "é\U0001f600"])
async def test_by_a_message(mcp: Any, eventually: Any, at: int, number: Any) -> None:
    """Of the older protocols: it may come to another gateway than the call did, which knows nothing of it."""
    name = f"message-{at}-{type(number).__name__}-{len(str(number))}"
    async with httpx.AsyncClient(headers=HEADERS, timeout=60, trust_env=False) as http:
        session = await _session(http, mcp.urls[0])
        asked = asyncio.create_task(http.post(f"{mcp.urls[0]}/mcp", json=calling(name, number=number), headers=session))
        await eventually(lambda: mcp.marks(name) == ["begun"])
        answer = await http.post(f"{mcp.urls[at]}/mcp", json=cancelled(number), headers=session)
        assert answer.status_code == 202
        told = await asked
        await eventually(lambda: not mcp.is_running(name))
        assert '"CANCELLED"' in told.text


async def test_a_message_with_escapes(mcp: Any, eventually: Any) -> None:
    """JSON may be written so; some clients do."""
    async with httpx.AsyncClient(headers=HEADERS, timeout=60, trust_env=False) as http:
        session = await _session(http, mcp.urls[0])
        asked = asyncio.create_task(http.post(f"{mcp.urls[0]}/mcp", json=calling("escapes"), headers=session))
        await eventually(lambda: mcp.marks("escapes") == ["begun"])
        content = json.dumps(cancelled()).replace("/", r"\/")
        await http.post(f"{mcp.urls[0]}/mcp", content=content, headers=session)
        assert '"CANCELLED"' in (await asked).text


@pytest.mark.parametrize(
    ("number", "said"),
    [(7, "0"), (7, "NaN"), (7, "-Infinity"), (1 << 70, "0")],
    ids=["plain", "nan", "infinity", "big"],
)
async def test_before_anything_has_begun(stage: Any, eventually: Any, number: int, said: str) -> None:
    """A call is known from its arrival on: what looks for its clusters first begins no command.

    Whatever the SDK takes for JSON.
    """
    async with stage(_cancels) as scene:
        one = cluster_service_pb2.Cluster(cluster_id="a", executors=[{"capabilities": {"labels": {"env": "dev"}}}])
        scene.broker.fleet.clusters = [one]
        scene.broker.fleet.may_list.clear()
        message = calling("x", number=number, tool="kubectl_fanout", selector="env=dev")
        del message["params"]["arguments"]["cluster"]
        message["params"]["_meta"] = {"said": "said"}
        asked = await _begun(scene, json.dumps(message).replace('"said"}', f"{said}}}"))
        await eventually(lambda: scene.broker.fleet.list_requests == 1)
        await _post(scene, number)
        scene.broker.fleet.may_list.set()
        assert '"CANCELLED"' in (await asked).text
        assert (scene.broker.asked, scene.broker.list_requests) == ([], [])


async def test_before_it_can_be_served(stage: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway's first call waits until the SDK is loaded."""
    loads, may_load, load = threading.Event(), threading.Event(), Door._load

    def wait(door: Door) -> Any:
        loads.set()
        may_load.wait(60)
        return load(door)

    monkeypatch.setattr(Door, "_load", wait)
    async with stage(_cancels) as scene:
        with structlog.testing.capture_logs() as lines:
            asked = await _begun(scene, json.dumps(calling("x")))
            await eventually(loads.is_set)
            await _post(scene, 7)
            await eventually(lambda: _count(lines, "request.answered") == 1)
        may_load.set()
        assert '"CANCELLED"' in (await asked).text
        assert (scene.broker.asked, scene.broker.list_requests) == ([], [])


async def test_only_the_call_that_is_meant(mcp: Any, eventually: Any) -> None:
    """Not one of another session, another number or another owner; and nothing where there is no session."""
    async with httpx.AsyncClient(headers=HEADERS, timeout=60, trust_env=False) as http:
        session, another = [await _session(http, mcp.urls[0]) for _ in range(2)]
        asked = asyncio.create_task(http.post(f"{mcp.urls[0]}/mcp", json=calling("meant"), headers=session))
        await eventually(lambda: mcp.marks("meant") == ["begun"])
        foreign = session | {"Authorization": f"Bearer {OTHER}"}
        for url in mcp.urls:
            for notice, headers in (
                (cancelled(), another),
                (cancelled(8), session),
                (cancelled("7"), session),
                (cancelled(), foreign),
                (cancelled(), {}),
                ({"jsonrpc": "2.0", "method": "notifications/cancelled"}, session),
                ({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": [7]}}, session),
            ):
                answer = await http.post(f"{url}/mcp", json=notice, headers=headers)
                assert answer.status_code == 202
        assert mcp.marks("meant") == ["begun"]
        assert not asked.done()
        await http.post(f"{mcp.urls[0]}/mcp", json=cancelled(), headers=session)
        await asked
        await eventually(lambda: not mcp.is_running("meant"))


@pytest.mark.parametrize("key", [OTHER, "no-key-at-all"], ids=["foreign", "invalid"])
async def test_a_fan_out_is_its_own_key_s(
    mcp: Any, serve_gateway: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Whoever knows its session and number neither ends it, nor keeps its caller from ending it."""
    monkeypatch.setattr("gateway.fanning.AT_A_TIME", 1)
    name = f"own-{key}"
    async with (
        serve_gateway(mcp.broker) as (address, _),
        httpx.AsyncClient(headers=HEADERS, timeout=60, trust_env=False) as http,
    ):
        url = f"http://{address}/mcp"
        session = await _session(http, f"http://{address}")
        foreign = session | {"Authorization": f"Bearer {key}"}

        def ask(command: str) -> asyncio.Task[httpx.Response]:
            message = calling(command, tool="kubectl_fanout", clusters=["script", "real"])
            del message["params"]["arguments"]["cluster"]
            return asyncio.create_task(http.post(url, json=message, headers=session))

        # A cancel of somebody else's. The first command is ended alone, and the second has its turn.
        asked = ask(f"{name}-goes-on")
        await eventually(lambda: mcp.marks(f"{name}-goes-on") == ["begun"])
        await http.post(url, json=cancelled(), headers=foreign)
        [running] = await mcp.unfinished(f"{name}-goes-on")
        await http.delete(f"{mcp.urls[0]}/v1/commands/{running['command_id']}")
        assert _outcomes(await asked) == {"script": ("CANCELLED", "yes"), "real": None}
        # A call of somebody else's with the same number, which still runs or was refused. In another session, since the
        # cancel above goes on looking for calls of its own key.
        session = await _session(http, f"http://{address}")
        foreign = session | {"Authorization": f"Bearer {key}"}
        asked = ask(f"{name}-ends")
        await eventually(lambda: mcp.marks(f"{name}-ends") == ["begun"])
        theirs = calling("theirs", tool="kubectl_fanout", clusters=["script"], timeout_seconds=3)
        del theirs["params"]["arguments"]["cluster"]
        other = asyncio.create_task(http.post(url, json=theirs, headers=foreign))
        if key == OTHER:
            await eventually(lambda: mcp.marks("theirs") == ["begun"])
        else:
            await other
        await http.post(url, json=cancelled(), headers=session)
        assert _outcomes(await asked) == {"script": ("CANCELLED", "yes"), "real": ("CANCELLED", "no")}
        assert "CANCELLED" not in (await other).text


async def test_a_call_is_held_by_key_and_name() -> None:
    """The same name with another key is another call, whichever of them ends first."""
    in_flight = InFlight()
    mine, theirs = Commands({"a": ""}), Commands({"b": ""})
    with in_flight.hold(KEY, "call-7", mine):
        with in_flight.hold(OTHER, "call-7", theirs):
            assert (in_flight.find(KEY, "call-7"), in_flight.find(OTHER, "call-7")) == (mine, theirs)
        assert (in_flight.find(KEY, "call-7"), in_flight.find(OTHER, "call-7")) == (mine, None)
    assert in_flight.find(KEY, "call-7") is None


async def test_calls_that_are_cancelled_at_once(mcp: Any, eventually: Any) -> None:
    """By one client, at another gateway: each of them ends."""
    names = [f"at-once-{number}" for number in range(8)]
    async with httpx.AsyncClient(headers=HEADERS, timeout=60, trust_env=False) as http:
        session = await _session(http, mcp.urls[0])
        asked = [
            asyncio.create_task(http.post(f"{mcp.urls[0]}/mcp", json=calling(name, number=number), headers=session))
            for number, name in enumerate(names)
        ]
        await eventually(lambda: all(mcp.marks(name) == ["begun"] for name in names))
        notices = [http.post(f"{mcp.urls[1]}/mcp", json=cancelled(number), headers=session) for number in range(8)]
        await asyncio.gather(*notices)
        assert ['"CANCELLED"' in answer.text for answer in await asyncio.gather(*asked)] == [True] * 8
        await eventually(lambda: not any(mcp.is_running(name) for name in names))


@pytest.mark.parametrize("at", [0, 1], ids=["same", "other"])
async def test_many_clusters(mcp: Any, eventually: Any, at: int) -> None:
    """A fan-out is one call: all that it has begun is stopped."""
    name = f"many-{at}"
    async with httpx.AsyncClient(headers=HEADERS, timeout=60, trust_env=False) as http:
        session = await _session(http, mcp.urls[0])
        message = calling(name, tool="kubectl_fanout", clusters=["script", "away"])
        del message["params"]["arguments"]["cluster"]
        asked = asyncio.create_task(http.post(f"{mcp.urls[0]}/mcp", json=message, headers=session))
        await eventually(lambda: mcp.marks(name) == ["begun"])
        await http.post(f"{mcp.urls[at]}/mcp", json=cancelled(), headers=session)
        assert '"CANCELLED"' in (await asked).text
        await eventually(lambda: not mcp.is_running(name))


async def test_a_client_of_before_that_leaves(mcp: Any, connect: Any, call: Any, eventually: Any) -> None:
    """Has not cancelled: its connection may have broken. The command runs on, and its result is found."""
    async with httpx.AsyncClient(headers=HEADERS, timeout=60, trust_env=False) as http:
        session = await _session(http, mcp.urls[0])
        message = calling("leaves", command="get pods leaves -n held")
        asked = asyncio.create_task(http.post(f"{mcp.urls[0]}/mcp", json=message, headers=session))
        await eventually(lambda: mcp.marks("leaves") == ["begun"])
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    [command] = await mcp.unfinished("leaves")
    mcp.let_go("leaves")
    async with connect(mcp.urls[1], "legacy") as client:
        answer = await call(client, "get_result", command_id=command["command_id"])
        assert answer.text == "one, two\nthree\n"


async def test_a_client_of_today_that_leaves(mcp: Any, eventually: Any) -> None:
    """Has cancelled, whatever it has heard by then; also of many clusters."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": 1,
    }
    for tool in ("kubectl", "kubectl_fanout"):
        name = f"gone-{tool}"
        message = calling(name, tool=tool)
        message["params"]["_meta"] = meta
        if tool == "kubectl_fanout":
            message["params"]["arguments"]["clusters"] = [message["params"]["arguments"].pop("cluster")]
        headers = HEADERS | {
            "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool,
        }  # fmt: skip
        async with (
            httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as http,
            http.stream("POST", f"{mcp.urls[0]}/mcp", json=message) as answer,
        ):
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    assert json.loads(line[5:])["method"] == "notifications/progress"
                    break
        await eventually(lambda name=name: not mcp.is_running(name))


async def _session(http: httpx.AsyncClient, url: str) -> dict[str, str]:
    """Begins a session in an older protocol; the headers of what belongs to it."""
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    answer = await http.post(f"{url}/mcp", json=message)
    return {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"], "MCP-Protocol-Version": "2025-06-18"}


def _outcomes(answer: httpx.Response) -> dict[str, tuple[str, str] | None]:
    """What a fan-out tells of each cluster: why it has no answer and whether it was executed, or None for one."""
    [told] = [json.loads(line[5:]) for line in answer.text.split("\n") if line.startswith("data:")]
    fields = told["result"]["structuredContent"]
    answered = {cluster: None for group in fields["groups"] for cluster in group["clusters"]}
    return answered | {
        cluster: (each["reason"], each["executed"]) for each in fields["problems"] for cluster in each["clusters"]
    }


async def test_a_fan_out_that_is_taken_back_begins_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What had not begun has not run, however many are cancelled to make room for it."""
    requests = [ExecuteRequest(cluster_id=f"c-{number}", command_id=new_id()) for number in range(200)]
    begun: list[str] = []
    enough = asyncio.Event()

    async def ask(_pipes: Any, _caller: Any, _wish: Any, request: ExecuteRequest) -> Failed:
        begun.append(request.cluster_id)
        await enough.wait()
        return Failed(request, OpenlineError(error(Reason.CANCELLED, "taken back")))

    monkeypatch.setattr(fanning, "ask", ask)
    commands = Commands()
    caller = SimpleNamespace(api_key=KEY)
    now = time.monotonic()
    call = Call(caller, None, commands, "call-7", now, ends_with_client=False, report=None)  # type: ignore[arg-type]
    running = asyncio.create_task(many.run_in_many(requests, call, ALL, labels_unknown=()))
    await asyncio.sleep(0)
    while len(begun) < AT_A_TIME:
        await asyncio.sleep(0)
    assert len(commands.call_off(TAKEN_BACK)) == AT_A_TIME
    enough.set()
    told = await running
    assert len(begun) == AT_A_TIME
    assert told.is_error


async def test_a_fan_out_is_cancelled_at_another_gateway(
    mcp: Any, serve_gateway: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway that runs it hears so by what becomes of its commands, and begins no more of them."""
    monkeypatch.setattr("gateway.fanning.AT_A_TIME", 1)
    async with (
        serve_gateway(mcp.broker) as (address, _),
        httpx.AsyncClient(headers=HEADERS, timeout=60, trust_env=False) as http,
    ):
        url = f"http://{address}"
        session = await _session(http, url)
        message = calling("elsewhere", tool="kubectl_fanout", clusters=["script", "real"])
        del message["params"]["arguments"]["cluster"]
        asked = asyncio.create_task(http.post(f"{url}/mcp", json=message, headers=session))
        await eventually(lambda: mcp.marks("elsewhere") == ["begun"])
        await http.post(f"{mcp.urls[0]}/mcp", json=cancelled(), headers=session)
        assert _outcomes(await asked) == {"script": ("CANCELLED", "yes"), "real": ("CANCELLED", "no")}
    await eventually(lambda: not mcp.is_running("elsewhere"))


async def test_what_the_other_gateway_did_not_see(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the fan-out cancels it, as soon as one of its commands comes back cancelled with its call."""
    monkeypatch.setattr("gateway.fanning.AT_A_TIME", 2)
    why = error(Reason.CANCELLED, TAKEN_BACK, executed=YES, metadata={"cancelled_with": "call"})
    seen = asyncio.Event()

    async def script(frame: Any, say: Any) -> None:
        if frame.HasField("cancel"):
            await _cancels(frame, say)
            seen.set()
            return
        if frame.execute.cluster_id == "unseen":
            await seen.wait()
        await say.reply(response={"result": {"outcome": pb.OUTCOME_CANCELLED, "error": why}})

    async with stage(script) as scene:
        message = calling("x", tool="kubectl_fanout", clusters=["unseen", "cancelled", "later"])
        del message["params"]["arguments"]["cluster"]
        answer = await scene.api.post("/mcp", json=message, headers=HEADERS)
        assert "its call was cancelled" in answer.text
        asked = [frame.execute for frame in scene.broker.asked if frame.HasField("execute")]
        assert [each.cluster_id for each in asked] == ["unseen", "cancelled"]
        assert [frame.cancel.command_id for frame in scene.broker.asked if frame.HasField("cancel")] == [
            asked[0].command_id
        ]


async def test_one_command_of_a_fan_out_is_cancelled(
    mcp: Any, connect: Any, call: Any, serve_gateway: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its id: that is no word about the others."""
    monkeypatch.setattr("gateway.fanning.AT_A_TIME", 1)
    async with (
        serve_gateway(mcp.broker) as (address, _),
        connect(f"http://{address}", "legacy") as client,
        connect(mcp.urls[0], "legacy") as other,
    ):
        command = {"command": "get pods only-one -n sleeps", "timeout_seconds": 40}
        asked = asyncio.create_task(call(client, "kubectl_fanout", clusters=["script", "real"], **command))
        await eventually(lambda: mcp.marks("only-one") == ["begun"])
        [running] = await mcp.unfinished("only-one")
        await call(other, "cancel", command_id=running["command_id"])
        answer = await asked
        assert [group["clusters"] for group in answer.fields["groups"]] == [["real"]]
        assert [each["reason"] for each in answer.fields["problems"]] == ["CANCELLED"]


@pytest.mark.parametrize("by", ["its caller", "an admin"])
async def test_the_kill_switch_ends_a_fan_out(
    mcp: Any, serve_gateway: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """What runs is stopped, and what waits for its turn is not begun."""
    monkeypatch.setattr("gateway.fanning.AT_A_TIME", 1)
    name = f"switch-{by[-2:]}"
    async with (
        serve_gateway(mcp.broker) as (address, _),
        httpx.AsyncClient(headers=HEADERS, timeout=60, trust_env=False) as http,
    ):
        url = f"http://{address}"
        session = await _session(http, url)
        message = calling(name, tool="kubectl_fanout", clusters=["script", "real"])
        del message["params"]["arguments"]["cluster"]
        asked = asyncio.create_task(http.post(f"{url}/mcp", json=message, headers=session))
        await eventually(lambda: mcp.marks(name) == ["begun"])
        path, body = {
            "its caller": ("/v1/commands:cancel", {"correlation_id": session["Mcp-Session-Id"]}),
            "an admin": ("/admin/cancel", {"owner": "mia"}),
        }[by]
        killed = await http.post(f"{mcp.urls[0]}{path}", json={**body, "reason": "enough of it"})
        assert killed.json()["cancelled"] == 1
        answer = await asked
        assert _outcomes(answer) == {"script": ("CANCELLED", "yes"), "real": ("CANCELLED", "no")}
        assert answer.text.count("CANCELLED: enough of it") >= 2
    await eventually(lambda: not mcp.is_running(name))


async def test_what_is_listed_later_is_cancelled_too(stage: Any, eventually: Any) -> None:
    """Each once, and what is done not at all: the list is behind, and the other gateway goes on until it hears."""
    async with stage(_cancels) as scene:
        name = name_of("this-session", 7)
        first, second, third = (id_of(name, nth, now_s=time.time()) for nth in range(3))
        other = id_of(name_of("this-session", 8), 0, now_s=time.time())
        begun = [_listed(other), _listed(first, "DONE")]
        scene.broker.lists = [begun, [*begun, _listed(second)], [*begun, _listed(second), _listed(third)]]
        await _take_back(scene, eventually)
        assert [frame.cancel.command_id for frame in scene.broker.asked] == [second, third]
        assert {frame.cancel.why for frame in scene.broker.asked} == {TAKEN_BACK}


async def test_a_command_that_is_not_cancelled_is_told_of_with_its_conversation(stage: Any, eventually: Any) -> None:
    """It has ended, is another's, or is not known."""

    async def refuses(_frame: Any, say: Any) -> None:
        await say.reply(error=error(Reason.COMMAND_UNKNOWN, "no such command"))

    async with stage(refuses) as scene:
        listed = _listed(id_of(name_of("this-session", 7), 0, now_s=time.time()))
        listed.correlation_id = "this-session"
        scene.broker.lists = [[listed]]
        with structlog.testing.capture_logs() as lines:
            await _post(scene, 7)
            await eventually(lambda: _count(lines, "request.answered") == 1)
        [line] = [line for line in lines if line["event"] == "command.not_cancelled"]
        assert (line["command_id"], line["correlation_id"]) == (listed.command_id, "this-session")


async def test_what_there_is_nothing_of(stage: Any, eventually: Any) -> None:
    """Is looked for three times and no more, and never in more than a call can have; whatever time the header gives."""
    async with stage(_cancels) as scene:
        scene.broker.lists = [[_listed(id_of(name_of("this-session", 8), 0, now_s=time.time()))]]
        await _take_back(scene, eventually, X_Request_Timeout="1")
        assert [request.page_size for request in scene.broker.list_requests] == [250, 250, 250]
        assert {request.correlation_id for request in scene.broker.list_requests} == {"this-session"}
        assert scene.broker.asked == []


async def test_calls_of_one_conversation_share_their_looks(stage: Any, eventually: Any) -> None:
    """One list for all that wait for it. A list that was asked for before a call was cancelled is not for it."""
    async with stage(_cancels) as scene:
        named = [_listed(id_of(name_of("this-session", each), 0, now_s=time.time())) for each in range(20)]
        scene.broker.lists = [[], named]
        scene.broker.may_list.clear()
        with structlog.testing.capture_logs() as lines:
            await _post(scene, 0)
            await eventually(lambda: len(scene.broker.list_requests) == 1)
            await _post(scene, *range(1, 20))
            scene.broker.may_list.set()
            await eventually(lambda: _count(lines, "request.answered") == 20)
        # Each has looked three times.
        assert len(scene.broker.list_requests) <= 30
        assert sorted(frame.cancel.command_id for frame in scene.broker.asked) == sorted(
            each.command_id for each in named
        )


async def test_conversations_that_are_cancelled_at_once(stage: Any, eventually: Any) -> None:
    """By one key, in more of them than are searched at one time: each is looked for when its turn comes."""
    conversations = [f"session-{number}" for number in range(3 * MOST_LOOKS)]
    async with stage(_cancels) as scene:
        named = [_listed(id_of(name_of(each, 7), 0, now_s=time.time())) for each in conversations]
        scene.broker.lists = [named]
        with structlog.testing.capture_logs() as lines:
            await asyncio.gather(*[_post(scene, 7, session=each) for each in conversations])
            await eventually(lambda: _count(lines, "request.answered") == len(conversations))
        assert _count(lines, "mcp.not_looked_for") == 0
        assert {frame.cancel.command_id for frame in scene.broker.asked} == {each.command_id for each in named}


async def test_looks_take_turns(stage: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key has a few at one time, and leaves some to others; whose turn does not come is told in the log."""
    monkeypatch.setattr("gateway.mcp.searching.TURN_S", 0.05)
    async with stage(_cancels) as scene:
        listed = scene.broker.list_requests
        scene.broker.may_list.clear()
        with structlog.testing.capture_logs() as lines:
            for each in range(MOST_LOOKS_OF_KEY + 1):
                await _post(scene, 7, session=f"session-{each}")
            await eventually(lambda: len(listed) == MOST_LOOKS_OF_KEY)
            for each in range(MOST_LOOKS - MOST_LOOKS_OF_KEY):
                await _post(scene, 7, key="the-key-of-another", session=f"session-{each}")
            await eventually(lambda: len(listed) == MOST_LOOKS)
            await _post(scene, 7, key="the-key-of-a-third")
            await eventually(lambda: _count(lines, "mcp.not_looked_for") == 2)
            assert len(listed) == MOST_LOOKS
            scene.broker.may_list.set()
            await eventually(lambda: _count(lines, "request.answered") == MOST_LOOKS + 2)
        # There is room again.
        before = len(listed)
        await _take_back(scene, eventually)
        assert len(listed) == before + 3


async def test_what_is_looked_for_is_bounded(stage: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By how many calls there are with one key, and with all; that is told in the log."""
    monkeypatch.setattr("gateway.mcp.searching.MOST_CALLS", 5)
    monkeypatch.setattr("gateway.mcp.searching.MOST_CALLS_OF_KEY", 3)
    async with stage(_cancels) as scene:
        scene.broker.may_list.clear()
        with structlog.testing.capture_logs() as lines:
            await _post(scene, 0, 1, session="one")
            await _post(scene, 0, 1, session="two")
            await eventually(lambda: _count(lines, "mcp.not_looked_for") == 1)
            await _post(scene, 0, 1, 2, key="the-key-of-another")
            await eventually(lambda: _count(lines, "mcp.not_looked_for") == 2)
            scene.broker.may_list.set()
            await eventually(lambda: _count(lines, "request.answered") == 7)
        told = [line for line in lines if line["event"] == "mcp.not_looked_for"]
        assert [line["correlation_id"] for line in told] == ["two", "this-session"]


async def test_no_broker(stage: Any, eventually: Any) -> None:
    """Whoever has cancelled is answered as always: to clients of before a message that fails is a session that ends."""
    async with stage(_cancels) as scene:
        await scene.broker.die()
        with structlog.testing.capture_logs() as lines:
            await _post(scene, 7, X_Request_Timeout="1")
            await eventually(lambda: _count(lines, "request.answered") == 1)
        [line] = [line for line in lines if line["event"] == "mcp.not_cancelled"]
        assert (line["reason"], line["correlation_id"]) == ("BROKER_UNAVAILABLE", "this-session")
        assert scene.broker.list_requests == []


async def test_keys_that_are_made_up(mcp: Any, eventually: Any) -> None:
    """Are refused, and take nobody's place."""
    async with httpx.AsyncClient(headers=HEADERS, timeout=60, trust_env=False) as http:
        session = await _session(http, mcp.urls[0])
        asked = asyncio.create_task(http.post(f"{mcp.urls[0]}/mcp", json=calling("not-made-up"), headers=session))
        await eventually(lambda: mcp.marks("not-made-up") == ["begun"])
        made_up = [
            asyncio.create_task(
                http.post(
                    f"{mcp.urls[1]}/mcp",
                    json=cancelled(),
                    headers=session | {"Authorization": f"Bearer made-up-{number}", "Mcp-Session-Id": f"{number}"},
                )
            )
            for number in range(40)
        ]
        await asyncio.wait(made_up, return_when=asyncio.FIRST_COMPLETED)
        answer = await http.post(f"{mcp.urls[1]}/mcp", json=cancelled(), headers=session)
        assert answer.status_code == 202
        assert '"CANCELLED"' in (await asked).text
        assert {answer.status_code for answer in await asyncio.gather(*made_up)} == {401}


async def _cancels(_frame: Any, say: Any) -> None:
    """Takes every cancel."""
    await say.reply(cancelled={"state": pb.COMMAND_STATE_RUNNING})


def _listed(command_id: str, state: str = "RUNNING") -> pb.Command:
    return pb.Command(command_id=command_id, state=pb.CommandState.Value(f"COMMAND_STATE_{state}"))


async def _take_back(scene: Any, eventually: Any, **headers: str) -> None:
    """Call 7 of a session, and waits until all is done about it."""
    with structlog.testing.capture_logs() as lines:
        await _post(scene, 7, **headers)
        await eventually(lambda: _count(lines, "request.answered") == 1)


async def _begun(scene: Any, content: str) -> asyncio.Task[httpx.Response]:
    """A call in the session that `_post` takes calls of back."""
    headers = HEADERS | {"Mcp-Session-Id": "this-session", "MCP-Protocol-Version": "2025-06-18", "X-API-Key": KEY}
    return asyncio.create_task(scene.api.post("/mcp", content=content, headers=headers))


async def _post(scene: Any, *numbers: int, key: str = KEY, session: str = "this-session", **more: str) -> None:
    """Takes these calls back."""
    headers = HEADERS | {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-06-18", "X-API-Key": key}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    posts = [scene.api.post("/mcp", json=cancelled(number), headers=headers) for number in numbers]
    assert {answer.status_code for answer in await asyncio.gather(*posts)} == {202}


def _count(lines: Sequence[Mapping[str, Any]], event: str) -> int:
    return sum(line["event"] == event for line in lines)
