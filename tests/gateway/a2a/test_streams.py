"""Streams, by the SDK's client in each version of the protocol."""

import asyncio
import re
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from a2a.utils.errors import InternalError, UnsupportedOperationError

from openline.ids import new_id

STREAMS = 50
OVER = re.compile(r"^openline_gateway_event_streams_open 0(\.0)?$", re.MULTILINE)


def states_of(events: list[dict[str, Any]]) -> list[str]:
    """Each that the task was said to be in."""
    told = [each.get("task") or each["statusUpdate"] for each in events if "artifactUpdate" not in each]
    return [each["status"]["state"].removeprefix("TASK_STATE_").lower() for each in told]


def pieces_of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    updates = [each["artifactUpdate"] for each in events if "artifactUpdate" in each]
    return [each for each in updates if each["artifact"]["artifactId"] == name]


def text_of(pieces: list[dict[str, Any]]) -> str:
    return "".join(part["text"] for piece in pieces for part in piece["artifact"]["parts"])


async def test_output_as_it_comes(a2a: Any, connect: Any, version: str) -> None:
    """First the task, then how far it is and what it writes, then its end; all of it about one task and context."""
    name = new_id()
    events = []
    async with connect(a2a.urls[0], version, streaming=True) as agent:
        async for event in agent.events(f"script: get pods {name} -n held", context_id="a-stream"):
            events.append(event)
            if text_of(pieces_of(events, "stdout")) == "one\n":
                a2a.let_go(name)
    states = states_of(events)
    assert "task" in events[0]
    assert states[0] in ("submitted", "working")
    assert states[-2:] == ["working", "completed"]
    assert "statusUpdate" in events[-1]
    out, err = pieces_of(events, "stdout"), pieces_of(events, "stderr")
    assert (text_of(out), text_of(err)) == ("one\nétwo\n", "oh\n")
    assert len(out) >= 2
    for pieces in (out, err):
        assert [each.get("append", False) for each in pieces] == [False] + [True] * (len(pieces) - 1)
        assert [each.get("lastChunk", False) for each in pieces] == [False] * (len(pieces) - 1) + [True]
    end = events[-1]["statusUpdate"]
    assert end["metadata"]["exit_code"] == 0
    assert out[-1]["artifact"]["metadata"] == end["metadata"]
    told = {(each["taskId"], each["contextId"]) for event in events[1:] for each in event.values()}
    assert told == {(events[0]["task"]["id"], "a-stream")}


async def test_of_one_without_output(a2a: Any, connect: Any, version: str) -> None:
    """Has an empty artifact all the same, so that everybody can read what there is."""
    async with connect(a2a.urls[0], version, streaming=True) as agent:
        events = await agent.send("script: get pods x -n mute")
    [piece] = pieces_of(events, "stdout")
    assert piece["lastChunk"]
    assert states_of(events)[-1] == "completed"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("nowhere: get pods", "CLUSTER_UNKNOWN"),
        ("away: get pods", "CLUSTER_OFFLINE"),
        ("script: delete pods web", "POLICY_DENIED"),
        ("what?", "INVALID_COMMAND"),
    ],
)
async def test_of_what_is_refused(a2a: Any, connect: Any, version: str, said: str, reason: str) -> None:
    """Is one event: the task as it has ended."""
    async with connect(a2a.urls[0], version, streaming=True) as agent:
        [event] = await agent.send(said)
    assert event["task"]["status"]["state"] == "TASK_STATE_REJECTED"
    assert event["task"]["metadata"]["reason"] == reason


@pytest.mark.parametrize("how", ["sleeps", "stays"])
async def test_cancelled_meanwhile(a2a: Any, connect: Any, version: str, how: str) -> None:
    """By another gateway: the stream says so at its end, after what was written before, and when nothing runs."""
    name = new_id()
    async with connect(a2a.urls[0], version, streaming=True) as agent, connect(a2a.urls[1], version) as other:
        events = []
        async for event in agent.events(sleeping(name, how)):
            events.append(event)
            if pieces_of([event], "stdout") and len(pieces_of(events, "stdout")) == 1:
                await other.cancel(events[0]["task"]["id"])
    assert states_of(events)[-1] == "canceled"
    assert text_of(pieces_of(events, "stdout")) == "so far\n"
    assert events[-1]["statusUpdate"]["metadata"]["reason"] == "CANCELLED"
    # Also of a process that is killed since it does not heed TERM, or could not yet on a busy machine.
    assert not a2a.is_running(name)


async def test_a_key_that_is_revoked_meanwhile(a2a: Any, connect: Any, http: httpx.AsyncClient, version: str) -> None:
    """Is no end of the task: the command may run on, and its owner's other keys find it."""
    name = new_id()
    made = (await http.post("/admin/keys", json={"owner": "tom", "scopes": ["execute", "read"]})).json()
    events: list[dict[str, Any]] = []
    async with (
        connect(a2a.urls[0], version, streaming=True, key=made["key"]) as agent,
        connect(a2a.urls[1], version) as other,
    ):

        async def watch() -> None:
            async for event in agent.events(sleeping(name)):
                events.append(event)
                if len(events) == 1:
                    (await http.delete(f"/admin/keys/{made['key_id']}")).raise_for_status()

        with pytest.raises(InternalError, match="UNAUTHENTICATED"):
            await watch()
        assert set(states_of(events)) <= {"submitted", "working"}
        # An admin finds it too.
        await other.cancel(events[0]["task"]["id"])


async def test_left_and_taken_up_again(a2a: Any, connect: Any, version: str) -> None:
    """Whoever leaves a stream has cancelled nothing. Any gateway goes on with it, from the beginning of its output."""
    name = new_id()
    async with (
        connect(a2a.urls[0], version, streaming=True) as agent,
        aclosing(agent.events(sleeping(name), context_id=name)) as events,
    ):
        async for event in events:
            if "artifactUpdate" in event:
                task_id = event["artifactUpdate"]["taskId"]
                break
    async with connect(a2a.urls[1], version, streaming=True) as other:
        again = []
        async for event in other.following(task_id):
            again.append(event)
            if pieces_of([event], "stdout") and len(pieces_of(again, "stdout")) == 1:
                # A process that was stopped would have ended by now.
                await asyncio.sleep(1)
                assert a2a.is_running(name)
                await other.cancel(task_id)
        assert (again[0]["task"]["id"], again[0]["task"]["contextId"]) == (task_id, name)
        assert states_of(again)[0] == "working"
        assert states_of(again)[-1] == "canceled"
        assert text_of(pieces_of(again, "stdout")) == "so far\n"
        with pytest.raises(UnsupportedOperationError, match="get it instead"):
            await other.subscribe(task_id)


async def test_sent_again(a2a: Any, connect: Any, version: str) -> None:
    """While the first one runs, or after it: the second stream is about the same task, and has all of its output."""
    name, message_id = new_id(), new_id()
    said = f"script: get pods {name} -n held"
    seen: set[str] = set()

    async def stream(url: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        async with connect(url, version, streaming=True) as agent:
            async for event in agent.events(said, message_id=message_id):
                events.append(event)
                if pieces_of([event], "stdout"):
                    seen.add(url)
                if len(seen) == 2:
                    a2a.let_go(name)
        return events

    streams = [*await asyncio.gather(*map(stream, a2a.urls)), await stream(a2a.urls[0])]
    assert len({events[0]["task"]["id"] for events in streams}) == 1
    for which in (events[0]["task"] for events in streams), (events[-1]["statusUpdate"] for events in streams):
        assert sorted("replayed" in told.get("metadata", {}) for told in which) == [False, True, True]
    for events in streams:
        assert states_of(events)[-1] == "completed"
        assert text_of(pieces_of(events, "stdout")) == "one\nétwo\n"
        assert [each.get("lastChunk", False) for each in pieces_of(events, "stderr")][-1]
    assert a2a.marks(name) == ["begun"]


@pytest.mark.timeout(300)
async def test_fifty_at_a_time(a2a: Any, connect: Any) -> None:
    """In both versions, at both gateways: each has its own output, and nothing is left of them."""

    async def stream(number: int) -> None:
        name = new_id()
        async with connect(a2a.urls[number % 2], ("1.0", "0.3")[number // 2 % 2], streaming=True) as agent:
            events = await agent.send({"cluster": "script", "command": f"get pods {name}", "timeout_seconds": 100})
        assert states_of(events)[-1] == "completed"
        assert text_of(pieces_of(events, "stdout")) == f"{name}\n"

    async with asyncio.timeout(240), asyncio.TaskGroup() as streaming:
        for number in range(STREAMS):
            streaming.create_task(stream(number))
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(60):
        for url in a2a.urls:
            while not OVER.search((await client.get(f"{url}/metrics")).text):
                await asyncio.sleep(0.05)


def sleeping(name: str, how: str = "sleeps") -> dict[str, Any]:
    return {"cluster": "script", "command": f"get pods {name} -n {how}", "timeout_seconds": 100}
