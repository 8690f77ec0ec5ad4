"""What is true of every Kubernetes object: plain JSON, read by dotted path, identified by metadata."""

import hashlib
import uuid
from typing import Any

Obj = dict[str, Any]

# The alphabet of Kubernetes' generated names: no vowels and no look-alikes, so that no word appears by accident.
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_UID_SPACE = uuid.UUID("6f70656e-6c69-4e65-8000-64656d6f0000")


def dig(obj: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path, or the default where the path leads nowhere."""
    for part in path.split("."):
        if not isinstance(obj, dict) or part not in obj:
            return default
        obj = obj[part]
    return obj


def name_of(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def namespace_of(obj: Obj) -> str:
    """The namespace, or "" for an object that belongs to the whole cluster."""
    return str(obj["metadata"].get("namespace", ""))


def labels_of(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def suffix(seed: str, length: int) -> str:
    """A generated-looking name part that is the same on every start, so that names can be quoted in documents."""
    digest = hashlib.sha256(seed.encode()).digest()
    return "".join(_SUFFIX_ALPHABET[byte % len(_SUFFIX_ALPHABET)] for byte in digest[:length])


def uid(kind: str, namespace: str, name: str) -> str:
    return str(uuid.uuid5(_UID_SPACE, f"{kind}/{namespace}/{name}"))


def owner(obj: Obj) -> Obj:
    """The ownerReference with which `obj` controls what it made."""
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": name_of(obj),
        "uid": obj["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def reference(obj: Obj) -> Obj:
    """The objectReference by which an event names what it is about."""
    metadata = obj["metadata"]
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": metadata["name"],
        **({"namespace": metadata["namespace"]} if "namespace" in metadata else {}),
        "uid": metadata["uid"],
    }
