"""The OpenAPI document, with what FastAPI cannot know: the headers that `callers` and `edge` read."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse

from gateway.command_models import CommandAnswer
from gateway.examples import EXAMPLES
from gateway.pages import docs_page
from gateway.problems import RETRY_AFTER
from gateway.rate_limits import RATE_LIMIT_HEADERS

_SECURITY_SCHEMES = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
}

_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "X-Request-Timeout": (
        "Seconds to wait, all told, for the cluster (half of it at most) and for the command; wins over the body.",
        {"type": "integer", "minimum": 1, "maximum": 60},
    ),
    "X-Correlation-ID": (
        "Ties together the calls of one AI agent; wins over the body. Echoed, with what is not visible ASCII "
        "percent-encoded, and no longer than 200 characters.",
        {"type": "string"},
    ),
    "X-Request-ID": ("Names this request in the logs. Echoed.", {"type": "string"}),
    "Prefer": (
        "RFC 7240. `respond-async, wait=5` on /v1: 202 for a command that takes longer. `handling=strict` on "
        "/debug/execute: a command that runs out of time is a 504.",
        {"type": "string"},
    ),
    "Idempotency-Key": (
        "The same key and request (cluster, session and words) again give the same command, with "
        "`Idempotency-Replayed: true`; another request with the key of an earlier one is a 422. Keys are the caller's "
        "own, and forgotten with the result.",
        {"type": "string"},
    ),
    "Cache-Control": (
        "RFC 9111. How old an answer may be: `max-age=2` takes that of an identical command which was sent to its "
        "cluster at most two seconds ago, and runs or has succeeded (five are the most); `no-cache` has a run of its "
        "own. Without it, as the broker is set.",
        {"type": "string"},
    ),
    "traceparent": ("W3C trace context, passed on.", {"type": "string"}),
}

# On every answer.
_IDS = {
    "X-Request-ID": {"description": "As it was given, or made.", "required": True, "schema": {"type": "string"}},
    "X-Correlation-ID": {
        "description": "As it was given, with what is not visible ASCII percent-encoded and no more than 200 "
        "characters; or made.",
        "required": True,
        "schema": {"type": "string"},
    },
}
LOCATION = {"description": "Where it is found.", "schema": {"type": "string"}}
_PREFERENCE_APPLIED = {"description": "What of `Prefer` was followed.", "schema": {"type": "string"}}
_REPLAYED = {
    "Idempotency-Replayed": {
        "description": "`true`: this is the command of an earlier request with the same key.",
        "schema": {"type": "string"},
    }
}
_AGE = {
    "Age": {
        "description": "Only where `served_from` is not `run`: `age_s` in whole seconds, rounded up.",
        "schema": {"type": "integer"},
    }
}
# Where a command may have run, and so may have been run before.
_RAN = frozenset({"200", "202", "499", "504"})

# What a route answers to `Accept: text/event-stream`.
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": (
                    'event: status\ndata: {"command_id":"0192…","state":"running"}\n\n'
                    'event: output\nid: 0\ndata: {"seq":0,"source":"stdout","text":"NAME READY\\n",'
                    '"encoding_replaced":false,"missed_bytes":null}\n\n'
                    'event: result\ndata: {"exit_code":0, …}\n\n'
                ),
            }
        }
    }
}

FANOUT_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": (
                    'event: result\ndata: {"cluster_id":"east","exit_code":0, …}\n\n'
                    'event: error\ndata: {"cluster_id":"west","reason":"CLUSTER_OFFLINE","executed":"no", …}\n\n'
                    'event: summary\ndata: {"summary":"1 cluster answered; 1 failed: west (CLUSTER_OFFLINE)", …}\n\n'
                ),
            }
        }
    }
}

OVERVIEW_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": (
                    'event: overview\ndata: {"at":"2026-11-29T12:00:00Z","replica_id":"broker-1","replicas":[…], …}\n\n'
                    'event: error\ndata: {"reason":"BROKER_UNAVAILABLE","detail":"no broker replica answers", …}\n\n'
                ),
            }
        }
    }
}

# What `Prefer: respond-async` may come to.
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": CommandAnswer,
        "description": "It runs on (with `Prefer: respond-async`).",
        "headers": {
            "Location": LOCATION,
            "Retry-After": RETRY_AFTER,
            "Preference-Applied": _PREFERENCE_APPLIED,
        },
    }
}

# The exact bytes: of OpenAPI 3.1, a media type without a schema.
OUTPUT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/octet-stream": {}},
        "headers": {
            name: {"description": text, "schema": {"type": "integer"}}
            for name, text in {
                "X-Output-Total-Bytes": "What the command wrote, kept or not.",
                "X-Output-Total-Lines": "The same in lines.",
                "X-Output-Kept-Bytes": "What can be fetched.",
                "X-Output-Cut-Bytes": "What cannot.",
                "X-Output-Cut-Lines": "The same in lines.",
                "X-Output-Cut-At": "The offset, into what is kept, at which the cut bytes are missing.",
            }.items()
        },
    }
}

LAST_EVENT_ID: dict[str, Any] = {
    "parameters": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "description": "The id of the last event that was seen: what follows it is sent.",
            "schema": {"type": "string"},
        }
    ]
}

# They answer with what is left of the key's quotas.
_COUNTED = frozenset({"run_command", "execute"})

# Only they take these headers.
_OF_RUNNING = frozenset({"Idempotency-Key", "Cache-Control"})
_RUNNING = frozenset({"run_command", "execute", "execute_async", "fan_out"})

_PROBLEM = {"$ref": "#/components/schemas/Problem"}

# Tagged so, a route asks for no key.
OPEN_TAG = "health"


class Api(FastAPI):
    """FastAPI, whose document tells of the headers as well."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _described(super().openapi())
        return self.openapi_schema


def docs_routes() -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def docs(request: Request) -> HTMLResponse:
        """For a person."""
        # Not by a closure: FastAPI remembers the last thousands of such functions, and all that they hold.
        return docs_page(request.app.openapi())

    return routes


def _described(document: dict[str, Any]) -> dict[str, Any]:
    document["components"]["securitySchemes"] = _SECURITY_SCHEMES
    for name, example in EXAMPLES.items():
        if (schema := document["components"]["schemas"].get(name)) is not None:
            schema["examples"] = [example]
    headers = [
        {"name": name, "in": "header", "required": False, "description": text, "schema": schema}
        for name, (text, schema) in _HEADERS.items()
    ]
    for path in document["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                # FastAPI takes every model for plain JSON.
                if response.get("content", {}).get("application/json", {}).get("schema") == _PROBLEM:
                    response["content"] = {"application/problem+json": {"schema": _PROBLEM}}
                response.setdefault("headers", {}).update(_IDS)
            if operation["operationId"] in _RUNNING:
                for status in _RAN & operation["responses"].keys():
                    operation["responses"][status]["headers"].update(_REPLAYED)
            if operation["operationId"] == "execute":
                operation["responses"]["504"]["headers"]["Preference-Applied"] = _PREFERENCE_APPLIED
            if operation["operationId"] in _COUNTED:
                operation["responses"]["200"]["headers"].update(RATE_LIMIT_HEADERS | _AGE)
            if OPEN_TAG not in operation["tags"]:
                operation["security"] = [{scheme: []} for scheme in _SECURITY_SCHEMES]
                taken = [
                    header
                    for header in headers
                    if header["name"] not in _OF_RUNNING or operation["operationId"] in _RUNNING
                ]
                operation["parameters"] = operation.get("parameters", []) + taken
    return document
