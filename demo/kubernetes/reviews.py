"""Answers a client that asks what it may do, and who it is."""

import json
from typing import Any

from demo.kubernetes import rbac
from demo.kubernetes.errors import BadRequest
from demo.kubernetes.objects import Obj
from demo.kubernetes.rbac import Identity
from demo.kubernetes.store import Store

# kubectl encodes built-in kinds as protobuf: this magic, then a runtime.Unknown whose field 2 is the object.
_MAGIC = b"k8s\0"

# The two reviews in protobuf: field numbers of the path that leads to each value that matters here.
_RESOURCE_FIELDS = {
    1: "namespace",
    2: "verb",
    3: "group",
    4: "version",
    5: "resource",
    6: "subresource",
    7: "name",
}
_NON_RESOURCE_FIELDS = {1: "path", 2: "verb"}


def answer(kind: str, body: bytes, *, store: Store, identity: Identity) -> Obj:
    """The review with its status filled in. Raises BadRequest for a body that is not such a review."""
    group = "authentication" if kind == "SelfSubjectReview" else "authorization"
    review: Obj = {"kind": kind, "apiVersion": f"{group}.k8s.io/v1", "metadata": {}}
    spec = _spec(kind, body)
    match kind:
        case "SelfSubjectReview":
            user = {"username": identity.user, "groups": list(identity.groups)}
            return {**review, "status": {"userInfo": user}}
        case "SelfSubjectRulesReview":
            return {**review, "spec": spec, "status": _rules(store, identity, spec)}
    return {**review, "spec": spec, "status": _access(store, identity, spec)}


def _access(store: Store, identity: Identity, spec: Obj) -> Obj:
    wanted = spec.get("resourceAttributes") or spec.get("nonResourceAttributes")
    if not wanted or not wanted.get("verb"):
        raise BadRequest("exactly one of nonResourceAttributes or resourceAttributes must be specified")
    return {"allowed": rbac.allowed(store, identity, attributes=wanted)}


def _rules(store: Store, identity: Identity, spec: Obj) -> Obj:
    rules = list(rbac.rules_for(store, identity, namespace=spec.get("namespace", "")))
    return {
        "resourceRules": [rule for rule in rules if "resources" in rule],
        "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
        "incomplete": False,
    }


def _spec(kind: str, body: bytes) -> Obj:
    try:
        if body.startswith(_MAGIC):
            return _from_protobuf(kind, body[len(_MAGIC) :])
        review = json.loads(body)
        return dict(review.get("spec") or {})
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise BadRequest(f"cannot read the body as {kind}: {error}") from error


def _from_protobuf(kind: str, envelope: bytes) -> Obj:
    review = _fields(envelope).get(2, b"")
    spec = _fields(_fields(review).get(2, b""))
    if kind == "SelfSubjectRulesReview":
        return {"namespace": spec.get(1, b"").decode()}
    if 1 in spec:
        return {"resourceAttributes": _named(spec[1], _RESOURCE_FIELDS)}
    return {"nonResourceAttributes": _named(spec[2], _NON_RESOURCE_FIELDS)} if 2 in spec else {}


def _named(message: bytes, names: dict[int, str]) -> dict[str, Any]:
    return {names[number]: value.decode() for number, value in _fields(message).items() if number in names}


def _fields(message: bytes) -> dict[int, bytes]:
    """The length-delimited fields of a protobuf message, by number: these reviews have no others that matter."""
    fields: dict[int, bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        length, at = _varint(message, at)
        if tag & 7 == 2:
            if at + length > len(message):
                raise ValueError("a field is longer than the message")
            fields[tag >> 3] = message[at : at + length]
            at += length
        elif tag & 7 != 0:
            raise ValueError(f"unexpected wire type {tag & 7}")
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")
