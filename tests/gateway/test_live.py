"""The life of a command over REST, through the real broker and executor: live output, fetching, stopping, repeating."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from openline.ids import new_id
from tests.programs import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

Json = dict[str, Any]
POST = "/v1/clusters/local/commands"


async def heard(
    api: httpx.AsyncClient, method: str, path: str, *, into: list[Json] | None = None, **request: Any
) -> list[Json]:
    """The events of a stream, each with its name and id, to its end; they are in `into` as they come."""
    headers = {"Accept": "text/event-stream", **request.pop("headers", {})}
    events = [] if into is None else into
    fields: dict[str, str] = {}
    async with asyncio.timeout(30), api.stream(method, path, headers=headers, **request) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields and not line:
                events.append({"event": fields["event"], "id": fields.get("id"), **json.loads(fields["data"])})
                fields = {}
    return events


def text_of(events: list[Json], source: str) -> str:
    return "".join(event["text"] for event in events if event["event"] == "output" and event["source"] == source)


def held(name: str) -> Json:
    """A command that goes on when its gate is there."""
    return {"argv": ["get", "held", name], "timeout_seconds": 60}


async def begun(api: httpx.AsyncClient, **body: Any) -> tuple[str, asyncio.Task[Any]]:
    """A command that runs and has written something, with its id, and the task that listens to it."""
    told: list[Json] = []
    listening = asyncio.create_task(heard(api, "POST", POST, json=body, into=told))
    await until(lambda: text_of(told, "stdout"))
    return told[0]["command_id"], listening


async def test_output_comes_while_the_command_runs(api: httpx.AsyncClient, gate: Any) -> None:
    """What is written before a pause arrives before it; both streams apart; the result is the last event."""
    name = new_id()
    told: list[Json] = []
    hearing = asyncio.create_task(heard(api, "POST", POST, json=held(name), into=told))
    await until(lambda: text_of(told, "stdout") == "one\n")
    gate(name).touch()
    await hearing
    names = [event["event"] for event in told]
    assert names[-1] == "result"
    assert set(names[:-1]) == {"status", "output"}
    assert (text_of(told, "stdout"), text_of(told, "stderr")) == ("one\ntwo\n", "oh\n")
    ids = [int(event["id"]) for event in told if event["event"] == "output"]
    assert ids == list(range(len(ids)))
    assert len(ids) >= 3, "piece by piece"
    assert (told[-1]["exit_code"], told[-1]["stdout"]) == (0, "one\ntwo\n")


async def test_debug_execute_streams_as_well(api: httpx.AsyncClient) -> None:
    """The last event is the answer of the drop-in surface."""
    told = await heard(api, "POST", "/debug/execute", json={"cluster_id": "local", "args": ["both"]})
    assert (told[-1]["event"], told[-1]["status"], told[-1]["output"]) == ("result", "success", "out\n\nwarning\n")


async def test_what_was_seen_is_not_sent_again(api: httpx.AsyncClient, gate: Any) -> None:
    """Last-Event-ID on a running command: the rest, and the result."""
    name = new_id()
    command_id, listening = await begun(api, **held(name))
    path = f"/v1/commands/{command_id}/events"
    whole: list[Json] = []
    rest: list[Json] = []
    hearing = asyncio.gather(
        heard(api, "GET", path, into=whole), heard(api, "GET", path, into=rest, headers={"Last-Event-ID": "0"})
    )
    await until(lambda: whole and rest)
    gate(name).touch()
    await asyncio.gather(hearing, listening)
    ids = [event["id"] for event in whole if event["event"] == "output"]
    assert [event["id"] for event in rest if event["event"] == "output"] == ids[1:]
    assert whole[-1]["exit_code"] == rest[-1]["exit_code"] == 0


async def test_a_result_is_found_by_its_id(api: httpx.AsyncClient) -> None:
    """Looked up, waited for, and as exact bytes, which the text cannot be."""
    ran = (await api.post(POST, json={"argv": ["get", "binary"]})).json()
    assert (ran["stdout"], ran["encoding_replaced"]) == ("a\N{REPLACEMENT CHARACTER}b", True)
    for path in ("/v1/commands/", "/debug/operations/"):
        found = (await api.get(f"{path}{ran['command_id']}")).json()
        assert (found["state"], found["outcome"], found["stdout"]) == ("done", "exited", ran["stdout"])
    output = await api.get(f"/v1/commands/{ran['command_id']}/output")
    assert (output.content, output.headers["X-Output-Total-Bytes"]) == (b"a\xffb", "3")


async def test_looking_waits_for_the_end(api: httpx.AsyncClient, gate: Any) -> None:
    """Without a wait a running command is shown as it is."""
    name = new_id()
    command_id, listening = await begun(api, **held(name))
    now = (await api.get(f"/v1/commands/{command_id}")).json()
    assert (now["state"], now["outcome"]) == ("running", None)
    assert (await api.get(f"/v1/commands/{command_id}/output")).status_code == 409
    looking = asyncio.create_task(api.get(f"/v1/commands/{command_id}?wait=20"))
    gate(name).touch()
    then = (await looking).json()
    assert (then["state"], then["stdout"]) == ("done", "one\ntwo\n")
    await listening


async def test_a_caller_that_leaves_finds_its_result_later(api: httpx.AsyncClient, gate: Any) -> None:
    """The command runs on without anybody listening."""
    name = new_id()
    command_id, listening = await begun(api, **held(name))
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    gate(name).touch()
    found = (await api.get(f"/v1/commands/{command_id}?wait=20")).json()
    assert (found["outcome"], found["stdout"]) == ("exited", "one\ntwo\n")


async def test_a_command_may_be_cancelled_with_its_caller(api: httpx.AsyncClient) -> None:
    """cancel_on_disconnect: it ends long before its time."""
    command_id, listening = await begun(api, argv=["get", "slow"], timeout_seconds=25, cancel_on_disconnect=True)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    found = (await api.get(f"/v1/commands/{command_id}?wait=15")).json()
    assert (found["outcome"], found["error"]["reason"]) == ("cancelled", "CANCELLED")


async def test_delete_stops_a_command(api: httpx.AsyncClient) -> None:
    """202, then it has ended with its output so far; after that 200, and nothing changes."""
    command_id, listening = await begun(api, argv=["get", "slow"], timeout_seconds=25)
    stopped = await api.delete(f"/v1/commands/{command_id}")
    assert (stopped.status_code, stopped.json()["state"]) == (202, "running")
    found = (await api.get(f"/v1/commands/{command_id}?wait=15")).json()
    assert (found["outcome"], found["stdout"]) == ("cancelled", "so far\n")
    again = await api.delete(f"/v1/commands/{command_id}")
    assert (again.status_code, again.json()["state"]) == (200, "done")
    await listening


async def test_another_owners_command_does_not_exist(api: httpx.AsyncClient) -> None:
    """404 for looking, following and stopping."""
    ran = (await api.post(POST, json={"argv": ["get", "pods"]})).json()
    path, other = f"/v1/commands/{ran['command_id']}", {"X-API-Key": "other-key"}
    for method, where in (("GET", path), ("GET", f"{path}/events"), ("GET", f"{path}/output"), ("DELETE", path)):
        response = await api.request(method, where, headers=other)
        assert (response.status_code, response.json()["reason"]) == (404, "COMMAND_UNKNOWN"), (method, where)


async def test_a_command_that_never_was_is_404(api: httpx.AsyncClient) -> None:
    """A well-formed id that nobody used."""
    response = await api.get(f"/v1/commands/{new_id()}")
    assert (response.status_code, response.json()["reason"]) == (404, "COMMAND_UNKNOWN")


async def test_the_same_key_gives_the_same_command(api: httpx.AsyncClient) -> None:
    """50 times at once, and once more later: one run, one answer, and every one but the first says so."""
    headers = {"Idempotency-Key": new_id()}
    body = {"argv": ["get", "unique"]}
    answers = await asyncio.gather(*(api.post(POST, json=body, headers=headers) for _ in range(50)))
    answers.append(await api.post(POST, json=body, headers=headers))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["stdout"] for answer in answers}) == 1
    assert len({answer.json()["command_id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    other = await api.post(POST, json={"argv": ["get", "pods"]}, headers=headers)
    assert (other.status_code, other.json()["reason"]) == (422, "IDEMPOTENCY_CONFLICT")


async def test_a_replayed_stream_names_the_command_that_there_is(api: httpx.AsyncClient) -> None:
    """From its first event on: the id of this request is nobody's."""
    headers = {"Idempotency-Key": new_id(), "Accept": "text/event-stream"}
    body = {"argv": ["get", "drip"]}
    first, again = await asyncio.gather(*(api.post(POST, json=body, headers=headers) for _ in range(2)))
    told = [
        [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
        for answer in (first, again)
    ]
    names = {event["command_id"] for events in told for event in events if "command_id" in event}
    assert len(names) == 1
    assert all("state" in events[0] for events in told)
    later = await api.post(POST, json=body, headers=headers)
    replayed = [answer.headers.get("Idempotency-Replayed") for answer in (first, again, later)]
    assert sorted(replayed, key=str) == [None, "true", "true"]
    assert replayed[2]


@pytest.mark.parametrize("path", [POST, "/debug/execute"])
async def test_a_replay_has_the_first_ones_correlation_id(api: httpx.AsyncClient, path: str) -> None:
    """It is the same command; the head has that of this very request."""
    body = {"argv": ["get", "pods"]} if path == POST else {"cluster_id": "local", "args": ["pods"]}
    key = {"Idempotency-Key": new_id()}
    await api.post(path, json=body, headers={"X-Correlation-ID": "first", **key})
    again = await api.post(path, json=body | {"timeout_seconds": 20}, headers={"X-Correlation-ID": "second", **key})
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.json()["correlation_id"], again.headers["X-Correlation-ID"]) == ("first", "second")


async def test_waiting_for_an_absent_cluster_is_apart_from_the_run(api: httpx.AsyncClient) -> None:
    """CLUSTER_OFFLINE after the wait that was asked for, not at once."""
    clock = asyncio.get_running_loop().time
    began = clock()
    body = {"cluster_id": "west", "wait_for_cluster_s": 1}
    response = await api.post("/debug/execute", json=body)
    assert (response.status_code, response.json()["reason"]) == (503, "CLUSTER_OFFLINE")
    assert clock() - began >= 0.9


@pytest.mark.parametrize("wait_s", [0, 0.3])
async def test_a_stream_to_an_absent_cluster_is_503(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, wait_s: float
) -> None:
    """An ordinary problem, not a stream: nothing has been said yet."""
    monkeypatch.setattr("gateway.following.HEAD_WAIT_S", 20.0)
    headers = {"Accept": "text/event-stream"}
    body = {"argv": ["get", "pods"], "wait_for_cluster_s": wait_s}
    response = await api.post("/v1/clusters/west/commands", json=body, headers=headers)
    assert (response.status_code, response.json()["reason"]) == (503, "CLUSTER_OFFLINE")


@pytest.mark.usefixtures("patience")
async def test_following_a_log_ends_with_the_deadline(api: httpx.AsyncClient) -> None:
    """logs -f is for streams: refused elsewhere, and on a stream it ends in time with everything said so far."""
    refused = await api.post(POST, json={"argv": ["logs", "-f", "web"]})
    assert (refused.status_code, refused.json()["reason"]) == (403, "POLICY_DENIED")
    told = await heard(api, "POST", POST, json={"argv": ["logs", "slow", "-f"], "timeout_seconds": 3})
    assert (told[-1]["event"], told[-1]["outcome"], text_of(told, "stdout")) == ("result", "timed_out", "so far\n")
