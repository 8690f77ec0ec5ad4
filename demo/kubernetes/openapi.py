"""OpenAPI v3 documents for `kubectl explain`, made from the short notation of `schema/*.yaml`.

There a type is its description and its fields, and a field is one string: its type, `!` if it is required, and what it
means. A type is a scalar, the name of another type, `[]T`, or `map[string]T`.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from demo.kubernetes.kinds import KINDS, Kind
from demo.kubernetes.objects import Obj

DIRECTORY = Path(__file__).parent / "schema"

_SCALARS: dict[str, Obj] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int32"},
    "boolean": {"type": "boolean"},
    "Time": {"type": "string", "format": "date-time"},
    "Quantity": {"type": "string"},
    "IntOrString": {"type": "string", "format": "int-or-string"},
    "Object": {"type": "object"},
}

_COMMON = {
    "apiVersion": "string The version of the schema that this object follows.",
    "kind": "string The kind of object that this is.",
    "metadata": "ObjectMeta What every object has: its name, its labels, when it was created.",
}


@functools.cache
def types() -> dict[str, Any]:
    """Every type of `schema/*.yaml`, by name."""
    found: dict[str, Any] = {}
    for path in sorted(DIRECTORY.glob("*.yaml")):
        found |= yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    return found


def _reference(name: str) -> Obj:
    return _SCALARS.get(name) or {"allOf": [{"$ref": f"#/components/schemas/{name}"}]}


def _of(written: str) -> Obj:
    if written.startswith("[]"):
        return {"type": "array", "items": _of(written[2:])}
    if written.startswith("map[string]"):
        return {"type": "object", "additionalProperties": _of(written[len("map[string]") :])}
    return _reference(written)


def _schema(name: str, *, kinds: list[Kind]) -> Obj:
    written = types()[name]
    fields = {**(_COMMON if kinds else {}), **written.get("fields", {})}
    properties, required = {}, []
    for field, text in fields.items():
        kind, _, about = text.partition(" ")
        if kind.endswith("!"):
            required.append(field)
        properties[field] = {**_of(kind.rstrip("!")), "description": about}
    marks = [{"group": kind.group, "version": kind.version, "kind": kind.kind} for kind in kinds]
    return {
        "type": "object",
        "description": written["about"],
        "properties": properties,
        **({"required": required} if required else {}),
        **({"x-kubernetes-group-version-kind": marks} if marks else {}),
    }


def _mentioned(schema: Any) -> set[str]:
    """The types that a schema refers to."""
    if isinstance(schema, dict):
        direct = {schema["$ref"].rsplit("/", 1)[1]} if "$ref" in schema else set()
        return direct.union(*(_mentioned(value) for value in schema.values()))
    return set().union(*(_mentioned(value) for value in schema)) if isinstance(schema, list) else set()


def _path(kind: Kind) -> str:
    scope = "/namespaces/{namespace}" if kind.namespaced else ""
    return f"{_prefix(kind)}{scope}/{kind.plural}"


def _prefix(kind: Kind) -> str:
    return f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"


@functools.cache
def document(path: str) -> bytes | None:
    """The document at `/openapi/v3` or below it, as JSON; or None."""
    prefixes = {_prefix(kind): None for kind in KINDS}
    if path.rstrip("/") == "/openapi/v3":
        return json.dumps({"paths": {prefix[1:]: _entry(prefix) for prefix in prefixes}}).encode()
    prefix = path.removeprefix("/openapi/v3")
    return _group_version(prefix) if path.startswith("/openapi/v3/") and prefix in prefixes else None


def _entry(prefix: str) -> Obj:
    # Clients keep a document for as long as its address, so the address changes with the content.
    digest = hashlib.sha256(_group_version(prefix)).hexdigest()[:32].upper()
    return {"serverRelativeURL": f"/openapi/v3{prefix}?hash={digest}"}


@functools.cache
def _group_version(prefix: str) -> bytes:
    kinds = [kind for kind in KINDS if _prefix(kind) == prefix]
    by_type: dict[str, list[Kind]] = {}
    for kind in kinds:
        by_type.setdefault(kind.schema or kind.kind, []).append(kind)
    schemas: dict[str, Obj] = {}
    wanted = list(by_type)
    while wanted:
        name = wanted.pop()
        if name not in schemas:
            schemas[name] = _schema(name, kinds=by_type.get(name, []))
            wanted += _mentioned(schemas[name])
    paths = {}
    for kind in kinds:
        mark = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        operation = {"x-kubernetes-group-version-kind": mark, "responses": {"200": {"description": "OK"}}}
        paths[_path(kind)] = {"get" if "get" in kind.verbs else "post": operation}
    return json.dumps(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "v1.37.1"},
            "paths": paths,
            "components": {"schemas": schemas},
        }
    ).encode()
