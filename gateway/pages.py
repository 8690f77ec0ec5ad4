"""The documentation for a person: /docs, made from the OpenAPI document, with no script and nothing from elsewhere.

The usual pages load a megabyte of script from a CDN, which a cluster without a way out does not have.
"""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from starlette.responses import HTMLResponse

# Nothing is loaded and nothing runs, whatever the document says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
summary { cursor: pointer; padding: .3rem 0 } code, pre { font: 13px/1.45 ui-monospace, monospace }
pre { overflow-x: auto; padding: .6rem; border: 1px solid #8886; border-radius: 4px }
table { border-collapse: collapse; width: 100% } td { vertical-align: top; padding: .2rem .6rem .2rem 0 }
details > :not(summary) { margin-left: 1rem } .verb { display: inline-block; width: 4.5rem; font-weight: 600 }
"""

Json = dict[str, Any]


def docs_page(document: Json) -> HTMLResponse:
    return HTMLResponse("".join(_page(document)), headers={"Content-Security-Policy": POLICY})


def _page(document: Json) -> Iterator[str]:
    info = document["info"]
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
    yield '<p>For programs: <a href="/openapi.json">openapi.json</a>. A key goes into <code>X-API-Key</code> or '
    yield "<code>Authorization: Bearer</code>.</p>"
    operations = [
        (path, verb, operation) for path, verbs in document["paths"].items() for verb, operation in verbs.items()
    ]
    for tag in dict.fromkeys(operation["tags"][0] for _, _, operation in operations):
        yield f"<h2>{escape(tag)}</h2>"
        for path, verb, operation in operations:
            if operation["tags"][0] == tag:
                yield from _operation(path, verb, operation, document)


def _operation(path: str, verb: str, operation: Json, document: Json) -> Iterator[str]:
    identity = escape(operation["operationId"])
    yield f'<details id="{identity}"><summary><span class="verb">{escape(verb.upper())}</span>'
    yield f"<code>{escape(path)}</code></summary>"
    yield "".join(f"<p>{escape(part)}</p>" for part in operation.get("description", "").split("\n\n"))
    if operation.get("parameters"):
        yield "<h4>Parameters</h4><table>"
        for parameter in operation["parameters"]:
            text = parameter.get("description") or parameter["schema"].get("description", "")
            yield f"<tr><td><code>{escape(parameter['name'])}</code><td>{escape(parameter['in'])}<td>{escape(text)}"
        yield "</table>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if body:
        yield from _schema("Body", body["schema"], document)
    for status, response in operation.get("responses", {}).items():
        yield f"<h4>{escape(status)}</h4><p>{escape(response.get('description', ''))}</p>"
        for media, content in response.get("content", {}).items():
            if "example" in content:
                yield f"<details><summary>{escape(media)}</summary>{_shown(content['example'])}</details>"
            elif status.startswith("2") and "$ref" in content.get("schema", {}):
                yield from _schema(media, content["schema"], document)
    yield "</details>"


def _schema(title: str, reference: Json, document: Json) -> Iterator[str]:
    """A body: its fields, and examples of it."""
    name = reference.get("$ref", "").rpartition("/")[2]
    schema = document["components"]["schemas"].get(name)
    if schema is None:
        return
    yield f"<details><summary>{escape(title)}: {escape(name)}</summary><p>{escape(schema.get('description', ''))}</p>"
    yield "<table>"
    for field, about in schema.get("properties", {}).items():
        needed = " (required)" if title == "Body" and field in schema.get("required", ()) else ""
        yield f"<tr><td><code>{escape(field)}</code>{needed}<td>{escape(about.get('description', ''))}"
    yield "</table>"
    yield from map(_shown, schema.get("examples", ()))
    yield "</details>"


def _shown(example: object) -> str:
    text = example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)
    return f"<pre>{escape(text)}</pre>"
