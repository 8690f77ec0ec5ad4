"""How old an answer may be, and is: `Cache-Control` of a request, `Age` and `served_from` of an answer."""

import asyncio
from typing import Any

import pytest

from gateway.freshness import age_headers, read_max_age
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb

ASKS = [("/debug/execute", {"cluster_id": "local", "args": ["pods"]})]
ASKS += [("/v1/clusters/local/commands", {"argv": ["get", "pods"]})]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        (["max-age=2"], 2.0),
        (["Max-Age = 2"], 2.0),
        (['max-age="2"'], 2.0),
        (["max-age=86400"], 86400.0),
        (["max-age=0"], 0.0),
        (["no-cache"], 0.0),
        (["no-store"], 0.0),
        (["max-age=5, no-cache"], 0.0),
        (["max-age=5", "max-age=3"], 3.0),
        (["max-stale=9, only-if-cached, no-transform"], None),
        (["max-age=-1"], None),
        (["max-age=1.5"], None),
        (["max-age=nan, max-age=soon, max-age="], None),
        (["max-age=" + "9" * 10_000], None),
        (["," * 10_000], None),
    ],
)
def test_cache_control(values: list[str], expected: float | None) -> None:
    """The least of what is said; what is not known or not well-formed is not said."""
    assert read_max_age(values) == expected


@pytest.mark.parametrize(
    ("age_s", "headers"), [(0.0, "0"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (float("inf"), None), (float("nan"), None)]
)
def test_age(age_s: float, headers: str | None) -> None:
    """Whole seconds, never too few, of what is another command's run."""
    result = command_pb2.CommandResult(age_s=age_s, served_from=command_pb2.SERVED_FROM_CACHE)
    assert age_headers(result).get("Age") == headers
    result.served_from = command_pb2.SERVED_FROM_UNSPECIFIED
    assert age_headers(result) == {}


@pytest.mark.asyncio
@pytest.mark.parametrize(("path", "body"), ASKS, ids=["drop-in", "v1"])
async def test_it_is_passed_on_and_told(stage: Any, path: str, body: dict[str, Any]) -> None:
    """With nothing said the broker decides; what it answers with is in the body and in the header."""
    served = command_pb2.SERVED_FROM_SHARED
    result = command_pb2.CommandResult(
        outcome=command_pb2.OUTCOME_EXITED, served_from=served, age_s=0.25, run_by_command_id="another"
    )

    async def script(_frame: Any, say: Any) -> None:
        await say.reply(response=pb.ExecuteResponse(result=result))

    async with stage(script) as scene:
        for headers in ({}, {"Cache-Control": "max-age=2"}, {"Cache-Control": "no-cache"}):
            answer = await scene.api.post(path, json=body, headers=headers)
            assert (answer.status_code, answer.headers["Age"]) == (200, "1")
            assert (answer.json()["served_from"], answer.json()["age_s"]) == ("shared", 0.25)
            if "run_by_command_id" in answer.json():
                assert answer.json()["run_by_command_id"] == "another"
        asked = [frame.execute for frame in scene.broker.asked]
    assert [each.HasField("max_age_s") for each in asked] == [False, True, True]
    assert [each.max_age_s for each in asked] == [0.0, 2.0, 0.0]


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(("path", "body"), ASKS, ids=["drop-in", "v1"])
async def test_a_real_broker(api: Any, path: str, body: dict[str, Any]) -> None:
    """Of some that are asked at once, and of one that is asked a moment later; one with no-cache runs."""
    words = ["pods", "-l", "of=" + path.replace("/", ".").strip(".")]
    body = body | ({"args": words} if "args" in body else {"argv": ["get", *words]})
    taking = {"Cache-Control": "max-age=5"}
    answers = await asyncio.gather(*(api.post(path, json=body, headers=taking) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    told = [answer.json() for answer in answers]
    assert sum(each["served_from"] == "run" for each in told) == 1
    assert len({each["stdout"] for each in told}) == 1
    assert len({each["command_id"] for each in told}) == 10
    own = (await api.post(path, json=body, headers={"Cache-Control": "no-cache"})).json()
    assert (own["served_from"], own["age_s"]) == ("run", 0)
    late = await api.post(path, json=body, headers=taking)
    assert (late.json()["served_from"], late.headers["Age"].isdigit()) == ("cache", True)


@pytest.mark.asyncio(loop_scope="session")
async def test_the_document_tells_of_it(api: Any) -> None:
    paths = (await api.get("/openapi.json")).json()["paths"]
    for path in ("/debug/execute", "/v1/clusters/{cluster_id}/commands"):
        operation = paths[path]["post"]
        assert "Age" in operation["responses"]["200"]["headers"]
        assert "Cache-Control" in {each["name"] for each in operation["parameters"] if "name" in each}
    assert "Cache-Control" not in {each["name"] for each in paths["/v1/clusters"]["get"]["parameters"]}
