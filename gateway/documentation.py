"""The OpenAPI document, with what FastAPI cannot know: the headers that `callers` and `edge` read."""

from typing import Any

from fastapi import FastAPI

_SECURITY_SCHEMES = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
}

_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "X-Request-Timeout": ("Seconds to wait; wins over the body.", {"type": "integer", "minimum": 1, "maximum": 60}),
    "X-Correlation-ID": ("Ties together the calls of one AI agent; wins over the body. Echoed.", {"type": "string"}),
    "X-Request-ID": ("Names this request in the logs. Echoed.", {"type": "string"}),
    "Prefer": ("`handling=strict`: a command that runs out of time is a 504.", {"type": "string"}),
    "Idempotency-Key": ("The same key again gives the same command.", {"type": "string"}),
    "traceparent": ("W3C trace context, passed on.", {"type": "string"}),
}

# Tagged so, a route asks for no key.
OPEN_TAG = "health"


class Api(FastAPI):
    """FastAPI, whose document tells of the headers as well."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _described(super().openapi())
        return self.openapi_schema


def _described(document: dict[str, Any]) -> dict[str, Any]:
    document["components"]["securitySchemes"] = _SECURITY_SCHEMES
    headers = [
        {"name": name, "in": "header", "required": False, "description": text, "schema": schema}
        for name, (text, schema) in _HEADERS.items()
    ]
    for path in document["paths"].values():
        for operation in path.values():
            if OPEN_TAG not in operation["tags"]:
                operation["security"] = [{scheme: []} for scheme in _SECURITY_SCHEMES]
                operation["parameters"] = operation.get("parameters", []) + headers
    return document
