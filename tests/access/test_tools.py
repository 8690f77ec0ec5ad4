"""Every tool at /mcp, in an older protocol and in the newest, with each kind of key; a new one is given a method.

And what a client begins with, which is the same for every key that there is.
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx
import pytest

from broker.core.access import rule
from gateway.mcp.door import BEGINNINGS
from gateway.mcp.listing import LISTING
from openline.reasons import Reason

# By tool: the method whose rule decides.
METHODS = {
    "kubectl": "CommandService.Execute",
    "kubectl_fanout": "CommandService.Execute",
    "get_result": "CommandService.GetCommand",
    "cancel": "CommandService.CancelCommand",
    "list_clusters": "ClusterService.ListClusters",
}
# What the arguments of a call are: names of what belongs to a cluster, and the rest.
NAMED = {"cluster": "cluster_id", "clusters": "clusters", "command_id": "command_id", "session_id": "session_id"}
GIVEN: Mapping[str, Any] = {"kubectl": {"command": "get pods"}, "kubectl_fanout": {"command": "get pods"}}
VERSION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
FORMS = ("older", "newest")
ROWS = [(tool["name"], form) for tool in LISTING for form in FORMS]
MADE_UP = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def arguments(tool: str, names: Mapping[str, str]) -> dict[str, Any]:
    [schema] = [each["inputSchema"] for each in LISTING if each["name"] == tool]
    told = {name: names[NAMED[name]] for name in schema["properties"] if name in NAMED}
    return {name: [value] if name == "clusters" else value for name, value in told.items()} | GIVEN.get(tool, {})


@pytest.fixture(scope="module")
def begun(play: Any) -> Any:
    """By method and kind of key: the status, and what is said."""
    client = {"name": "test", "version": "1"}
    params = {"_meta": META, "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}

    async def ask(stage: Any) -> Any:
        headers = {"Accept": "application/json, text/event-stream", "X-Request-ID": "this", "X-Correlation-ID": "this"}
        async with httpx.AsyncClient(base_url=stage.gateway, headers=headers, timeout=20, trust_env=False) as api:

            async def begin(method: str, key: str | None) -> tuple[int, str]:
                message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
                answer = await api.post("/mcp", json=message, headers={} if key is None else {"X-API-Key": key})
                return answer.status_code, answer.text

            # One that may do nothing else, since no scope is asked for.
            keys = stage.keys | {
                "wrong scope": (await stage.ask("AdminService.CreateApiKey", owner="zoe", scopes=["audit"])).key
            }
            return {(method, kind): await begin(method, key) for method in BEGINNINGS for kind, key in keys.items()}

    return play(ask)


@pytest.fixture(scope="module")
def cells(play: Any, row: Any, told: Any) -> Any:

    async def call(api: httpx.AsyncClient, tool: str, form: str, key: str | None, names: Mapping[str, str]) -> Any:
        headers = {"X-Request-ID": "this", "X-Correlation-ID": "this"} | ({} if key is None else {"X-API-Key": key})
        params: dict[str, Any] = {"name": tool, "arguments": arguments(tool, names)}
        if form == "newest":
            params["_meta"] = META
            headers |= {"MCP-Protocol-Version": VERSION, "Mcp-Method": "tools/call", "Mcp-Name": tool}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        answer = await api.post("/mcp", json=message, headers=headers)
        text = answer.text
        if not answer.is_success:
            return told(answer.json()["reason"], text)
        if answer.headers["content-type"].startswith("text/event-stream"):
            [text] = [line[5:] for line in text.split("\n") if line.startswith("data:")]
        result = json.loads(text)["result"]
        reason = result["structuredContent"].get("reason", "") if result["isError"] else ""
        if tool == "kubectl_fanout":
            # As in REST, what is wrong with a cluster is told of the cluster.
            return told("" if "problems" in result["structuredContent"] else reason, MADE_UP.sub("made-up", text))
        return told(reason, text)

    async def ask(stage: Any) -> Any:
        headers = {"Accept": "application/json, text/event-stream"}
        async with httpx.AsyncClient(base_url=stage.gateway, headers=headers, timeout=20, trust_env=False) as api:
            rows = {
                f"{tool} {form}": row(
                    rule(METHODS[tool]),
                    partial(call, api, tool, form),
                    is_list=not NAMED.keys() & arguments(tool, NAMES),
                )
                for tool, form in ROWS
            }
            return await stage.fill(rows)

    return play(ask)


# As if each were called like its kind.
NAMES = {name: name for name in NAMED.values()}


def test_every_tool_is_in_the_matrix() -> None:
    """And every text that it takes is a name, or nothing that access depends on."""
    assert {tool["name"] for tool in LISTING} == METHODS.keys()
    free = {
        "after", "argv", "command", "cursor", "fresh", "grep", "grep_context", "jsonpath", "max_output_chars",
        "namespace", "selector", "tail", "timeout_seconds", "wait_seconds",
    }  # fmt: skip
    taken = {name for tool in LISTING for name in tool["inputSchema"]["properties"]}
    assert taken == NAMED.keys() | free


@pytest.mark.parametrize(("tool", "form"), ROWS)
def test_tool(cells: Any, judge: Any, tool: str, form: str, kind: str) -> None:
    judge(cells[f"{tool} {form}"], kind)


@pytest.mark.parametrize("method", BEGINNINGS)
def test_beginning(begun: Any, method: str, kind: str) -> None:
    """Nobody learns that a key was good once; what it may do is told by the tools."""
    status, text = begun[method, kind]
    if kind in ("wrong scope", "wrong cluster", "good key"):
        assert (status, text) == begun[method, "good key"]
        assert status != 401
    else:
        assert (status, json.loads(text)["reason"]) == (401, Reason.UNAUTHENTICATED)
        assert kind == "no key" or text == begun[method, "wrong key"][1]
