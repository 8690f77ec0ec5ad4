"""Commands that take longer than a client waits, and what is asked of the broker meanwhile. The broker is a script."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from gateway import fanning
from gateway.calling_off import Commands
from gateway.command_answers import ALL
from gateway.mcp import many, together
from gateway.mcp.arguments import LONGEST_WAIT_S
from gateway.mcp.call import Call
from gateway.mcp.naming import id_of, is_of, name_of
from openline.ids import is_command_id, made_at, new_id
from openline.lookups import TIMEOUT_S
from openline.v1 import command_pb2
from openline.v1.command_service_pb2 import ExecuteRequest

HEADERS = {"Accept": "application/json, text/event-stream"}


def calling(tool: str, *, meta: Any = None, **arguments: Any) -> dict[str, Any]:
    params: dict[str, Any] = {"name": tool, "arguments": arguments} | ({"_meta": meta} if meta else {})
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def events(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(line[5:]) for line in answer.text.split("\n") if line.startswith("data:")]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], bool]], None]:
    """`impatient(lambda: …)`: the time of a client begins when this holds, however long it takes until then."""

    def once(holds: Callable[[], bool]) -> None:
        began = time.monotonic()
        monkeypatch.setattr("gateway.mcp.call.LONGEST_WAIT_S", 0.1)
        monkeypatch.setattr("gateway.mcp.call.monotonic", lambda: time.monotonic() if holds() else began)

    return once


@pytest.mark.parametrize("meta", [None, {"progressToken": "p"}], ids=["quiet", "progress"])
async def test_it_runs_on(stage: Any, impatient: Any, meta: Any) -> None:
    """The answer comes before the client loses patience, and says how to get the rest."""

    async def script(_frame: Any, say: Any) -> None:
        await say.state("RUNNING")
        await asyncio.sleep(30)

    async with stage(script) as scene:
        impatient(lambda: bool(scene.broker.asked))
        call = calling("kubectl", meta=meta, cluster="local", command="get pods", timeout_seconds=60)
        told = events(await scene.api.post("/mcp", json=call, headers=HEADERS))[-1]["result"]
        [asked] = scene.broker.asked
        request = asked.execute_stream if meta else asked.execute
        fields = told["structuredContent"]
        assert told["isError"] is False
        assert fields == {
            "command_id": request.command_id,
            "cluster": "local",
            "state": "running",
            "next_step": "get_result waits for it and cancel stops it",
        }
        assert told["content"][0]["text"] == (
            "[still running; it runs on: get_result waits for it and cancel stops it "
            f"(command_id {request.command_id})]"
        )
        # It was left, and not to be cancelled for that.
        assert not request.cancel_on_disconnect
        assert request.timeout_s == pytest.approx(60, abs=5)
        while not scene.broker.abandoned:
            await asyncio.sleep(0.01)


async def test_progress(stage: Any) -> None:
    """What is said goes up, about once a second, and not at all once there is an answer."""
    queued, written = "queued", "running, 1000 bytes so far"
    heard = {queued: asyncio.Event(), written: asyncio.Event()}

    async def script(_frame: Any, say: Any) -> None:
        await say.state("QUEUED")
        await heard[queued].wait()
        await say.state("RUNNING")
        await say.output(0, b"x" * 1000)
        await heard[written].wait()
        await say.result(stdout=b"done")

    told: list[dict[str, Any]] = []
    async with stage(script) as scene:
        call = calling("kubectl", meta={"progressToken": 5}, cluster="local", command="get pods", timeout_seconds=60)
        async with scene.api.stream("POST", "/mcp", json=call, headers=HEADERS) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    told.append(json.loads(line[5:]))
                    heard.get(told[-1].get("params", {}).get("message"), asyncio.Event()).set()
    *progress, last = told
    assert last["result"]["content"][0]["text"] == "done"
    params = [each["params"] for each in progress]
    assert all(each["progressToken"] == 5 for each in params)
    assert [each["message"] for each in params][-1] == written
    # Told in tenths.
    assert all(later["progress"] - sooner["progress"] > 0.9 for sooner, later in itertools.pairwise(params))


async def test_many_that_take_too_long(stage: Any, impatient: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have answered are told, of the others it is said which have begun."""
    monkeypatch.setattr("gateway.fanning.AT_A_TIME", 2)

    async def script(frame: Any, say: Any) -> None:
        if frame.execute.cluster_id != "a":
            await asyncio.sleep(30)
        await say.reply(response={"result": {"outcome": command_pb2.OUTCOME_EXITED, "stdout": b"out"}})

    async with stage(script) as scene:
        # The third one begins when the first one has answered.
        impatient(lambda: len(scene.broker.asked) == 3)
        call = calling("kubectl_fanout", clusters=["a", "b", "c", "d"], command="get pods")
        told = events(await scene.api.post("/mcp", json=call, headers=HEADERS))[-1]["result"]
        assert told["isError"] is False
        problems = {each["clusters"][0]: each for each in told["structuredContent"]["problems"]}
        begun = {each.execute.cluster_id: each.execute.command_id for each in scene.broker.asked}
        assert list(begun) == ["a", "b", "c"]
        assert {name: each["executed"] for name, each in problems.items()} == {
            "b": "unknown",
            "c": "unknown",
            "d": "no",
        }
        assert {each["reason"] for each in problems.values()} == {"STILL_RUNNING"}
        assert problems["b"]["command_id"] == begun["b"]


async def test_what_comes_before_the_wait_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fan-out that has looked for its clusters until a client loses patience is answered with what it has begun."""
    begun: list[str] = []

    async def ask(_pipes: Any, _caller: Any, _wish: Any, request: ExecuteRequest) -> Any:
        begun.append(request.command_id)
        await asyncio.Event().wait()

    monkeypatch.setattr(fanning, "ask", ask)
    call = Call(
        SimpleNamespace(api_key="test-key"),  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        Commands(),
        None,
        arrived_at=time.monotonic() - LONGEST_WAIT_S,
        ends_with_client=False,
        report=None,
    )
    requests = [ExecuteRequest(cluster_id="a", command_id=new_id())]
    async with asyncio.timeout(LONGEST_WAIT_S / 2):
        told = await many.run_in_many(requests, call, ALL, labels_unknown=())
    [problem] = told.fields["problems"]
    assert (problem["reason"], problem["executed"]) == ("STILL_RUNNING", "unknown" if begun else "no")


async def test_what_was_not_begun_does_not_run_on(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time for an answer is up before a broker was asked, none is, and that is what is told."""
    monkeypatch.setattr("gateway.mcp.call.LONGEST_WAIT_S", 0.0)

    async def script(_frame: Any, _say: Any) -> None:
        raise AssertionError("nothing is run")

    async with stage(script) as scene:
        call = calling("kubectl", cluster="local", command="get pods")
        told = events(await scene.api.post("/mcp", json=call, headers=HEADERS))[-1]["result"]
        assert scene.broker.asked == []
    assert told["isError"] is True
    fields = told["structuredContent"]
    assert (fields["reason"], fields["executed"], "command_id" in fields) == ("BROKER_UNAVAILABLE", "no", False)


@pytest.mark.parametrize("meta", [None, {"progressToken": "p"}], ids=["quiet", "progress"])
async def test_what_no_broker_could_be_asked_for_does_not_run_on(
    stage: Any, monkeypatch: pytest.MonkeyPatch, meta: Any
) -> None:
    """Though the command would have had more time: whether one that went away has it is not known."""
    monkeypatch.setattr("gateway.mcp.call.LONGEST_WAIT_S", 1.5)

    async def script(_frame: Any, _say: Any) -> None:
        raise AssertionError("nothing is run")

    async with stage(script) as scene:
        await scene.broker.die()
        call = calling("kubectl", meta=meta, cluster="local", command="get pods", timeout_seconds=60)
        told = events(await scene.api.post("/mcp", json=call, headers=HEADERS))[-1]["result"]
    assert told["isError"] is True
    fields = told["structuredContent"]
    assert (fields["reason"], fields["executed"], "command_id" in fields) == ("BROKER_UNAVAILABLE", "unknown", True)


async def test_a_look_is_answered_in_time(stage: Any) -> None:
    """However long it is to wait: what a broker may need to answer is part of it."""

    async def script(_frame: Any, _say: Any) -> None:
        raise AssertionError("nothing is run")

    async with stage(script) as scene:
        done = command_pb2.Command(command_id=new_id(), result={"outcome": command_pb2.OUTCOME_EXITED})
        scene.broker.commands[done.command_id] = done
        call = calling("get_result", command_id=done.command_id, wait_seconds=LONGEST_WAIT_S)
        assert events(await scene.api.post("/mcp", json=call, headers=HEADERS))[-1]["result"]["isError"] is False
        [look] = scene.broker.looked_up
        assert LONGEST_WAIT_S / 2 < look.wait_s <= LONGEST_WAIT_S - TIMEOUT_S


async def test_output_of_many_is_bounded(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest groups are told, the others are counted."""
    monkeypatch.setattr(together, "MAX_TEXT_CHARS", 10_000)

    async def script(frame: Any, say: Any) -> None:
        output = (frame.execute.cluster_id * 3_900)[:3_900].encode()
        await say.reply(response={"result": {"outcome": command_pb2.OUTCOME_EXITED, "stdout": output}})

    async with stage(script) as scene:
        call = calling("kubectl_fanout", clusters=list("abcde"), command="get pods")
        told = events(await scene.api.post("/mcp", json=call, headers=HEADERS))[-1]["result"]
        assert len(told["structuredContent"]["groups"]) == 2
        assert "[3 more groups are not shown" in told["content"][0]["text"]
        assert len(told["content"][0]["text"]) < 10_500


async def test_a_defect(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not told to anybody but the log, with its conversation, and the next call is answered."""

    async def script(_frame: Any, say: Any) -> None:
        await say.reply(response={"result": {"outcome": command_pb2.OUTCOME_EXITED, "stdout": b"out"}})

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the inner life of a program")

    async with stage(script) as scene:
        with monkeypatch.context() as patched:
            patched.setattr("gateway.mcp.tools.told", broken)
            call = calling("kubectl", cluster="local", command="get pods")
            with structlog.testing.capture_logs() as lines:
                answer = await scene.api.post("/mcp", json=call, headers=HEADERS | {"X-Correlation-ID": "talk-1"})
            assert events(answer)[-1]["error"] == {"code": -32603, "message": "Internal error"}
            [line] = [line for line in lines if line["event"] == "mcp.defect"]
            assert (line["correlation_id"], line["tool"]) == ("talk-1", "kubectl")
        [answer] = events(await scene.api.post("/mcp", json=call, headers=HEADERS))
        assert answer["result"]["content"][0]["text"] == "out"


def test_names() -> None:
    """The same for the same call, another for any other; ids in the order of time and of clusters, all UUIDv7."""
    name = name_of("session", 7)
    assert name == name_of("session", 7)
    assert len({name, name_of("session", "7"), name_of("session", 8), name_of("sessio", 7), name_of("", 7)}) == 5
    now_s = time.time()
    ids = [id_of(name, nth, now_s=now_s + later) for later in (0.0, 0.002) for nth in (0, 1, 4095)]
    assert ids == sorted(ids)
    assert all(is_command_id(each) and is_of(each, name) for each in ids)
    assert made_at(ids[0]) == pytest.approx(now_s, abs=0.001)
    assert not is_of(ids[0], name_of("session", 8))
    assert not is_of("web", name)
    with pytest.raises(ValueError, match="no command 4096"):
        id_of(name, 4096, now_s=now_s)
