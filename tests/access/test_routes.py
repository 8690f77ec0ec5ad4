"""Every route of the gateway, plain and as events, with each kind of key. The rows are those of the OpenAPI document: a
new route is to be given the method whose rule it is held to, and a new name in a request what it stands for.
"""

import json
import re
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from broker.core.access import rule
from gateway.app import build_app
from openline.pipes import Pipes
from openline.reasons import Reason

# By operation: the method whose rule decides.
METHODS = {
    "execute": "CommandService.Execute",
    "execute_async": "CommandService.Execute",
    "run_command": "CommandService.Execute",
    "fan_out": "CommandService.Execute",
    "get_operation": "CommandService.GetCommand",
    "get_command": "CommandService.GetCommand",
    "get_output": "CommandService.GetCommand",
    "watch_command": "CommandService.WatchCommand",
    "cancel_command": "CommandService.CancelCommand",
    "cancel_commands": "CommandService.CancelCommands",
    "list_commands": "CommandService.ListCommands",
    "list_session_commands": "CommandService.ListCommands",
    "create_session": "SessionService.CreateSession",
    "create_session_v1": "SessionService.CreateSession",
    "get_session": "SessionService.GetSession",
    "get_session_v1": "SessionService.GetSession",
    "list_sessions": "SessionService.ListSessions",
    "delete_session": "SessionService.DeleteSession",
    "delete_session_v1": "SessionService.DeleteSession",
    "list_clusters": "ClusterService.ListClusters",
    "list_clusters_v1": "ClusterService.ListClusters",
    "get_cluster": "ClusterService.GetCluster",
    "get_cluster_v1": "ClusterService.GetCluster",
    "get_cluster_status": "ClusterService.GetCluster",
    "get_capabilities": "ClusterService.GetCluster",
    "validate_command": "ClusterService.GetCluster",
    "create_token": "AdminService.CreateExecutorToken",
    "list_tokens": "AdminService.ListExecutorTokens",
    "revoke_token": "AdminService.RevokeExecutorToken",
    # For admins alone, where the methods that they ask would do with less.
    "list_agents": "AdminService.ListExecutorTokens",
    "get_agent_status": "AdminService.ListExecutorTokens",
    "cancel_all": "AdminService.CancelAll",
    "get_overview": "AdminService.GetOverview",
    "watch_overview": "AdminService.WatchOverview",
    "drain": "AdminService.Drain",
    "create_key": "AdminService.CreateApiKey",
    "list_keys": "AdminService.ListApiKeys",
    "revoke_key": "AdminService.RevokeApiKey",
    "list_audit_entries": "AdminService.ListAuditEntries",
    "set_log_level": "AdminService.SetLogLevel",
}
# Not to be asked for a key: probes, and pages about the interface.
OPEN = {"health", "healthz", "metrics"}
PAGES = {("GET", "/docs"), ("GET", "/openapi.json"), ("HEAD", "/openapi.json")} | {
    *(("GET", f"/ui{rest}") for rest in ("", "/", "/{name}")),
    *((verb, "/.well-known/agent-card.json") for verb in ("GET", "HEAD")),
}
# What can be asked there is in the matrices of `test_tools` and `test_tasks`.
TOOLS = {("POST", "/mcp"), ("POST", "/a2a")}
# Who may not is told so, whether there is such a cluster or not.
NEED_EVERY = {"create_key", "drain", "set_log_level"}
# Events that go on until the caller leaves.
ENDLESS = {"watch_overview"}
# What a good key is told on this stage, if it is not an answer: there is no such replica.
ALONE = {"drain": (Reason.INVALID_COMMAND, "422")}

# What texts in requests are: names of what belongs to a cluster, and what no access depends on.
NAMES = {"cluster_id", "session_id", "command_id", "key_id", "token_id", "clusters"}
FREE = {
    "argv", "args", "command", "correlation_id", "cursor", "extra_args", "grep", "jsonpath", "key", "level",
    "namespace", "order", "owner", "page_token", "reason", "replica_id", "scopes", "selector", "service_identity",
    "since", "source", "unchanged_since", "until", "user_id",
}  # fmt: skip
EVENTS = "text/event-stream"
# A fan-out tells of the id that it made up for each command, also of those that were refused.
MADE_UP = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
Json = dict[str, Any]

API: Any = build_app(Pipes(("127.0.0.1:1",), client="test"))._app._usual  # type: ignore[attr-defined]
DOCUMENT: Json = API.openapi()


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the document."""

    name: str
    verb: str
    path: str
    described: Json

    @property
    def is_open(self) -> bool:
        return "security" not in self.described

    @property
    def has_events(self) -> bool:
        return EVENTS in self.described["responses"].get("200", {}).get("content", {})

    @property
    def asked(self) -> list[str]:
        """The names in its query."""
        return [
            each["name"] for each in self.described["parameters"] if each["in"] == "query" and each["name"] in NAMES
        ]

    @property
    def body(self) -> Json:
        """The schema of a body that there must be."""
        body = self.described.get("requestBody", {})
        if not body.get("required"):
            return {}
        reference: str = body["content"]["application/json"]["schema"]["$ref"]
        schema: Json = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
        return schema

    @property
    def texts(self) -> list[str]:
        """What it takes that is text, anywhere but in headers."""
        parameters = [each for each in self.described.get("parameters", ()) if each["in"] != "header"]
        taken = {each["name"]: each["schema"] for each in parameters} | self.body.get("properties", {})
        return [name for name, schema in taken.items() if '"string"' in json.dumps(schema)]

    @property
    def names(self) -> list[str]:
        return [name for name in self.texts if name in NAMES]

    def content(self, names: Mapping[str, str], about: str) -> Json | None:
        """An example of the document, about this; where only one thing can be said, about that one."""
        if not (schema := self.body):
            return None
        if "oneOf" in schema:
            about = about or ("cluster_id" if "cluster_id" in schema["properties"] else "session_id")
            return {about: names[about]}
        content = {name: value for name, value in schema["examples"][0].items() if name not in NAMES}
        for name in NAMES & schema["properties"].keys():
            # A session may be left out, and is: a command without one goes another way.
            if name != "session_id" or about == name:
                content[name] = [names[name]] if name == "clusters" else names[name]
        return content


OPERATIONS = {
    described["operationId"]: Operation(described["operationId"], verb.upper(), path, described)
    for path, verbs in DOCUMENT["paths"].items()
    for verb, described in verbs.items()
}
KEYED = [name for name, operation in OPERATIONS.items() if not operation.is_open]
ROWS = [(name, "plain") for name in KEYED] + [(name, "events") for name in KEYED if OPERATIONS[name].has_events]
HALVES = [(name, about) for name in KEYED if len(OPERATIONS[name].names) > 1 for about in OPERATIONS[name].names]


class Answers(NamedTuple):
    """All that was told: cells by row and kind of key, and the rest."""

    cells: Any
    # By operation, and the one name of several that is hidden.
    halves: Any
    # Statuses by open operation.
    opened: dict[str, int]
    # As it is served.
    document: Json


async def first_event(answer: httpx.Response) -> str:
    async with aclosing(answer.aiter_lines()) as lines:
        async for line in lines:
            if line.startswith("data: "):
                return line
    raise AssertionError("no event")


@pytest.fixture(scope="module")
def answers(play: Any, row: Any, told: Any) -> Answers:

    async def call(
        api: httpx.AsyncClient, operation: Operation, form: str, key: str | None, names: Mapping[str, str], about: str
    ) -> Any:
        # Asked under the same ids, for answers that can be held against each other.
        headers = {"X-Request-ID": "this", "X-Correlation-ID": "this"} | ({} if key is None else {"X-API-Key": key})
        if form == "events":
            headers["Accept"] = EVENTS
        request = api.build_request(
            operation.verb,
            operation.path.format_map(names),
            params={name: names[name] for name in operation.asked},
            json=operation.content(names, about),
            headers=headers,
        )
        answer = await api.send(request, stream=True)
        if operation.name in ENDLESS and answer.is_success:
            text = await first_event(answer)
        else:
            await answer.aread()
            text = answer.text
        await answer.aclose()
        reason = "" if answer.is_success else answer.json()["reason"]
        body = MADE_UP.sub("made-up", text) if operation.name == "fan_out" else text
        return told(reason, f"{answer.status_code} {answer.headers.get('Content-Type')} {body}")

    async def ask(stage: Any) -> Answers:
        async with httpx.AsyncClient(base_url=stage.gateway, timeout=20, trust_env=False) as api:
            document = (await api.get("/openapi.json")).json()
            opened = {name: (await api.get(OPERATIONS[name].path)).status_code for name in OPEN}
            rows = {
                f"{name} {form}": row(
                    rule(METHODS[name]),
                    partial(call, api, OPERATIONS[name], form, about=""),
                    is_list=not OPERATIONS[name].names,
                    is_last=name in ("cancel_all", "cancel_commands"),
                )
                for name, form in ROWS
                if name in METHODS  # a new one fails by itself
            }
            halves = {
                (name, about): partial(call, api, OPERATIONS[name], "plain", about=about) for name, about in HALVES
            }
            half_hidden = await stage.fill_halves(halves)
            return Answers(await stage.fill(rows), half_hidden, opened, document)

    answered: Answers = play(ask)
    return answered


def test_what_is_served_is_in_the_matrix(answers: Answers) -> None:
    """Routes, and texts in requests: a new one is given its place."""
    assert answers.document == json.loads(json.dumps(DOCUMENT))
    assert set(KEYED) == METHODS.keys()
    assert OPERATIONS.keys() - METHODS.keys() == OPEN
    served = {(verb, route.path) for route in iter_route_contexts(API.routes) for verb in route.methods}
    assert served == {(each.verb, each.path) for each in OPERATIONS.values()} | PAGES | TOOLS
    assert {name for operation in OPERATIONS.values() for name in operation.texts} == NAMES | FREE


@pytest.mark.parametrize(("name", "form"), ROWS)
def test_route(answers: Answers, judge: Any, name: str, form: str, kind: str) -> None:
    reason, good = ALONE.get(name, ("", "20"))
    judge(
        answers.cells[f"{name} {form}"],
        kind,
        needs_every=name in NEED_EVERY,
        good=reason,
        tells_of=name != "cancel_commands",
    )
    status = {"wrong scope": "403", "wrong cluster": "", "good key": good}.get(kind, "401")
    assert answers.cells[f"{name} {form}"][kind].told.text.startswith(status)


@pytest.mark.parametrize(("name", "about"), HALVES)
def test_one_hidden_name_among_others(answers: Answers, judge_hidden: Any, name: str, about: str) -> None:
    """Such as a hidden session in a cluster that is seen: it is one that there is not."""
    judge_hidden(answers.halves[name, about], may_be_refused=False)


@pytest.mark.parametrize("name", sorted(OPEN))
def test_open_to_everybody(answers: Answers, name: str) -> None:
    assert answers.opened[name] == 200
