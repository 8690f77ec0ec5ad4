"""`Prefer: respond-async` and /debug/execute/async: answers before a command's end, and where its result is then."""

import asyncio
from typing import Any

import httpx
import pytest

from openline.errors import error
from openline.ids import new_id
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from tests.programs import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

POST = "/v1/clusters/local/commands"
SLOW = {"argv": ["get", "pause"]}


@pytest.fixture(autouse=True)
def news(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is waited for as long as it takes, where it is not said otherwise."""
    monkeypatch.setattr("gateway.deferring.NEWS_WAIT_S", 20.0)


def held(name: str) -> dict[str, Any]:
    """A command that goes on when its gate is there."""
    return {"argv": ["get", "held", name], "timeout_seconds": 60}


async def running(frame: pb.CallerFrame, say: Any) -> None:
    await say.state("QUEUED")
    await say.state("RUNNING")


async def queued(frame: pb.CallerFrame, say: Any) -> None:
    await say.state("QUEUED")


async def test_a_command_in_time_is_an_ordinary_answer(api: httpx.AsyncClient) -> None:
    """200, as if nothing had been preferred."""
    response = await api.post(POST, json=SLOW, headers={"Prefer": "respond-async, wait=15"})
    assert (response.status_code, response.json()["stdout"]) == (200, "done\n")
    assert "Location" not in response.headers


@pytest.mark.parametrize(("prefer", "applied"), [("respond-async", None), ("wait=0, respond-async", "wait=0")])
async def test_a_command_that_takes_longer_is_202(
    api: httpx.AsyncClient, gate: Any, prefer: str, applied: str | None
) -> None:
    """With its id, its state, and where its result will be; and it runs on."""
    name = new_id()
    response = await api.post(POST, json=held(name), headers={"Prefer": prefer})
    told = response.json()
    assert response.status_code == 202
    assert told["state"] in ("accepted", "running")
    assert (told["outcome"], told["argv"]) == (None, ["get", "held", name])
    assert response.headers["Location"] == told["links"]["self"] == f"/v1/commands/{told['command_id']}"
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Preference-Applied"] == (f"respond-async, {applied}" if applied else "respond-async")
    gate(name).touch()
    found = (await api.get(f"{response.headers['Location']}?wait=20")).json()
    assert (found["outcome"], found["stdout"]) == ("exited", "one\ntwo\n")


async def test_execute_async(api: httpx.AsyncClient, gate: Any) -> None:
    """202 with the old API's three fields; the result is found at poll_url."""
    name = new_id()
    body = {"cluster_id": "local", "args": ["held", name], "timeout_seconds": 60}
    response = await api.post("/debug/execute/async", json=body)
    told = response.json()
    assert response.status_code == 202
    assert told == {
        "operation_id": told["operation_id"],
        "status": "pending",
        "poll_url": f"/debug/operations/{told['operation_id']}",
    }
    assert response.headers["Location"] == told["poll_url"]
    gate(name).touch()
    found = (await api.get(f"{told['poll_url']}?wait=20")).json()
    assert (found["command_id"], found["stdout"]) == (told["operation_id"], "one\ntwo\n")


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/clusters/west/commands", SLOW), ("/debug/execute/async", {"cluster_id": "west", "args": ["pods"]})],
)
async def test_what_cannot_run_is_told_at_once(api: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    """An offline cluster is a 503, not a 202 for something that will never be."""
    response = await api.post(path, json=body, headers={"Prefer": "respond-async"})
    assert (response.status_code, response.json()["reason"]) == (503, "CLUSTER_OFFLINE")


async def test_what_the_policy_denies_is_told_at_once(api: httpx.AsyncClient) -> None:
    """The answer waits for the executor to take the command."""
    response = await api.post(POST, json={"argv": ["delete", "pod", "x"]}, headers={"Prefer": "respond-async"})
    assert (response.status_code, response.json()["reason"]) == (403, "POLICY_DENIED")


async def test_a_command_that_fails_in_its_time_is_what_it_always_is(stage: Any) -> None:
    """A timeout within the wait is a 504 with the output so far."""

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        await say.state("RUNNING")
        await say.result(
            outcome=command_pb2.OUTCOME_TIMED_OUT, stdout=b"so far", error=error(Reason.COMMAND_TIMEOUT, "stopped")
        )

    async with stage(script) as scene:
        response = await scene.api.post(POST, json=SLOW, headers={"Prefer": "respond-async, wait=5"})
    assert (response.status_code, response.json()["stdout"]) == (504, "so far")


async def test_a_command_that_waits_for_its_cluster_is_202_after_a_moment(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has it, even if no executor has."""
    monkeypatch.setattr("gateway.deferring.NEWS_WAIT_S", 0.5)
    async with stage(queued) as scene:
        response = await scene.api.post(POST, json=SLOW, headers={"Prefer": "respond-async"})
        assert (response.status_code, response.json()["state"]) == (202, "queued")
        await until(lambda: bool(scene.broker.abandoned))
        assert scene.open_calls == 0


async def test_what_is_to_be_cancelled_with_its_caller_is_waited_for(stage: Any) -> None:
    """A preference may be ignored: nobody waits after a 202."""

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        assert frame.HasField("execute")
        result = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED)
        await say.reply(response=pb.ExecuteResponse(result=result))

    async with stage(script) as scene:
        body = {**SLOW, "cancel_on_disconnect": True}
        response = await scene.api.post(POST, json=body, headers={"Prefer": "respond-async"})
    assert (response.status_code, "Preference-Applied" in response.headers) == (200, False)


async def test_a_202_never_names_a_command_that_is_another_one(stage: Any) -> None:
    """With a key that an earlier request has used, it has an id that some brokers say only with its result."""
    older = new_id()

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        await say.state("RUNNING")
        await asyncio.sleep(0.3)
        await say.result(command_id=older, stdout=b"out")

    async with stage(script) as scene:
        headers = {"Prefer": "respond-async", "Idempotency-Key": "i"}
        response = await scene.api.post(POST, json=SLOW, headers=headers)
    assert (response.status_code, response.json()["command_id"]) == (200, older)
    assert response.headers["Idempotency-Replayed"] == "true"


async def test_an_own_key_does_not_hinder_a_202(api: httpx.AsyncClient, gate: Any) -> None:
    """Nor does one that an earlier request has used: the second one is told of the first one's command."""
    headers = {"Prefer": "respond-async", "Idempotency-Key": new_id()}
    name = new_id()
    first, second = [await api.post(POST, json=held(name), headers=headers) for _ in range(2)]
    same = {"cluster_id": "local", "args": ["held", name], "namespace": None, "timeout_seconds": 60}
    drop_in = await api.post("/debug/execute/async", json=same, headers=headers)
    gate(name).touch()
    assert [answer.status_code for answer in (first, second, drop_in)] == [202] * 3
    assert first.json()["command_id"] == second.json()["command_id"] == drop_in.json()["operation_id"]
    replayed = [answer.headers.get("Idempotency-Replayed") for answer in (first, second, drop_in)]
    assert replayed == [None, "true", "true"]
    assert second.headers["Location"] == first.headers["Location"]


async def test_output_comes_once(stage: Any) -> None:
    """With the result: the broker is asked to leave out what nobody is shown."""

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        assert frame.execute_stream.without_output
        await say.state("RUNNING")
        await say.result(stdout=b"out")

    async with stage(script) as scene:
        response = await scene.api.post(POST, json=SLOW, headers={"Prefer": "respond-async, wait=5"})
    assert (response.status_code, response.json()["stdout"]) == (200, "out")


async def test_a_caller_that_leaves_meanwhile_leaves_nothing_behind(stage: Any) -> None:
    """The call is abandoned, and no task is left."""
    async with stage(running) as scene:
        headers = {"Prefer": "respond-async, wait=30"}
        call = asyncio.create_task(scene.api.post(POST, json=SLOW, headers=headers))
        await until(lambda: bool(scene.broker.asked))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: bool(scene.broker.abandoned))
        assert scene.open_calls == 0
        await until(lambda: not {t.get_name() for t in asyncio.all_tasks()} & {"deferred-read", "deferred-wait"})
