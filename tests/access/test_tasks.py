"""Every method at /a2a, in both versions of the protocol, with each kind of key; a new one is given a method here."""

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx
import pytest

from broker.core.access import rule
from gateway.a2a.agent import Agent
from gateway.a2a.door import METHODS as SERVED
from openline.reasons import Reason

# By what is done: the methods whose rules decide. Whoever cancels is shown the task where they may look.
METHODS = {
    Agent.send: "CommandService.Execute",
    Agent.stream: "CommandService.Execute",
    Agent.get: "CommandService.GetCommand",
    Agent.list: "CommandService.ListCommands",
    Agent.cancel: "CommandService.CancelCommand",
    Agent.subscribe: "CommandService.WatchCommand",
}
# The protocol's errors about a task, and the reason that each stands for.
ERRORS = {-32001: Reason.COMMAND_UNKNOWN}
# A task that has ended: there is nothing to stop or to follow.
ENDED = (-32002, -32004)
MADE_UP = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9-]{10}T[0-9:.]+Z")


@pytest.fixture(scope="module")
def cells(play: Any, row: Any, told: Any) -> Any:

    async def call(api: httpx.AsyncClient, method: str, key: str | None, names: Mapping[str, str]) -> Any:
        headers = {"X-Request-ID": "this", "X-Correlation-ID": "this"} | ({} if key is None else {"X-API-Key": key})
        params: dict[str, Any] = {"id": names["command_id"]}
        if SERVED[method][1] in (Agent.send, Agent.stream):
            # Of its own each time: a message that is sent again is answered with the task that there is.
            part = {"text": f"{names['cluster_id']}: get pods"}
            params = {"message": {"messageId": names["command_id"] + (key or ""), "parts": [part]}}
        if SERVED[method][1] is Agent.list:
            params = {"pageSize": 100}
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await api.post("/a2a", json=message, headers=headers)
        text = answer.text
        if not answer.is_success:
            return told(answer.json()["reason"], text)
        if answer.headers["content-type"].startswith("text/event-stream"):
            text = [line[5:] for line in text.split("\n") if line.startswith("data:")][-1]
        said = json.loads(text)
        if "error" in said:
            code = said["error"]["code"]
            return told("" if code in ENDED else ERRORS[code], text)
        result = said["result"]
        if "tasks" in result:
            return told("", MADE_UP.sub("made-up", text))
        task = result.get("task") or result.get("statusUpdate") or result
        return told(task["metadata"].get("reason", ""), MADE_UP.sub("made-up", text))

    async def ask(stage: Any) -> Any:
        async with httpx.AsyncClient(base_url=stage.gateway, timeout=20, trust_env=False) as api:
            rows = {
                method: row(rule(METHODS[do]), partial(call, api, method), is_list=do is Agent.list)
                for method, (_, do) in SERVED.items()
                if do in METHODS  # a new one fails by itself
            }
            return await stage.fill(rows)

    return play(ask)


def test_every_method_is_in_the_matrix() -> None:
    assert {do for _, do in SERVED.values()} == METHODS.keys()


@pytest.mark.parametrize("method", SERVED)
def test_method(cells: Any, judge: Any, method: str, kind: str) -> None:
    judge(cells[method], kind)
