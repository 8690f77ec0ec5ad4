"""What every model reads of the tools in every conversation: that it is little, and that it is true."""

import json
from typing import Any

import httpx
import pytest
import splintr
from jsonschema import Draft202012Validator

from gateway.mcp.arguments import (
    CancelArguments,
    ClustersArguments,
    FanoutArguments,
    KubectlArguments,
    ResultArguments,
)
from gateway.mcp.listing import INSTRUCTIONS, LISTING
from gateway.mcp.tools import TOOLS

MODELS = {
    "kubectl": KubectlArguments,
    "list_clusters": ClustersArguments,
    "kubectl_fanout": FanoutArguments,
    "get_result": ResultArguments,
    "cancel": CancelArguments,
}
MAX_TOKENS = 1_500


@pytest.mark.parametrize("vocabulary", ["o200k_base", "cl100k_base"])
async def test_it_is_cheap_in_tokens(mcp: Any, vocabulary: str) -> None:
    """The whole answer as it comes, in the older protocols and in the newest; and the server's instructions on top."""
    tokenizer = splintr.Tokenizer.from_pretrained(vocabulary)
    headers = {"X-API-Key": "the-key-of-mia", "Accept": "application/json, text/event-stream"}
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    async with httpx.AsyncClient(base_url=mcp.urls[0], headers=headers, timeout=60, trust_env=False) as http:
        for params, more in (
            ({}, {}),
            ({"_meta": meta}, {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}),
        ):
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}
            answer = (await http.post("/mcp", json=message, headers=more)).text
            assert answer.count('"inputSchema"') == 5
            tokens = len(tokenizer.encode(answer)) + len(tokenizer.encode(INSTRUCTIONS))
            assert 500 < tokens < MAX_TOKENS


@pytest.mark.parametrize("tool", LISTING, ids=lambda tool: tool["name"])
def test_it_is_what_is_taken(tool: dict[str, Any]) -> None:
    """Every argument of the schema and no other, and its required ones are required."""
    model = MODELS[tool["name"]]
    schema = tool["inputSchema"]
    assert schema["properties"].keys() == model.model_fields.keys()
    assert schema.get("required", []) == [name for name, field in model.model_fields.items() if field.is_required()]
    for each in (schema, tool["outputSchema"]):
        Draft202012Validator.check_schema(each)
    kinds = {name: name for name in ("string", "number", "integer", "boolean", "array")}
    made = model.model_json_schema()["properties"]
    for name, declared in schema["properties"].items():
        types = {option.get("type") for option in made[name].get("anyOf", [made[name]])}
        assert kinds[declared["type"]] in types


def test_it_is_all_that_there_is() -> None:
    assert [tool["name"] for tool in LISTING] == list(TOOLS) == list(MODELS)
    assert len(json.dumps(LISTING)) < 6_000


def test_what_it_says_of_numbers() -> None:
    """The defaults in the descriptions are those of the models."""
    described = {
        (tool["name"], name): argument.get("description", "")
        for tool in LISTING
        for name, argument in tool["inputSchema"]["properties"].items()
    }
    assert described["kubectl", "timeout_seconds"] == "Default 10"
    assert KubectlArguments(cluster="x").timeout_seconds == 10
    assert described["get_result", "wait_seconds"] == "For its end. Default 20, at most 50"
    assert ResultArguments().wait_seconds == 20
    ResultArguments(wait_seconds=50)
    with pytest.raises(ValueError, match="less than or equal to 50"):
        ResultArguments(wait_seconds=50.1)
