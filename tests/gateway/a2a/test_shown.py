"""A command's events as A2A streams them, where what comes is made up: what a real command seldom does."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Request
from starlette.types import Message

from gateway.a2a.forms import V0_3, V1_0, Form
from gateway.a2a.shown import TaskShown
from gateway.a2a.tasks import State, Status, Task
from gateway.exchange import Exchange
from gateway.following import CommandStream
from openline.calls import broker_unavailable
from openline.errors import OpenlineError, error
from openline.ids import new_id
from openline.reasons import UNKNOWN, Reason
from openline.v1 import command_pb2 as pb
from openline.v1.command_service_pb2 import ExecuteRequest

OUT, ERR = pb.OUTPUT_SOURCE_STDOUT, pb.OUTPUT_SOURCE_STDERR
RUNNING = pb.CommandEvent(state=pb.COMMAND_STATE_RUNNING)


def output(data: bytes, source: pb.OutputSource.ValueType = OUT) -> pb.CommandEvent:
    return pb.CommandEvent(output=pb.Output(source=source, data=data))


def result(**fields: Any) -> pb.CommandEvent:
    return pb.CommandEvent(result=pb.CommandResult(outcome=pb.OUTCOME_EXITED, **fields))


class Stream:
    """One for a request, and what it says."""

    def __init__(self, form: Form = V1_0) -> None:
        request = ExecuteRequest(command_id=new_id(), cluster_id="prod", correlation_id="this")
        self.task_id = request.command_id
        self._shown = TaskShown(form, 7, request)
        self._scope: dict[str, Any] = {}
        Exchange.begin(self._scope, {})

    async def say(self, *events: pb.CommandEvent) -> list[dict[str, Any]]:
        return [said for event in events for said in read(await self._shown.event(event, self._scope))]

    async def fail(self, failure: OpenlineError) -> list[dict[str, Any]]:
        return read(await self._shown.failure(failure, self._scope))


def read(events: bytes) -> list[dict[str, Any]]:
    """Each is an answer to the request."""
    said = [json.loads(event.removeprefix("data: ")) for event in events.decode().split("\n\n") if event]
    assert all((each["jsonrpc"], each["id"]) == ("2.0", 7) for each in said)
    return said


def text_of(said: list[dict[str, Any]], name: str) -> str:
    updates = [each["result"]["artifactUpdate"]["artifact"] for each in said if "artifactUpdate" in each["result"]]
    return "".join(part["text"] for each in updates if each["artifactId"] == name for part in each["parts"])


async def test_what_is_missing() -> None:
    """Is a status of its own, and no output; what comes after it does not complete the half character before."""
    said = await Stream().say(
        RUNNING,
        output(b"a\xc3"),
        pb.CommandEvent(gap=pb.OutputGap(missed_bytes=5, next_seq=9)),
        output(b"\xa9b"),
        result(stdout=b"whole", exit_code=0),
    )
    assert text_of(said, "stdout") == "a\ufffd\ufffdb"
    [missed] = [each for each in said if "missed_bytes" in each["result"].get("statusUpdate", {}).get("metadata", {})]
    update = missed["result"]["statusUpdate"]
    assert update["metadata"] == {"missed_bytes": 5}
    assert update["status"]["state"] == "TASK_STATE_WORKING"
    assert update["status"]["message"]["parts"][0]["text"].startswith("5 bytes of output are missing")


async def test_of_one_that_had_ended() -> None:
    """Where no output comes before the result, all of it comes with that."""
    said = await Stream().say(result(stdout=b"out", stderr=b"err", exit_code=1))
    assert list(said[0]["result"]) == ["task"]
    assert (text_of(said, "stdout"), text_of(said, "stderr")) == ("out", "err")
    assert said[-1]["result"]["statusUpdate"]["status"]["state"] == "TASK_STATE_FAILED"


async def test_characters_in_pieces() -> None:
    """Come whole, of each stream apart, and a half that stays alone is replaced at the end."""
    word = "é".encode()
    said = await Stream().say(
        output(word[:1]), output(word[:1], ERR), output(word[1:]), output(word[1:] + word[:1], ERR), result(exit_code=0)
    )
    assert (text_of(said, "stdout"), text_of(said, "stderr")) == ("é", "é\ufffd")


async def test_a_state_once() -> None:
    """Steps on the way that the protocol has no word for are not told again."""
    states = [pb.COMMAND_STATE_QUEUED, pb.COMMAND_STATE_WRITTEN, pb.COMMAND_STATE_ACCEPTED, pb.COMMAND_STATE_RUNNING]
    said = await Stream().say(*(pb.CommandEvent(state=state) for state in states), pb.CommandEvent())
    assert [list(each["result"]) for each in said] == [["task"], ["statusUpdate"]]


@pytest.mark.parametrize("form", [V0_3, V1_0])
async def test_the_way_breaks_off(form: Form) -> None:
    """Is an error and no end of the task, which may run on; it says under which id to ask."""
    stream = Stream(form)
    await stream.say(RUNNING)
    [said] = await stream.fail(broker_unavailable("no broker replica answers", executed=UNKNOWN))
    assert said["error"]["code"] == -32603
    assert said["error"]["data"][0]["metadata"]["task_id"] == stream.task_id


@pytest.mark.parametrize("reason", [Reason.UNAUTHENTICATED, Reason.SCOPE_MISSING])
async def test_the_key_is_refused_meanwhile(reason: Reason) -> None:
    """Is no end of the task either: another key of the owner may ask for it."""
    stream = Stream()
    await stream.say(RUNNING)
    [said] = await stream.fail(OpenlineError(error(reason, "no", executed=UNKNOWN)))
    assert said["error"]["code"] == -32603
    assert said["error"]["message"] == f"{reason}: no. Ask for task {stream.task_id} with a good key: it may be running"


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (Reason.EXECUTOR_LOST, "TASK_STATE_FAILED"),
        (Reason.COMMAND_TIMEOUT, "TASK_STATE_FAILED"),
        (Reason.CANCELLED, "TASK_STATE_CANCELED"),
        (Reason.POLICY_DENIED, "TASK_STATE_REJECTED"),
        (Reason.CLUSTER_BUSY, "TASK_STATE_REJECTED"),
    ],
)
async def test_the_command_fails(reason: Reason, state: str) -> None:
    """Is the task's end, which says why."""
    stream = Stream()
    await stream.say(output(b"so far"))
    said = await stream.fail(OpenlineError(error(reason, "it went wrong")))
    update = said[-1]["result"]["statusUpdate"]
    assert update["status"]["state"] == state
    assert update["metadata"]["reason"] == reason
    assert update["taskId"] == stream.task_id
    assert said[0]["result"]["artifactUpdate"]["lastChunk"]


async def test_a_task_that_is_known() -> None:
    """Is told of before anything is heard of it: whoever subscribes is told at once how far it is."""
    never = asyncio.Event()
    told: asyncio.Queue[Message] = asyncio.Queue()
    scope: dict[str, Any] = {"type": "http"}
    Exchange.begin(scope, {})

    async def receive() -> Message:
        await never.wait()
        raise AssertionError("nobody leaves")

    async def silence() -> AsyncIterator[pb.CommandEvent]:
        await never.wait()
        yield RUNNING

    request = ExecuteRequest(command_id=new_id())
    begun = Task(request.command_id, "this", Status(State.WORKING))
    shown = TaskShown(V1_0, 7, request, begun=begun)
    stream = await CommandStream.open(silence(), Request(scope, receive), shown=shown, ping_s=60, opening=shown.begin())
    telling = asyncio.create_task(stream(scope, receive, told.put))
    async with asyncio.timeout(60):
        await told.get()
        [said] = read((await told.get())["body"])
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    assert said["result"]["task"]["id"] == request.command_id
    assert said["result"]["task"]["status"]["state"] == "TASK_STATE_WORKING"
    # And not a second time.
    assert read(await shown.event(RUNNING, scope)) == []
