"""What is left of a key's quotas, in headers."""

from typing import Any

import pytest

from gateway.rate_limits import headers_of_error, rate_limit_headers
from openline.errors import error
from openline.reasons import Reason
from openline.v1 import command_pb2
from openline.v1 import command_service_pb2 as pb

COMMANDS = pb.QuotaState(name="commands", limit=600, remaining=42, window_s=60, reset_s=12.2)
IN_FLIGHT = pb.QuotaState(name="in-flight", limit=20, remaining=19)
REFUSED = {"quota": "commands", "limit": "600", "remaining": "0", "window_s": "60", "reset_s": "12.200"}
ASK = {"cluster_id": "local", "args": ["pods"]}


def test_the_form_of_the_draft() -> None:
    assert rate_limit_headers([COMMANDS, IN_FLIGHT]) == {
        "RateLimit-Policy": '"commands";q=600;w=60, "in-flight";q=20;qu="concurrent-requests"',
        "RateLimit": '"commands";r=42;t=13, "in-flight";r=19',
    }
    assert rate_limit_headers([]) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"quota": 'x"\r\nSet-Cookie: a=b'},
        {"quota": ""},
        {"limit": "many"},
        {"limit": "-1"},
        {"limit": "9" * 30},
        {"remaining": "1.5"},
        {"window_s": "inf"},
        {"reset_s": "nan"},
        {"reset_s": ""},
    ],
    ids=str,
)
def test_what_is_not_well_formed_is_no_header(wrong: dict[str, str]) -> None:
    """An executor may refuse with any reason and metadata that it likes."""
    assert headers_of_error(REFUSED)
    assert headers_of_error(REFUSED | wrong) == {}
    assert headers_of_error({}) == {}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("path", "body"),
    [("/debug/execute", ASK), ("/v1/clusters/local/commands", {"argv": ["get", "pods"]})],
    ids=["drop-in", "v1"],
)
async def test_answers_and_refusals_have_them(stage: Any, path: str, body: dict[str, Any]) -> None:
    """Beside Retry-After where it is refused; and nothing where there is no quota."""
    result = command_pb2.CommandResult(outcome=command_pb2.OUTCOME_EXITED)
    replies: list[dict[str, Any]] = [
        {"response": pb.ExecuteResponse(result=result, quotas=[COMMANDS])},
        {"response": pb.ExecuteResponse(result=result)},
        {"error": error(Reason.QUOTA_EXCEEDED, "used up", retry_after_s=12.2, metadata=REFUSED)},
        {"error": error(Reason.CLUSTER_BUSY, "later", retry_after_s=1)},
    ]

    async def script(_frame: Any, say: Any) -> None:
        await say.reply(**replies.pop(0))

    async with stage(script) as scene:
        seen = []
        for _ in range(4):
            answer = await scene.api.post(path, json=body)
            names = ("RateLimit-Policy", "RateLimit", "Retry-After")
            seen.append((answer.status_code, *(answer.headers.get(name) for name in names)))
    policy = '"commands";q=600;w=60'
    assert seen == [
        (200, policy, '"commands";r=42;t=13', None),
        (200, None, None, None),
        (429, policy, '"commands";r=0;t=13', "13"),
        (429, None, None, "1"),
    ]


@pytest.mark.asyncio(loop_scope="session")
async def test_the_document_tells_of_them(api: Any) -> None:
    paths = (await api.get("/openapi.json")).json()["paths"]
    for path in ("/debug/execute", "/v1/clusters/{cluster_id}/commands"):
        responses = paths[path]["post"]["responses"]
        assert {"RateLimit", "RateLimit-Policy"} <= set(responses["200"]["headers"])
        assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(responses["429"]["headers"])
