"""Shows objects as the Table that kubectl prints."""

from collections.abc import Iterable

from demo.kubernetes.errors import BadRequest
from demo.kubernetes.kinds import Column, Kind
from demo.kubernetes.objects import Obj

# What a row carries of its object, by the query field `includeObject`.
_INCLUDE = ("None", "Metadata", "Object")

_NAME_NOTE = "Name must be unique within a namespace."


def table(kind: Kind, objects: Iterable[Obj], *, now: float, metadata: Obj, include: str = "") -> Obj:
    """The objects as rows under the kind's columns. Raises BadRequest for an `include` that does not exist."""
    include = include or "Metadata"
    if include not in _INCLUDE:
        raise BadRequest(f'unrecognized includeObject value: "{include}"')
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [_definition(column) for column in kind.columns],
        "rows": [
            {"cells": [column.cell(obj, now) for column in kind.columns], **_object(obj, include)} for obj in objects
        ],
    }


def _definition(column: Column) -> Obj:
    name = column.name == "Name"
    return {
        "name": column.name,
        "type": column.type,
        "format": "name" if name else "",
        "description": _NAME_NOTE if name else "",
        "priority": column.priority,
    }


def _object(obj: Obj, include: str) -> Obj:
    match include:
        case "None":
            return {}
        case "Object":
            return {"object": obj}
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
    return {"object": partial}
