"""The gateway in front of several broker replicas that are killed, drained and away: scripted ones, at will."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from openline.errors import error
from openline.ids import new_id
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.executor_service_pb2 import GoAway
from tests.programs import until

POST = "/v1/clusters/local/commands"
BODY = {"argv": ["get", "pods"]}
SSE = {"Accept": "text/event-stream"}
Event = tuple[str, str | None, Any]


async def heard(
    api: httpx.AsyncClient, method: str, path: str, *, into: list[Event] | None = None, **request: Any
) -> list[Event]:
    """The name, the id and the data of each event, to the end; they are in `into` as they come."""
    events = [] if into is None else into
    fields: dict[str, str] = {}
    async with asyncio.timeout(30), api.stream(method, path, headers=SSE, **request) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields and not line:
                events.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
                fields = {}
    return events


async def mute(_frame: pb.CallerFrame, _say: Any) -> None:
    return


async def answering(frame: pb.CallerFrame, say: Any) -> None:
    """Three lines and a result, in whichever way it is asked for."""
    if frame.HasField("cancel"):
        await say.reply(cancelled=pb.CancelCommandResponse(state=command_pb2.COMMAND_STATE_RUNNING))
        return
    if frame.HasField("execute"):
        result = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, stdout=b"0\n1\n2\n")
        await say.reply(response=pb.ExecuteResponse(result=result))
        return
    await say.state("RUNNING")
    for seq in range(frame.watch.from_seq, 3):
        await say.output(seq, b"%d\n" % seq)
    await say.result(stdout=b"0\n1\n2\n")


async def breaking(frame: pb.CallerFrame, say: Any) -> None:
    """Output begins and never ends."""
    await say.state("RUNNING")
    await say.output(0, b"0\n")


@pytest.mark.parametrize("path", ["/debug/execute", POST])
async def test_a_command_survives_its_replica(stage: Any, path: str) -> None:
    """kill -9 in the middle: the other replica is asked to attach to the same command, and its answer is the answer."""
    body = BODY if path == POST else {"cluster_id": "local", "args": ["pods"]}
    async with stage(mute, answering) as scene:
        first, second = scene.brokers
        call = asyncio.create_task(scene.api.post(path, json=body))
        await until(lambda: bool(first.asked))
        await first.die()
        answer = await call
    assert (answer.status_code, answer.json()["stdout"]) == (200, "0\n1\n2\n")
    [lost], [found] = first.asked, second.asked
    assert answer.json()["command_id"] == lost.execute.command_id == found.execute.command_id
    assert (lost.execute.attach, found.execute.attach) == (False, True)


async def test_a_stream_survives_its_replica(stage: Any) -> None:
    """Each line once, with its id, and one result; the rest came from the other replica."""
    async with stage(breaking, answering) as scene:
        first, second = scene.brokers
        told: list[Event] = []
        listening = asyncio.create_task(heard(scene.api, "POST", POST, json=BODY, into=told))
        await until(lambda: "output" in [name for name, _, _ in told])
        await first.die()
        await listening
    assert [identity for name, identity, _ in told if name == "output"] == ["0", "1", "2"]
    assert "".join(data["text"] for name, _, data in told if name == "output") == "0\n1\n2\n"
    assert [name for name, _, _ in told].count("result") == 1
    assert [frame.watch.from_seq for frame in second.asked] == [1]


async def test_a_stream_that_never_began_is_attached_to(stage: Any) -> None:
    """A replica that does not know the command, since it died on its way there, is asked to make sure."""

    async def finding(frame: pb.CallerFrame, say: Any) -> None:
        if frame.HasField("watch"):
            await say.reply(error=error(Reason.COMMAND_UNKNOWN, "no such command"))
        else:
            await answering(frame, say)

    async with stage(mute, finding) as scene:
        first, second = scene.brokers
        listening = asyncio.create_task(heard(scene.api, "POST", POST, json=BODY))
        await until(lambda: bool(first.asked))
        await first.die()
        told = await listening
    assert [name for name, _, _ in told] == ["status", "output", "output", "output", "result"]
    assert [frame.WhichOneof("frame") for frame in second.asked] == ["watch", "execute_stream"]
    assert second.asked[1].execute_stream.attach


async def test_who_watches_survives_the_replica(stage: Any) -> None:
    """The same for a command that is attached to."""
    async with stage(breaking, answering) as scene:
        first, _ = scene.brokers
        told: list[Event] = []
        listening = asyncio.create_task(heard(scene.api, "GET", f"/v1/commands/{new_id()}/events", into=told))
        await until(lambda: "output" in [name for name, _, _ in told])
        await first.die()
        await listening
    assert [identity for name, identity, _ in told if name == "output"] == ["0", "1", "2"]


async def test_a_replica_that_drains_is_left(stage: Any) -> None:
    """What it has it finishes; what is new goes to the other one; health is 200 and says who is connected."""
    async with stage(mute, answering) as scene:
        first, second = scene.brokers
        call = asyncio.create_task(scene.api.post(POST, json=BODY))
        await until(lambda: bool(first.asked))
        await first.write(pb.ReplyFrame(go_away=GoAway(reason="draining", reconnect_after_s=60)))
        await until(lambda: not scene.pipes.replicas[0].is_connected)
        health = await scene.api.get("/health")
        assert health.status_code == 200
        assert [(b["connected"], b["replica_id"]) for b in health.json()["brokers"]] == [(False, None), (True, "b")]
        assert (await scene.api.post(POST, json=BODY)).status_code == 200
        result = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED, stdout=b"there")
        response = pb.ExecuteResponse(result=result)
        await first.write(pb.ReplyFrame(call_id=first.asked[0].call_id, response=response))
        assert (await call).json()["stdout"] == "there"
        assert (len(first.asked), len(second.asked)) == (1, 1)


async def test_the_only_replica_may_be_restarted(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is away health is 503, and callers wait; when it is back they are answered, a lookup as well."""
    for module in ("calling_off", "stubs"):
        monkeypatch.setattr(f"gateway.{module}.TIMEOUT_S", 20.0)
    command_id = new_id()
    async with stage(answering) as scene:
        scene.broker.commands[command_id] = command_pb2.Command(
            command_id=command_id, state=command_pb2.COMMAND_STATE_FORWARDED
        )
        await scene.broker.die()
        await until(lambda: not scene.pipes.replicas[0].is_connected)
        assert (await scene.api.get("/health")).status_code == 503
        path = f"/v1/commands/{command_id}"
        calls = [scene.api.post(POST, json=BODY), scene.api.get(path), scene.api.delete(path)]
        waiting = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.1)
        await scene.broker.start(scene.pipes.replicas[0].address.port)
        ran, found, stopped = await asyncio.gather(*waiting)
    assert (ran.status_code, found.status_code, stopped.status_code) == (200, 200, 202)
    assert found.json()["state"] == "forwarded"


async def test_a_command_is_found_and_stopped_through_another_replica(stage: Any) -> None:
    """Right after the one that is asked first was killed, noticed or not."""
    command_id = new_id()
    async with stage(answering, answering) as scene:
        first, second = scene.brokers
        second.commands[command_id] = command_pb2.Command(
            command_id=command_id, state=command_pb2.COMMAND_STATE_RUNNING
        )
        await first.die()
        path = f"/v1/commands/{command_id}"
        assert (await scene.api.get(path)).json()["state"] == "running"
        assert (await scene.api.delete(path)).status_code == 202
    assert [frame.cancel.command_id for frame in second.asked] == [command_id]


async def test_one_replica_that_does_not_know_a_command_is_enough(stage: Any) -> None:
    """It would have found it wherever it is: 404, and nobody else is asked."""

    async def unknown(_frame: pb.CallerFrame, say: Any) -> None:
        await say.reply(error=error(Reason.COMMAND_UNKNOWN, "no such command"))

    async with stage(unknown, answering) as scene:
        path = f"/v1/commands/{new_id()}"
        for method, where in (("GET", path), ("GET", f"{path}/events"), ("DELETE", path)):
            answer = await scene.api.request(method, where)
            assert (answer.status_code, answer.json()["reason"]) == (404, "COMMAND_UNKNOWN")
        assert len(scene.brokers[0].looked_up) == 1
        assert scene.brokers[1].looked_up == []
        assert scene.brokers[1].asked == []


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("/debug/execute", {}), (POST, SSE), (POST, {"Prefer": "respond-async"})],
    ids=["whole", "events", "later"],
)
async def test_what_may_have_run_is_named(
    stage: Any, monkeypatch: pytest.MonkeyPatch, path: str, wanted: dict[str, str]
) -> None:
    """Nobody answers, so nobody knows whether it ran: the problem says under which id to look."""
    # All of the time is in the header.
    monkeypatch.setattr("gateway.executing.WAIT_ALLOWANCE_S", 0.0)
    body = BODY if path == POST else {"cluster_id": "local", "args": ["pods"]}

    async def breaking_off(_frame: pb.CallerFrame, say: Any) -> None:
        await say.reply(error=error(Reason.BROKER_UNAVAILABLE, "gone"))

    async with stage(breaking_off) as scene:
        answer = await scene.api.post(path, json=body, headers={"X-Request-Timeout": "3", **wanted})
        asked = scene.broker.asked[0]
    told = answer.json() if answer.status_code == 503 else json.loads(answer.text.split("data: ")[-1])
    assert (told["reason"], told["executed"]) == ("BROKER_UNAVAILABLE", "unknown")
    assert told["command_id"] == getattr(asked, str(asked.WhichOneof("frame"))).command_id


@pytest.mark.parametrize("path", ["/debug/execute", POST])
async def test_the_timeout_of_the_header_is_all_told(stage: Any, path: str) -> None:
    """The wait for the cluster is within it, and leaves half of it to the command."""
    body = (BODY if path == POST else {"cluster_id": "local", "args": ["pods"]}) | {"wait_for_cluster_s": 300}
    began = time.monotonic()
    async with stage(answering) as scene:
        await scene.api.post(path, json=body, headers={"X-Request-Timeout": "20"})
        await scene.api.post(path, json=body | {"wait_for_cluster_s": 4}, headers={"X-Request-Timeout": "20"})
        await scene.api.post(path, json=body | {"timeout_seconds": 30})
        asked = [(frame.execute.timeout_s, frame.execute.wait_for_cluster_s) for frame in scene.broker.asked]
    # Less what has passed when a replica is asked.
    took_s = time.monotonic() - began
    told = zip([pair for pairs in asked for pair in pairs], [10, 10, 16, 4, 30, 300], strict=True)
    assert all(most - took_s <= each <= most for each, most in told)


async def test_a_frozen_replica_takes_half_of_what_the_caller_waits(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look is answered by the other one within the time of the header, its own wait included; or not at all."""
    monkeypatch.setattr("gateway.stubs.TIMEOUT_S", 60.0)
    command = command_pb2.Command(command_id=new_id(), state=command_pb2.COMMAND_STATE_RUNNING)
    clock = asyncio.get_running_loop().time
    async with stage(mute, mute) as scene:
        first, second = scene.brokers
        first.is_frozen = True
        second.commands[command.command_id] = command
        path, headers = f"/v1/commands/{command.command_id}?wait=1", {"X-Request-Timeout": "3"}
        found = await scene.api.get(path, headers=headers)
        second.is_frozen = True
        began = clock()
        lost = await scene.api.get(path, headers=headers)
        took_s = clock() - began
    assert (found.status_code, found.json()["state"]) == (200, "running")
    assert (lost.status_code, lost.json()["reason"]) == (503, "BROKER_UNAVAILABLE")
    assert took_s < 10
