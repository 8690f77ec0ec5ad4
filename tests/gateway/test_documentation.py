"""/openapi.json for programs and /docs for persons."""

import html.parser
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from gateway import (
    admin_models,
    audit_models,
    cancel_models,
    cluster_models,
    command_models,
    fanout_models,
    key_models,
    log_level,
    models,
    validating,
)
from gateway.examples import EXAMPLES
from gateway.pages import docs_page

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODELS: dict[str, type[BaseModel]] = {
    "CommandAnswer": command_models.CommandAnswer,
    "ExecuteAnswer": models.ExecuteAnswer,
    "OperationAnswer": models.OperationAnswer,
    "FanoutAnswer": fanout_models.FanoutAnswer,
    "ClusterShown": cluster_models.ClusterShown,
    "ClusterPage": cluster_models.ClusterPage,
    "LogLevelAnswer": log_level.LogLevelAnswer,
    "ClustersAnswer": models.ClustersAnswer,
    "ClusterAnswer": models.ClusterAnswer,
    "ClusterStatusAnswer": models.ClusterStatusAnswer,
    "CapabilitiesAnswer": cluster_models.CapabilitiesAnswer,
    "CancelAnswer": command_models.CancelAnswer,
    "HealthAnswer": models.HealthAnswer,
    "SessionAnswer": models.SessionAnswer,
    "SessionShown": cluster_models.SessionShown,
    "TokenAnswer": admin_models.TokenAnswer,
    "TokensAnswer": admin_models.TokensAnswer,
    "KeyAnswer": key_models.KeyAnswer,
    "KeyPage": key_models.KeyPage,
    "CancelAllAnswer": cancel_models.CancelAllAnswer,
    "CancelCommandsAnswer": cancel_models.CancelCommandsAnswer,
    "AgentsAnswer": admin_models.AgentsAnswer,
    "AgentStatusAnswer": admin_models.AgentStatusAnswer,
    "CommandPage": command_models.CommandPage,
    "SessionPage": cluster_models.SessionPage,
    "AuditAnswer": audit_models.AuditAnswer,
    "ValidateAnswer": validating.ValidateAnswer,
    "Problem": models.Problem,
}


@pytest.mark.parametrize("name", EXAMPLES)
async def test_examples_are_what_they_are_examples_of(api: httpx.AsyncClient, name: str) -> None:
    """Every field and no other, and the document shows them."""
    MODELS[name].model_validate(EXAMPLES[name], extra="allow" if name == "Problem" else "forbid")
    assert set(EXAMPLES[name]) >= set(MODELS[name].model_fields)
    schemas = (await api.get("/openapi.json")).json()["components"]["schemas"]
    assert schemas[name]["examples"] == [EXAMPLES[name]]


async def test_bodies_have_examples_that_are_taken(api: httpx.AsyncClient) -> None:
    """What is copied from the documentation works."""
    schemas = (await api.get("/openapi.json")).json()["components"]["schemas"]
    bodies: dict[str, type[BaseModel]] = {
        "CommandBody": command_models.CommandBody,
        "FanoutBody": fanout_models.FanoutBody,
        "ExecuteBody": models.ExecuteBody,
        "SessionBody": models.SessionBody,
        "TokenBody": admin_models.TokenBody,
        "CancelAllBody": cancel_models.CancelAllBody,
        "CancelCommandsBody": cancel_models.CancelCommandsBody,
        "KeyBody": key_models.KeyBody,
        "LogLevelBody": log_level.LogLevelBody,
    }
    for name, model in bodies.items():
        assert schemas[name]["examples"]
        for example in schemas[name]["examples"]:
            model.model_validate(example, extra="forbid")


async def test_operations_are_named_once_and_shortly(api: httpx.AsyncClient) -> None:
    """Names that a generated client's methods can have."""
    paths = (await api.get("/openapi.json")).json()["paths"]
    names = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalnum() and len(name) <= 24 for name in names)


async def test_a_problem_is_documented_as_what_it_is(api: httpx.AsyncClient) -> None:
    """Every error's content type is that of RFC 9457, as it is sent."""
    paths = (await api.get("/openapi.json")).json()["paths"]
    operations = [
        operation for path in paths.values() for operation in path.values() if "health" not in operation["tags"]
    ]
    assert operations
    for operation in operations:
        for status, response in operation["responses"].items():
            if status >= "400":
                assert list(response["content"]) == ["application/problem+json"], (operation["operationId"], status)
    sent = await api.get("/debug/clusters/nowhere")
    assert sent.headers["Content-Type"] == "application/problem+json"


async def test_bytes_are_documented_as_bytes(api: httpx.AsyncClient) -> None:
    """OpenAPI 3.1 has no `format: binary`: bytes have a media type and no schema."""
    document = (await api.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    output = document["paths"]["/v1/commands/{command_id}/output"]["get"]["responses"]["200"]
    assert output["content"] == {"application/octet-stream": {}}


class Links(html.parser.HTMLParser):
    """What a page would load, and what runs in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


async def test_docs_need_nothing_from_elsewhere(api: httpx.AsyncClient) -> None:
    """No key, no script, no address of another machine; every operation is there."""
    response = await api.get("/docs", headers={"X-API-Key": ""})
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    page = Links()
    page.feed(response.text)
    assert page.found == ["/openapi.json"]
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert "://" not in response.text
    for path in (await api.get("/openapi.json")).json()["paths"]:
        assert f"<code>{path}</code>" in response.text
    assert (await api.get("/redoc")).status_code == 404


async def test_docs_escape_what_they_show() -> None:
    """The document is ours, but a page must not depend on that."""
    info = {"title": "<b>", "version": "&", "description": "<script>"}
    operation: dict[str, Any] = {"operationId": "x", "tags": ["<i>"], "description": "<u>", "responses": {}}
    page = bytes(docs_page({"info": info, "paths": {"/<s>": {"get": operation}}, "components": {"schemas": {}}}).body)
    assert not any(tag in page for tag in (b"<b>", b"<script>", b"<i>", b"<u>", b"<s>"))


async def test_the_headers_of_answers_are_documented(api: httpx.AsyncClient) -> None:
    """The ids are on every answer; the others where they come."""
    paths = (await api.get("/openapi.json")).json()["paths"]
    answers = {
        (operation["operationId"], status): set(answer["headers"])
        for path in paths.values()
        for operation in path.values()
        for status, answer in operation["responses"].items()
    }
    assert all(headers >= {"X-Request-ID", "X-Correlation-ID"} for headers in answers.values())
    assert answers["execute", "504"] >= {"Preference-Applied", "Idempotency-Replayed"}
    assert {"410", "499"} <= {status for name, status in answers if name == "execute"}
    assert answers["run_command", "202"] >= {"Location", "Retry-After", "Preference-Applied", "Idempotency-Replayed"}
    assert answers["execute_async", "202"] >= {"Location", "Retry-After", "Idempotency-Replayed"}
    assert "Location" in answers["create_session_v1", "201"]
    replayed = {name for (name, _), headers in answers.items() if "Idempotency-Replayed" in headers}
    assert replayed == {"execute", "execute_async", "run_command", "fan_out"}
    later = {status for (_, status), headers in answers.items() if "Retry-After" in headers}
    assert later == {"202", "429", "503"}
