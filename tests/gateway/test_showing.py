"""What an answer shows of a command's output, on the wire: shaped, in pages, or not again."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.digests import digest_of
from openline.ids import new_id
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")

POST = "/v1/clusters/local/commands"
LINES = "".join(f"line {n} {'odd' if n % 2 else 'even'}\n" for n in range(100))
PODS = json.dumps({"items": [{"metadata": {"name": f"web-{n}"}} for n in range(50)]})


def answering(**fields: Any) -> Any:
    async def script(frame: pb.CallerFrame, say: Any) -> None:
        named = {"outcome": command_pb2.OUTCOME_EXITED, **fields}
        if frame.HasField("execute_stream"):
            await say.state("RUNNING")
            await say.result(command_id=frame.execute_stream.command_id, **named)
        else:
            result = command_pb2.CommandResult(command_id=frame.execute.command_id, **named)
            await say.reply(response=pb.ExecuteResponse(result=result))

    return script


def ended(command_id: str, **fields: Any) -> command_pb2.Command:
    result = command_pb2.CommandResult(command_id=command_id, outcome=command_pb2.OUTCOME_EXITED, **fields)
    return command_pb2.Command(command_id=command_id, state=command_pb2.COMMAND_STATE_DONE, result=result)


async def test_output_is_shaped_before_it_is_sent(stage: Any) -> None:
    """grep and tail, with what each left out."""
    async with stage(answering(stdout=LINES.encode(), stderr=b"Warning\n")) as scene:
        response = await scene.api.post(POST, json={"argv": ["logs"], "grep": "odd$", "tail": 2})
    answer = response.json()
    assert (answer["stdout"], answer["stderr"]) == ("line 97 odd\nline 99 odd\n", "Warning\n")
    stdout = answer["shaping"]["stdout"]
    assert answer["shaping"]["grep_matches"] == 50
    assert (stdout["total"]["lines"], stdout["left_out_by_grep"]["lines"]) == (100, 50)
    assert (stdout["left_out_by_tail"]["lines"], stdout["shown"]["lines"]) == (48, 2)
    assert (stdout["selected"], stdout["before"], stdout["after"]) == (None, None, None), "it was not asked for"
    assert answer["shaping"]["stderr"]["shown"] == {"chars": 8, "lines": 1}
    assert answer["shaping"]["next_cursor"] is None
    assert answer["truncated"] is False, "nothing is lost: it can be fetched"


async def test_nothing_is_said_about_nothing(stage: Any) -> None:
    """Where all of the output is shown there are no counts to read."""
    async with stage(answering(stdout=LINES.encode())) as scene:
        answer = (await scene.api.post(POST, json={"argv": ["logs"]})).json()
    assert (answer["stdout"], answer["shaping"]) == (LINES, None)


async def test_the_digest_is_of_the_whole_output(stage: Any) -> None:
    """However it is shaped."""
    async with stage(answering(stdout=LINES.encode())) as scene:
        answers = [(await scene.api.post(POST, json={"argv": ["logs"], **more})).json() for more in ({}, {"tail": 1})]
    expected = digest_of(command_pb2.CommandResult(stdout=LINES.encode()))
    assert [answer["digest"] for answer in answers] == [expected, expected]


async def test_pages_are_fetched_with_a_cursor_to_the_end(stage: Any) -> None:
    """Joined they are the whole; any gateway that finds the command takes the cursor."""
    async with stage(answering(stdout=LINES.encode(), stderr=b"oh\n")) as scene:
        body = {"argv": ["logs"], "grep": "even", "max_output_chars": 100}
        page = (await scene.api.post(POST, json=body)).json()
        scene.broker.commands[page["command_id"]] = ended(page["command_id"], stdout=LINES.encode(), stderr=b"oh\n")
        pages = [page]
        while cursor := pages[-1]["shaping"]["next_cursor"]:
            response = await scene.api.get(f"/v1/commands/{page['command_id']}", params={"cursor": cursor})
            pages.append(response.json())
    assert "".join(page["stdout"] for page in pages) == "".join(f"line {n} even\n" for n in range(0, 100, 2))
    assert "".join(page["stderr"] for page in pages) == "oh\n"
    for page in pages:
        stdout = page["shaping"]["stdout"]
        for unit in ("chars", "lines"):
            parts = [stdout[name][unit] for name in ("left_out_by_grep", "before", "shown", "after")]
            assert sum(parts) == stdout["total"][unit]
    assert max(len(page["stdout"] + page["stderr"]) for page in pages) <= 100
    assert pages[-1]["shaping"]["stdout"]["after"] == {"chars": 0, "lines": 0}


async def test_json_is_selected_from(stage: Any) -> None:
    """Looked up as well, and said why where it cannot be."""
    pods, table = new_id(), new_id()
    async with stage(answering()) as scene:
        scene.broker.commands = {
            pods: ended(pods, stdout=PODS.encode()),
            table: ended(table, stdout=b"NAME\n" * 9000),
        }
        query = {"jsonpath": "{.items[*].metadata.name}", "tail": 1}
        selected = (await scene.api.get(f"/v1/commands/{pods}", params=query)).json()
        refused = (await scene.api.get(f"/v1/commands/{table}", params={"jsonpath": "$.items"})).json()
    assert (selected["stdout"], selected["shaping"]["jsonpath_matches"]) == ('"web-49"\n', 50)
    assert selected["shaping"]["jsonpath_error"] is None
    assert (refused["shaping"]["jsonpath_error"], len(refused["stdout"])) == ("the output is not JSON", 4000)
    assert refused["shaping"]["next_cursor"]


async def test_a_stream_ends_with_a_shaped_result(stage: Any) -> None:
    """The output came as events already; its last one is the answer that was asked for."""
    async with stage(answering(stdout=LINES.encode())) as scene:
        headers = {"Accept": "text/event-stream"}
        response = await scene.api.post(POST, json={"argv": ["logs"], "tail": 1}, headers=headers)
    [*_, data] = [line for line in response.text.splitlines() if line.startswith("data: ")]
    assert json.loads(data.removeprefix("data: "))["stdout"] == "line 99 odd\n"


async def test_what_is_known_is_not_sent_again(api: httpx.AsyncClient) -> None:
    """Through the real broker: the same digest again, without the output; another command's output is shown."""
    first = (await api.post(POST, json={"argv": ["get", "pods"]})).json()
    asked = {"unchanged_since": first["digest"]}
    second = (await api.post(POST, json={"argv": ["get", "pods"], **asked})).json()
    assert (first["not_modified"], first["stdout"]) == (False, "get\npods\n")
    assert (second["not_modified"], second["digest"]) == (True, first["digest"])
    assert (second["stdout"], second["stderr"], second["shaping"]) == (None, None, None)
    assert (second["exit_code"], second["stdout_summary"]["total_bytes"]) == (0, 9)
    other = (await api.post(POST, json={"argv": ["get", "nodes"], **asked})).json()
    assert (other["not_modified"], other["stdout"]) == (False, "get\nnodes\n")
    look = (await api.get(f"/v1/commands/{second['command_id']}", params=asked)).json()
    assert look["not_modified"] is True


@pytest.mark.parametrize(
    "fields",
    [
        {"stdout_summary": command_pb2.OutputSummary(cut_bytes=1)},
        {"outcome": command_pb2.OUTCOME_TIMED_OUT},
    ],
)
async def test_what_may_differ_unseen_is_never_called_the_same(stage: Any, fields: dict[str, Any]) -> None:
    """Output of which some was cut, or that was still to come."""
    result = command_pb2.CommandResult(**{"outcome": command_pb2.OUTCOME_EXITED, "stdout": b"x", **fields})
    async with stage(answering(**{"stdout": b"x", **fields})) as scene:
        answer = (await scene.api.post(POST, json={"argv": ["get"], "unchanged_since": digest_of(result)})).json()
    assert (answer["not_modified"], answer["stdout"], answer["digest"]) == (False, "x", digest_of(result))


async def test_a_digest_tells_the_streams_apart() -> None:
    """The same bytes on the other stream, or divided otherwise, are other output."""
    split = [{"stdout": b"ab"}, {"stderr": b"ab"}, {"stdout": b"a", "stderr": b"b"}, {"stdout": b"ab 0 0 "}, {}]
    assert len({digest_of(command_pb2.CommandResult(**fields)) for fields in split}) == len(split)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("grep", "("), ("grep", ""), ("grep", "x" * 501), ("grep_context", 101), ("grep_context", -1), ("tail", 0),
        ("jsonpath", "$["), ("jsonpath", ""), ("max_output_chars", 0), ("unchanged_since", "x" * 101),
    ],
)  # fmt: skip
async def test_a_wish_that_is_not_valid_is_422_before_anything_runs(stage: Any, field: str, value: Any) -> None:
    """In a body and in a query, and the field is named."""
    async with stage(answering()) as scene:
        posted = await scene.api.post(POST, json={"argv": ["get"], field: value})
        looked = await scene.api.get(f"/v1/commands/{new_id()}", params={field: value})
        assert scene.broker.asked == []
    for response, where in ((posted, "body"), (looked, "query")):
        problem = response.json()
        assert (response.status_code, problem["executed"]) == (422, "no")
        assert problem["errors"][0]["loc"] == [where, field]


async def test_a_cursor_is_for_its_command_and_comes_alone(stage: Any) -> None:
    """422 for any other."""
    mine, other = new_id(), new_id()
    async with stage(answering()) as scene:
        scene.broker.commands = {mine: ended(mine, stdout=b"abc"), other: ended(other, stdout=b"abc")}
        page = (await scene.api.get(f"/v1/commands/{mine}", params={"max_output_chars": 1})).json()
        cursor = page["shaping"]["next_cursor"]
        for command_id, query in (
            (other, {"cursor": cursor}), (mine, {"cursor": cursor, "tail": 1}), (mine, {"cursor": "nonsense"}),
        ):  # fmt: skip
            response = await scene.api.get(f"/v1/commands/{command_id}", params=query)
            assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["query", "cursor"])


async def test_a_long_search_holds_up_nobody(stage: Any) -> None:
    """While a query runs to the end of its budget, others are answered."""
    command_id = new_id()
    big = json.dumps([[[[1] * 20] * 20] * 20] * 20).encode()
    async with stage(answering()) as scene:
        scene.broker.commands[command_id] = ended(command_id, stdout=big)
        query = {"jsonpath": "$[?count(@..*..*..*) > 1]"}
        search = asyncio.create_task(scene.api.get(f"/v1/commands/{command_id}", params=query))
        answered = 0
        while not search.done():
            assert (await scene.api.get("/healthz")).status_code == 200
            answered += 1
        assert "too many steps" in search.result().json()["shaping"]["jsonpath_error"]
        assert answered > 5
