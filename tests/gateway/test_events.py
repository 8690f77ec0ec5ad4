"""Server-Sent Events: a command's output as it comes, through a real uvicorn, from a broker that keeps to a script."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway import serving
from openline.errors import error
from openline.ids import new_id
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")

ACCEPT = {"Accept": "text/event-stream"}
BODY = {"argv": ["get", "pods"]}
POST = "/v1/clusters/local/commands"

Script = Callable[[pb.CallerFrame, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Sent:
    """One event as the client sees it."""

    name: str
    identity: str | None
    data: dict[str, Any]


@asynccontextmanager
async def listening(
    api: httpx.AsyncClient, method: str, path: str, **request: Any
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[Sent | str]]]:
    headers = {**ACCEPT, **request.pop("headers", {})}
    async with asyncio.timeout(60), api.stream(method, path, headers=headers, **request) as response:
        yield response, _parsed(response)


async def _parsed(response: httpx.Response) -> AsyncIterator[Sent | str]:
    """Events, and comments as they are."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield line
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Sent(fields["event"], fields.get("id"), json.loads(fields["data"]))
            fields = {}


async def heard(api: httpx.AsyncClient, method: str = "POST", path: str = POST, **request: Any) -> list[Sent]:
    """All events of a stream to its end."""
    if method == "POST":
        request.setdefault("json", BODY)
    async with listening(api, method, path, **request) as (response, events):
        assert response.status_code == 200, await response.aread()
        return [event async for event in events if isinstance(event, Sent)]


def text_of(events: list[Sent], source: str) -> str:
    return "".join(event.data["text"] for event in events if event.data.get("source") == source)


async def until(condition: Callable[[], bool], *, within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def ordinary(frame: pb.CallerFrame, say: Any) -> None:
    """stdout, stderr, stdout, then an exit code of 3; from the seq that is asked for."""
    for state in ("QUEUED", "WRITTEN", "ACCEPTED", "RUNNING"):
        await say.state(state)
    for seq, data in enumerate((b"one\n", b"oh\n", b"two\n")):
        if seq >= frame.watch.from_seq:
            await say.output(seq, data, stderr=seq == 1)
    await say.result(exit_code=3, stdout=b"one\ntwo\n", stderr=b"oh\n")


async def endless(_frame: pb.CallerFrame, say: Any) -> None:
    await say.state("RUNNING")
    seq = 0
    while True:
        await say.output(seq, b"line\n")
        seq += 1
        await asyncio.sleep(0.01)


async def mute(_frame: pb.CallerFrame, say: Any) -> None:
    await say.state("RUNNING")
    await asyncio.sleep(60)


# Order and form


async def test_events_come_in_order_with_their_ids(stage: Any) -> None:
    """Status, output of both streams apart, result; ids are the seqs of output, and the stream ends by itself."""
    async with stage(ordinary) as scene:
        async with listening(scene.api, "POST", POST, json=BODY) as (response, events):
            told = [event async for event in events]
        [asked] = scene.broker.asked
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert "Content-Length" not in response.headers
    assert [(event.name, event.identity) for event in told] == [
        ("status", None), ("status", None), ("status", None), ("status", None),
        ("output", "0"), ("output", "1"), ("output", "2"), ("result", None),
    ]  # fmt: skip
    assert [event.data["state"] for event in told[:4]] == ["queued", "written", "accepted", "running"]
    assert {event.data["command_id"] for event in told[:4]} == {asked.execute_stream.command_id}
    assert (text_of(told, "stdout"), text_of(told, "stderr")) == ("one\ntwo\n", "oh\n")
    end = told[-1].data
    assert (end["state"], end["outcome"], end["exit_code"], end["success"]) == ("done", "exited", 3, False)
    assert (end["stdout"], end["argv"]) == ("one\ntwo\n", ["get", "pods"])


async def test_the_drop_in_surface_streams_too(stage: Any) -> None:
    """The same events on /debug/execute; the result is the answer that it gives without them."""
    async with stage(ordinary) as scene:
        told = await heard(scene.api, path="/debug/execute", json={"cluster_id": "local", "args": ["pods"]})
        [asked] = scene.broker.asked
    assert list(asked.execute_stream.argv) == ["get", "pods", "-n", "default"]
    end = told[-1].data
    assert (end["status"], end["error"], end["output"]) == ("failure", "oh", "one\ntwo\n\noh\n")


async def test_a_stream_resumes_after_the_last_event_id(stage: Any) -> None:
    """What was seen is not sent again; without the header everything is."""
    path = f"/v1/commands/{new_id()}/events"
    async with stage(ordinary) as scene:
        whole = await heard(scene.api, "GET", path)
        rest = await heard(scene.api, "GET", path, headers={"Last-Event-ID": "0"})
        assert [frame.watch.from_seq for frame in scene.broker.asked] == [0, 0], "what was seen is not shown again"
    assert [event.identity for event in whole if event.name == "output"] == ["0", "1", "2"]
    assert [event.identity for event in rest if event.name == "output"] == ["1", "2"]
    assert rest[-1].data["exit_code"] == 3


async def test_a_resumed_stream_goes_on_in_mid_character(stage: Any) -> None:
    """The half that was held back when the client left is there when it returns."""

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        for seq, data in enumerate((b"a", b"caf\xc3", b"\xa9!")):
            if seq >= frame.watch.from_seq:
                await say.output(seq, data)
        await say.result()

    async with stage(script) as scene:
        told = await heard(scene.api, "GET", f"/v1/commands/{new_id()}/events", headers={"Last-Event-ID": "1"})
    assert [(event.identity, event.data["text"]) for event in told[:-1]] == [("2", "é!")]


async def test_resuming_after_what_is_not_kept_any_more_is_exact(stage: Any) -> None:
    """What was seen is not counted as missed; what was not seen is."""

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        await say.event(gap=command_pb2.OutputGap(next_seq=9, missed_bytes=10 * (9 - frame.watch.from_seq)))
        await say.output(9, b"tail")
        await say.result()

    async with stage(script) as scene:
        told = await heard(scene.api, "GET", f"/v1/commands/{new_id()}/events", headers={"Last-Event-ID": "4"})
        assert [frame.watch.from_seq for frame in scene.broker.asked] == [4, 5]
        await until(lambda: scene.open_calls == 0)
    assert [(event.identity, event.data["missed_bytes"]) for event in told[:-1]] == [("8", 40), ("9", None)]


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 19])
async def test_an_id_that_was_never_sent_is_422(stage: Any, last: str) -> None:
    """Rather than everything once more."""
    async with stage(ordinary) as scene:
        headers = {**ACCEPT, "Last-Event-ID": last}
        response = await scene.api.get(f"/v1/commands/{new_id()}/events", headers=headers)
        assert (response.status_code, scene.broker.asked) == (422, [])
    assert "Last-Event-ID" in response.json()["detail"]


# Text


@pytest.mark.parametrize(
    ("pieces", "stdout", "stderr", "replaced"),
    [
        pytest.param([(b"caf\xc3", 0), (b"\xa9\n", 0)], "café\n", "", [False, False], id="split in two"),
        pytest.param([(b"\xf0", 0), (b"\x9f", 0), (b"\x98\x80!", 0)], "😀!", "", [False] * 3, id="split in three"),
        pytest.param([(b"\xc3", 0), (b"\xc3", 1), (b"\xa9", 0), (b"\xbc", 1)], "é", "ü", [False] * 4,
                     id="split in both streams at once"),
        pytest.param([(b"a\xffb", 0), (b"c", 0)], "a\N{REPLACEMENT CHARACTER}bc", "", [True, False],
                     id="not UTF-8"),
        pytest.param([(b"a\xc3", 0), (b"b", 0)], "a\N{REPLACEMENT CHARACTER}b", "", [False, True],
                     id="half a character"),
        pytest.param([(b"a\xc3", 0)], "a\N{REPLACEMENT CHARACTER}", "", [False, True], id="half at the end"),
        pytest.param(["\N{REPLACEMENT CHARACTER}".encode()[:1], "\N{REPLACEMENT CHARACTER}".encode()[1:]],
                     "\N{REPLACEMENT CHARACTER}", "", [False, False], id="a replacement character of their own"),
    ],
)  # fmt: skip
async def test_text_is_decoded_across_pieces(
    stage: Any, pieces: list[Any], stdout: str, stderr: str, replaced: list[bool]
) -> None:
    """A character that is split comes whole; bytes that are no text are replaced, and that is said."""

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        for seq, piece in enumerate(pieces):
            data, is_stderr = piece if isinstance(piece, tuple) else (piece, 0)
            await say.output(seq, data, stderr=bool(is_stderr))
        await say.result()

    async with stage(script) as scene:
        told = await heard(scene.api)
    assert (text_of(told, "stdout"), text_of(told, "stderr")) == (stdout, stderr)
    assert [event.data["encoding_replaced"] for event in told if event.name == "output"] == replaced


async def test_a_gap_says_how_much_is_missing(stage: Any) -> None:
    """An output event without text; half a character before it does not join with what follows; it can be resumed."""

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        await say.output(0, b"a\xc3")
        await say.event(gap=command_pb2.OutputGap(next_seq=5, missed_bytes=1234))
        await say.output(5, b"\xa9b")
        await say.result()

    async with stage(script) as scene:
        told = await heard(scene.api)
    outputs = [(event.identity, event.data["text"], event.data["missed_bytes"]) for event in told[:-1]]
    bad = "\N{REPLACEMENT CHARACTER}"
    assert outputs == [("0", "a", None), ("0", bad, None), ("4", "", 1234), ("5", f"{bad}b", None)]


# Failures


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (error(Reason.CLUSTER_OFFLINE, "not connected", retry_after_s=5), 503),
        (error(Reason.UNAUTHENTICATED, "no"), 401),
        (error(Reason.CLUSTER_BUSY, "later", retry_after_s=1), 429),
        (error(Reason.IDEMPOTENCY_CONFLICT, "another body"), 422),
        (error(Reason.INVALID_COMMAND, "no", violations=[("argv", "too long")]), 422),
    ],
)
async def test_a_refusal_is_an_ordinary_problem(stage: Any, failure: command_pb2.Error, status: int) -> None:
    """Nothing has been streamed yet, so the status says it, also after news that it was queued."""

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        await say.state("QUEUED")
        await say.reply(error=failure)

    async with stage(script) as scene:
        response = await scene.api.post(POST, json=BODY, headers=ACCEPT)
    problem = response.json()
    assert (response.status_code, problem["reason"]) == (status, failure.reason)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert isinstance(problem["detail"], str)


async def test_what_the_policy_denies_is_an_ordinary_problem(stage: Any) -> None:
    """The executor's refusal comes as a result; it has a status of its own all the same."""

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        await say.state("WRITTEN")
        await say.result(outcome=command_pb2.OUTCOME_REJECTED, error=error(Reason.POLICY_DENIED, "no"))

    async with stage(script) as scene:
        response = await scene.api.post(POST, json=BODY, headers=ACCEPT)
    assert (response.status_code, response.json()["executed"]) == (403, "no")


async def test_a_later_failure_is_an_event(stage: Any) -> None:
    """The last one, with everything that a problem has; half a character is not held back."""

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        await say.output(0, b"a\xc3")
        await say.result(outcome=command_pb2.OUTCOME_LOST, error=error(Reason.EXECUTOR_LOST, "gone"))

    async with stage(script) as scene:
        told = await heard(scene.api)
    assert [event.name for event in told] == ["output", "output", "error"]
    last = told[-1].data
    assert (last["reason"], last["status"], last["executed"]) == ("EXECUTOR_LOST", 502, "unknown")
    assert last["request_id"]


async def test_a_command_that_is_stopped_is_a_result(stage: Any) -> None:
    """With its outcome: the stream was answered, whatever became of the command."""

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        await say.output(0, b"so far")
        failure = error(Reason.COMMAND_TIMEOUT, "out of time")
        await say.result(outcome=command_pb2.OUTCOME_TIMED_OUT, stdout=b"so far", error=failure)

    async with stage(script) as scene:
        told = await heard(scene.api)
    assert (told[-1].name, told[-1].data["outcome"]) == ("result", "timed_out")


async def test_an_outcome_of_a_newer_broker_ends_the_stream_with_an_error(stage: Any) -> None:
    """Nothing better is known here of how the command ended."""

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        await say.output(0, b"half")
        await say.event(result=command_pb2.CommandResult(outcome=99, stdout=b"half"))  # type: ignore[arg-type]

    async with stage(script) as scene:
        told = await heard(scene.api, "GET", f"/v1/commands/{new_id()}/events")
    assert [event.name for event in told] == ["output", "error"]
    assert told[-1].data["reason"] == "INTERNAL"


async def test_an_unknown_command_is_404(stage: Any) -> None:
    """Also where no command can have such an id, without asking anybody."""

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        await say.reply(error=error(Reason.COMMAND_UNKNOWN, "no such command"))

    async with stage(script) as scene:
        for command_id in (new_id(), "nonsense"):
            response = await scene.api.get(f"/v1/commands/{command_id}/events", headers=ACCEPT)
            assert (response.status_code, response.json()["reason"]) == (404, "COMMAND_UNKNOWN")
        assert len(scene.broker.asked) == 1


# Time


async def test_a_silent_stream_is_pinged(stage: Any) -> None:
    """Comments keep proxies from closing it."""
    async with stage(mute, ping_s=0.05) as scene, listening(scene.api, "POST", POST, json=BODY) as (_, events):
        while isinstance(await anext(events), str):
            pass
        assert [await anext(events) for _ in range(3)] == [": ping"] * 3


async def test_the_head_does_not_wait_for_news_for_ever(stage: Any) -> None:
    """A command that waits for its cluster is a stream that begins soon, and fails as an event."""

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        await say.state("QUEUED")
        await asyncio.sleep(1.5)
        await say.reply(error=error(Reason.CLUSTER_OFFLINE, "waited in vain"))

    async with stage(script) as scene:
        told = await heard(scene.api, json={**BODY, "wait_for_cluster_s": 2})
        assert 1 < scene.broker.asked[0].execute_stream.wait_for_cluster_s <= 2
    assert [event.name for event in told] == ["status", "error"]
    assert told[-1].data["reason"] == "CLUSTER_OFFLINE"


async def test_watching_ends_with_the_callers_time(stage: Any) -> None:
    """X-Request-Timeout closes the stream with a comment, no end of the command; it can be resumed."""
    headers = {"X-Request-Timeout": "2"}
    async with stage(endless) as scene:
        path = f"/v1/commands/{new_id()}/events"
        async with listening(scene.api, "GET", path, headers=headers) as (_, events):
            told = [event async for event in events]
        await until(lambda: scene.open_calls == 0)
    assert isinstance(told[-1], str)
    assert "time" in told[-1]
    assert isinstance(told[-2], Sent)


# Callers that leave, are many, or are slow


def left_behind() -> set[str]:
    """The names of our tasks that belong to some request."""
    return {task.get_name() for task in asyncio.all_tasks()} & {"events-begin", "events-ping", "caller-watch"}


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_client_that_vanishes_leaves_nothing_behind(stage: Any, method: str) -> None:
    """In mid-stream: the broker is told, no call is open, no task runs."""
    path, body = (POST, BODY) if method == "POST" else (f"/v1/commands/{new_id()}/events", None)
    async with stage(endless) as scene:
        async with listening(scene.api, method, path, json=body) as (_, events):
            for _ in range(5):
                await anext(events)
            assert scene.open_calls == 1
        await until(lambda: scene.open_calls == 0 and not left_behind())
        await until(lambda: scene.broker.abandoned == [scene.broker.asked[0].call_id])


async def test_a_client_that_vanishes_before_the_head_leaves_nothing_behind(stage: Any) -> None:
    """The same while the answer waits for news."""

    async def script(_frame: pb.CallerFrame, _say: Any) -> None:
        await asyncio.sleep(60)

    async with stage(script) as scene:
        call = asyncio.create_task(scene.api.post(POST, json=BODY, headers=ACCEPT))
        await until(lambda: scene.open_calls == 1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: scene.open_calls == 0 and not left_behind())
        await until(lambda: bool(scene.broker.abandoned))


async def test_200_streams_at_once(stage: Any) -> None:
    """Each gets its own events, in order, and none waits for another."""

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        for seq in range(20):
            await say.output(seq, f"{frame.execute_stream.argv[1]}.{seq}\n".encode())
            await asyncio.sleep(0.001)
        await say.result()

    async with stage(script) as scene:
        bodies = [{"argv": ["get", str(number)], "timeout_seconds": 60} for number in range(200)]
        told = await asyncio.gather(*(heard(scene.api, json=body) for body in bodies))
        await until(lambda: scene.open_calls == 0 and not left_behind())
    for number, events in enumerate(told):
        assert text_of(events, "stdout") == "".join(f"{number}.{seq}\n" for seq in range(20))
        assert events[-1].name == "result"


async def test_a_client_that_takes_nothing_is_cut_off(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without a byte taken, its connection is closed and its call abandoned."""
    monkeypatch.setattr(serving, "STALL_TIMEOUT_S", 0.3)

    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        for seq in range(256):
            await say.output(seq, b"x" * (64 << 10))
        await asyncio.sleep(60)

    async with stage(script) as scene:
        async with listening(scene.api, "POST", POST, json=BODY) as (_, events):
            await anext(events)
            await until(lambda: scene.open_calls == 0)
        await until(lambda: bool(scene.broker.abandoned) and not left_behind())


async def test_a_slow_reader_is_bounded(stage: Any) -> None:
    """64 MiB for a client that does not read: others are served, memory is bounded, and it is told of the gap."""
    pieces, size = 1024, 64 << 10

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        if frame.execute_stream.argv[1] != "flood":
            await ordinary(frame, say)
            return
        for seq in range(pieces):
            await say.output(seq, b"x" * size)
        await say.result()

    async with stage(script) as scene:
        flood = {"argv": ["get", "flood"]}
        async with listening(scene.api, "POST", POST, json=flood) as (_, events):
            told = [await anext(events)]
            for _ in range(10):
                assert (await heard(scene.api))[-1].name == "result"
            await until(lambda: scene.open_calls == 0, within_s=60)
            told += [event async for event in events]
    shown = sum(len(event.data["text"]) for event in told if isinstance(event, Sent) and event.name == "output")
    missed = sum(event.data.get("missed_bytes") or 0 for event in told if isinstance(event, Sent))
    assert shown + missed == pieces * size
    assert 0 < shown < 16 << 20
    assert told[-1].name == "result"
