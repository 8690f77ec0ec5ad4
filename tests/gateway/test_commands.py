"""/v1's commands, row by row, in front of a broker that keeps to a script."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import structlog

from openline.errors import error
from openline.ids import is_command_id, new_id
from openline.reasons import UNKNOWN, Reason
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")

Json = dict[str, Any]
Script = Callable[[pb.CallerFrame, Any], Awaitable[None]]
POST = "/v1/clusters/local/commands"
BODY = {"argv": ["get", "pods"]}


def answering(*, replayed: bool = False, **fields: Any) -> Script:
    """Every Execute has this result."""

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        named = {"command_id": frame.execute.command_id, "outcome": command_pb2.OUTCOME_EXITED, **fields}
        await say.reply(response=pb.ExecuteResponse(result=command_pb2.CommandResult(**named), replayed=replayed))

    return script


def refusing(failure: command_pb2.Error) -> Script:
    async def script(_frame: pb.CallerFrame, say: Any) -> None:
        await say.reply(error=failure)

    return script


async def silent(_frame: pb.CallerFrame, _say: Any) -> None:
    await asyncio.sleep(60)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


# Running


async def test_a_command_is_run_and_answered(stage: Any) -> None:
    """200 with everything there is to know, and where to look further."""
    summary = command_pb2.OutputSummary(total_bytes=7, total_lines=1)
    script = answering(exit_code=1, stdout=b"caf\xc3\xa9\xff\n", stdout_summary=summary)
    async with stage(script) as scene:
        body = {
            **BODY, "timeout_seconds": 30, "wait_for_cluster_s": 5, "session_id": "s", "correlation_id": "c",
            "cancel_on_disconnect": True, "max_output_bytes": 1000,
        }  # fmt: skip
        headers = {"Idempotency-Key": "i"}
        response = await scene.api.post(POST, json=body, headers=headers)
        [asked] = [frame.execute for frame in scene.broker.asked]
    answer = response.json()
    assert response.status_code == 200
    assert "Idempotency-Replayed" not in response.headers
    assert asked == pb.ExecuteRequest(
        cluster_id="local", argv=["get", "pods"], timeout_s=30, wait_for_cluster_s=5, session_id="s",
        correlation_id="c", cancel_on_disconnect=True, idempotency_key="i", command_id=asked.command_id,
        output_limits=command_pb2.OutputLimits(max_bytes=1000),
    )  # fmt: skip
    assert is_command_id(asked.command_id)
    expected: Json = {
        "command_id": asked.command_id,
        "cluster_id": "local",
        "session_id": "s",
        "correlation_id": "c",
        "argv": ["get", "pods"],
        "state": "done",
        "outcome": "exited",
        "exit_code": 1,
        "success": False,
        "error": None,
        "stdout": "café\N{REPLACEMENT CHARACTER}\n",
        "stderr": "",
        "truncated": False,
        "encoding_replaced": True,
        "links": {
            "self": f"/v1/commands/{asked.command_id}",
            "output": f"/v1/commands/{asked.command_id}/output",
            "events": f"/v1/commands/{asked.command_id}/events",
        },
    }
    assert {name: answer[name] for name in expected} == expected
    assert answer["stdout_summary"] == {"total_bytes": 7, "total_lines": 1, "cut_bytes": 0, "cut_lines": 0}


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("kubectl get pods -n shop", ["get", "pods", "-n", "shop"]),
        ("get pods", ["get", "pods"]),
        ("get pods -l 'app in (a, b)'", ["get", "pods", "-l", "app in (a, b)"]),
        ("get pods -o jsonpath='{.items[*]}' $HOME `id`; ls | cat",
         ["get", "pods", "-o", "jsonpath={.items[*]}", "$HOME", "`id`;", "ls", "|", "cat"]),
        ("get pods # not a comment", ["get", "pods", "#", "not", "a", "comment"]),
        ("kubectl kubectl", ["kubectl"]),
    ],
)  # fmt: skip
async def test_a_command_is_split_once_and_not_by_a_shell(stage: Any, command: str, argv: list[str]) -> None:
    """Quotes group words; everything else that a shell would do is left to nobody."""
    async with stage(answering()) as scene:
        assert (await scene.api.post(POST, json={"command": command})).status_code == 200
        assert list(scene.broker.asked[0].execute.argv) == argv


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "argv"),
        ({"argv": ["get"], "command": "get"}, "argv"),
        ({"argv": []}, "argv"),
        ({"argv": ["x"] * 65}, "argv"),
        ({"argv": ["a\0b"]}, "argv"),
        ({"argv": ["x" * 16_000] * 5}, "argv"),
        ({"command": ""}, "command"),
        ({"command": "kubectl"}, "command"),
        ({"command": "get 'pods"}, "command"),
        ({"command": "get \0"}, "command"),
        ({"command": "x " * 65}, "command"),
        ({"command": "x" * 17_000}, "command"),
        ({**BODY, "timeout_seconds": 0}, "timeout_seconds"),
        ({**BODY, "timeout_seconds": 3601}, "timeout_seconds"),
        ({**BODY, "wait_for_cluster_s": -1}, "wait_for_cluster_s"),
        ({**BODY, "wait_for_cluster_s": 301}, "wait_for_cluster_s"),
        ({**BODY, "max_output_bytes": 0}, "max_output_bytes"),
        ({**BODY, "session_id": "x" * 201}, "session_id"),
        ({**BODY, "correlation_id": "a\0b"}, "correlation_id"),
    ],
)
async def test_what_is_not_valid_is_422(api: httpx.AsyncClient, body: Json, named: str) -> None:
    """The detail is a sentence that names the field, and the list is beside it."""
    response = await api.post(POST, json=body)
    problem = response.json()
    assert (response.status_code, problem["reason"], problem["executed"]) == (422, "INVALID_COMMAND", "no")
    assert named in problem["detail"]
    assert problem["errors"][0]["loc"][:2] == ["body", named]


@pytest.mark.parametrize(
    ("outcome", "reason", "status", "executed"),
    [
        (command_pb2.OUTCOME_TIMED_OUT, Reason.COMMAND_TIMEOUT, 504, "yes"),
        (command_pb2.OUTCOME_CANCELLED, Reason.CANCELLED, 499, "unknown"),
    ],
)
async def test_a_command_that_was_stopped_is_an_error_with_its_output(
    stage: Any, outcome: command_pb2.Outcome.ValueType, reason: Reason, status: int, executed: str
) -> None:
    """504 and 499, with the output so far; on the drop-in surface both are answers."""
    script = answering(outcome=outcome, stdout=b"so far", error=error(reason, "stopped"))
    async with stage(script) as scene:
        response = await scene.api.post(POST, json=BODY)
        old = await scene.api.post("/debug/execute", json={"cluster_id": "local"})
    problem = response.json()
    assert (response.status_code, problem["reason"], problem["executed"]) == (status, reason, executed)
    assert (problem["stdout"], problem["state"], problem["detail"]) == ("so far", "done", "stopped")
    assert (old.status_code, old.json()["output"]) == (200, "so far")


async def test_a_timeout_before_anything_ran_has_the_same_form(stage: Any) -> None:
    """COMMAND_TIMEOUT as an error of the broker's becomes a 504 with the same fields."""
    async with stage(refusing(error(Reason.COMMAND_TIMEOUT, "waited in vain"))) as scene:
        response = await scene.api.post(POST, json=BODY)
    assert (response.status_code, response.json()["outcome"], response.json()["stdout"]) == (504, "timed_out", "")


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (error(Reason.CLUSTER_OFFLINE, "not connected", retry_after_s=5), 503),
        (error(Reason.CLUSTER_BUSY, "later", retry_after_s=1), 429),
        (error(Reason.EXECUTOR_LOST, "gone"), 502),
        (error(Reason.IDEMPOTENCY_CONFLICT, "the key was used for another body"), 422),
        (error(Reason.POLICY_DENIED, "no"), 403),
    ],
)
async def test_what_could_not_be_run_is_an_error(stage: Any, failure: command_pb2.Error, status: int) -> None:
    """The status is the table's, on both surfaces."""
    async with stage(refusing(failure)) as scene:
        for path, body in ((POST, BODY), ("/debug/execute", {"cluster_id": "local"})):
            response = await scene.api.post(path, json=body)
            assert (response.status_code, response.json()["reason"]) == (status, failure.reason)
            assert ("Retry-After" in response.headers) == bool(failure.retry_after_s)


@pytest.mark.parametrize(("path", "body"), [(POST, BODY), ("/debug/execute", {"cluster_id": "local"})])
async def test_an_answer_that_was_given_before_says_so(stage: Any, path: str, body: Json) -> None:
    """The same key and body: Idempotency-Replayed, and the id of the command that ran."""
    older = new_id()
    async with stage(answering(replayed=True, command_id=older)) as scene:
        response = await scene.api.post(path, json=body, headers={"Idempotency-Key": "i"})
        assert scene.broker.asked[0].execute.idempotency_key == "i"
    assert response.headers["Idempotency-Replayed"] == "true"
    assert response.json()["command_id"] == older


# Leaving


@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize(("path", "body"), [(POST, BODY), ("/debug/execute", {"cluster_id": "local"})])
async def test_a_caller_that_leaves_is_noticed(stage: Any, path: str, body: Json, is_cancelled: bool) -> None:
    """Without waiting for the answer: the call is abandoned, the broker knows whether to cancel, the log says 499."""
    async with stage(silent) as scene:
        with structlog.testing.capture_logs() as lines:
            asked = {**body, "cancel_on_disconnect": is_cancelled}
            call = asyncio.create_task(scene.api.post(path, json=asked))
            await until(lambda: bool(scene.broker.asked))
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await until(lambda: bool(scene.broker.abandoned))
            await until(lambda: any(line["event"] == "request.answered" for line in lines))
        assert scene.open_calls == 0
        assert scene.broker.asked[0].execute.cancel_on_disconnect is is_cancelled
        assert scene.broker.abandoned == [scene.broker.asked[0].call_id]
        assert not {task.get_name() for task in asyncio.all_tasks()} & {"caller-watch"}
    [status] = [line["status"] for line in lines if line["event"] == "request.answered"]
    assert status == 499


# Looking


def running(command_id: str) -> command_pb2.Command:
    return command_pb2.Command(
        command_id=command_id, cluster_id="local", argv=["get"], state=command_pb2.COMMAND_STATE_RUNNING
    )


def ended(command_id: str, **result: Any) -> command_pb2.Command:
    command = running(command_id)
    command.state = command_pb2.COMMAND_STATE_DONE
    command.result.MergeFrom(
        command_pb2.CommandResult(**{"command_id": command_id, "outcome": command_pb2.OUTCOME_EXITED, **result})
    )
    return command


@pytest.mark.parametrize("path", ["/v1/commands/", "/debug/operations/"])
async def test_a_command_can_be_looked_up(stage: Any, path: str) -> None:
    """Running or done, and how it ended is part of the answer, not its status."""
    one, two, three = new_id(), new_id(), new_id()
    lost = {"outcome": command_pb2.OUTCOME_LOST, "error": error(Reason.EXECUTOR_LOST, "gone")}
    async with stage(silent) as scene:
        scene.broker.commands = {one: running(one), two: ended(two, stdout=b"out"), three: ended(three, **lost)}
        answers = [await scene.api.get(f"{path}{command_id}") for command_id in (one, two, three)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    first, second, third = (answer.json() for answer in answers)
    assert (first["state"], first["outcome"], first["stdout"]) == ("running", None, None)
    assert (second["state"], second["exit_code"], second["stdout"]) == ("done", 0, "out")
    assert (third["outcome"], third["error"]["reason"], third["error"]["executed"]) == (
        "lost", "EXECUTOR_LOST", "unknown",
    )  # fmt: skip


@pytest.mark.parametrize(("asked", "wait_s"), [("", 0), ("?wait=20", 20), ("?wait=0.5", 0.5)])
async def test_looking_can_wait_for_the_end(stage: Any, asked: str, wait_s: float) -> None:
    """The broker does the waiting."""
    command_id = new_id()
    began = time.monotonic()
    async with stage(silent) as scene:
        scene.broker.commands[command_id] = ended(command_id)
        await scene.api.get(f"/v1/commands/{command_id}{asked}")
        [look] = scene.broker.looked_up
    assert max(0, wait_s - (time.monotonic() - began)) <= look.wait_s <= wait_s


@pytest.mark.parametrize("wait", ["61", "-1", "soon", "nan"])
async def test_a_wait_is_0_to_60_seconds(api: httpx.AsyncClient, wait: str) -> None:
    """Anything else is a 422."""
    response = await api.get(f"/v1/commands/{new_id()}?wait={wait}")
    assert (response.status_code, "wait" in response.json()["detail"]) == (422, True)


async def test_what_is_not_known_is_404(stage: Any) -> None:
    """Also where no command can have such an id."""
    async with stage(refusing(error(Reason.COMMAND_UNKNOWN, "no such command"))) as scene:
        for command_id in (new_id(), "nonsense", new_id().upper()):
            for method, path in (("GET", ""), ("GET", "/output"), ("GET", "/events"), ("DELETE", "")):
                response = await scene.api.request(method, f"/v1/commands/{command_id}{path}")
                assert (response.status_code, response.json()["reason"]) == (404, "COMMAND_UNKNOWN")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_look_may_be_repeated_whether_the_command_ran_or_not(stage: Any, method: str) -> None:
    """`executed` is of the command; `retryable` is of the request, which runs nothing."""
    failure = error(Reason.STORE_UNAVAILABLE, "away", executed=UNKNOWN, retry_after_s=1.0)
    async with stage(refusing(failure)) as scene:
        where = f"/v1/commands/{new_id()}" + ("/events" if method == "GET" else "")
        response = await scene.api.request(method, where)
        problem = response.json()
        assert (response.status_code, problem["executed"], problem["retryable"]) == (503, "unknown", True)
        assert response.headers["Retry-After"] == "1"
        ran = await scene.api.post(POST, json=BODY)
        assert (ran.status_code, ran.json()["executed"], ran.json()["retryable"]) == (503, "unknown", False)


# Bytes

DATA = bytes(range(256)) * 4


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", DATA),
        ("?source=stdout", DATA),
        ("?source=stderr", b"\xff\xfe"),
        ("?offset=250&limit=10", DATA[250:260]),
        ("?offset=1023", DATA[1023:]),
        ("?offset=1024", b""),
        ("?offset=99999", b""),
        ("?limit=1", DATA[:1]),
    ],
)
async def test_output_is_the_exact_bytes(stage: Any, query: str, expected: bytes) -> None:
    """Whatever they are, in parts if wanted, with how many there were and what was cut, and where."""
    command_id = new_id()
    cut = command_pb2.OutputSummary(total_bytes=5000, total_lines=70, cut_bytes=5000 - len(DATA), cut_lines=60)
    async with stage(silent) as scene:
        scene.broker.commands[command_id] = ended(command_id, stdout=DATA, stderr=b"\xff\xfe", stdout_summary=cut)
        response = await scene.api.get(f"/v1/commands/{command_id}/output{query}")
    assert (response.status_code, response.content) == (200, expected)
    assert response.headers["Content-Type"] == "application/octet-stream"
    if "stderr" not in query:
        said = {name: response.headers[f"X-Output-{name}"] for name in ("Total-Bytes", "Cut-Bytes", "Cut-Lines")}
        assert said == {"Total-Bytes": "5000", "Cut-Bytes": "3976", "Cut-Lines": "60"}
        assert (response.headers["X-Output-Kept-Bytes"], response.headers["X-Output-Cut-At"]) == ("1024", "512")
    else:
        assert "X-Output-Cut-At" not in response.headers


@pytest.mark.parametrize("query", ["?offset=-1", "?limit=0", "?limit=9999999999", "?source=both"])
async def test_a_part_that_cannot_be_is_422(api: httpx.AsyncClient, query: str) -> None:
    """Each parameter is bounded."""
    assert (await api.get(f"/v1/commands/{new_id()}/output{query}")).status_code == 422


async def test_a_command_that_runs_has_no_output_to_fetch_yet(stage: Any) -> None:
    """409, which says where the output so far is."""
    command_id = new_id()
    async with stage(silent) as scene:
        scene.broker.commands[command_id] = running(command_id)
        response = await scene.api.get(f"/v1/commands/{command_id}/output")
    assert (response.status_code, response.json()["retryable"], response.json()["executed"]) == (409, False, "yes")
    assert "Retry-After" not in response.headers
    assert f"/v1/commands/{command_id}/events" in response.json()["detail"]


# Cancelling


@pytest.mark.parametrize(
    ("state", "status", "named"),
    [
        (command_pb2.COMMAND_STATE_QUEUED, 202, "queued"),
        (command_pb2.COMMAND_STATE_RUNNING, 202, "running"),
        (command_pb2.COMMAND_STATE_DONE, 200, "done"),
    ],
)
async def test_delete_cancels(stage: Any, state: command_pb2.CommandState.ValueType, status: int, named: str) -> None:
    """202 while it will still end, 200 when it has; as often as one likes."""

    async def script(frame: pb.CallerFrame, say: Any) -> None:
        assert frame.api_key == "test-key"
        await say.reply(cancelled=pb.CancelCommandResponse(state=state))

    command_id = new_id()
    async with stage(script) as scene:
        for _ in range(2):
            response = await scene.api.delete(f"/v1/commands/{command_id}")
            assert (response.status_code, response.json()) == (status, {"command_id": command_id, "state": named})
        assert {frame.cancel.command_id for frame in scene.broker.asked} == {command_id}


async def test_the_key_is_asked_for_everywhere(api: httpx.AsyncClient) -> None:
    """No route of /v1 answers without one."""
    path = f"/v1/commands/{new_id()}"
    requests = (("POST", POST), ("GET", path), ("GET", f"{path}/output"), ("GET", f"{path}/events"), ("DELETE", path))
    for method, where in requests:
        content = json.dumps(BODY) if method == "POST" else None
        response = await api.request(method, where, content=content, headers={"X-API-Key": ""})
        assert (response.status_code, response.json()["detail"]) == (401, "Missing API key")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/commands/nope"),
        ("GET", "/v1/commands/nope/output"),
        ("GET", "/v1/commands/nope/events"),
        ("DELETE", "/v1/commands/nope"),
        ("GET", "/v1/clusters/No_Such"),
        ("GET", "/v1/sessions/a%20b"),
        ("DELETE", "/debug/session/a%20b"),
        ("GET", "/v1/sessions/a%20b/commands"),
        ("POST", "/debug/execute"),
    ],
)
async def test_a_wrong_key_comes_before_a_wrong_id(api: httpx.AsyncClient, method: str, path: str) -> None:
    """What cannot be an id is 404 for a good key, and a wrong one is 401 there as everywhere."""
    body = {"json": {"cluster_id": "local", "session_id": "a b"}} if method == "POST" else {}
    assert (await api.request(method, path, **body)).status_code == 404
    wrong = await api.request(method, path, headers={"X-API-Key": "wrong"}, **body)
    assert (wrong.status_code, wrong.json()["detail"]) == (401, "Invalid API key")


@pytest.mark.parametrize(
    ("method", "path", "place"),
    [
        ("POST", "/v1/clusters/local/commands", ["header", "Idempotency-Key"]),
        ("GET", "/v1/commands?cursor=00000000-0000-0000-0000-000000000000", ["query", "cursor"]),
        ("GET", "/v1/commands?cursor=x", ["query", "cursor"]),
    ],
)
async def test_what_is_wrong_is_said_to_be_where_it_is(
    api: httpx.AsyncClient, method: str, path: str, place: list[str]
) -> None:
    """Also where it is a broker that finds it, which knows of no headers."""
    body = {"json": {"argv": ["get", "pods"]}} if method == "POST" else {}
    answer = await api.request(method, path, headers={"Idempotency-Key": "two words"}, **body)
    assert (answer.status_code, [each["loc"] for each in answer.json()["errors"]]) == (422, [place])
