"""The table of kinds, and the documents that follow from it."""

import json

import pytest

from demo.kubernetes import discovery, openapi
from demo.kubernetes.kinds import BY_KIND, BY_PLURAL, KINDS, Kind


def test_no_kind_is_described_twice() -> None:
    """Each kind, and each plural, means one row of the table."""
    assert len(BY_KIND) == len(BY_PLURAL) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.api_version}/{kind.kind}")
def test_every_kind_can_be_explained(kind: Kind) -> None:
    """Each kind has a schema, and every type that it leads to is written down."""
    prefix = f"apis/{kind.api_version}" if kind.group else "api/v1"
    document = json.loads(openapi.document(f"/openapi/v3/{prefix}") or b"")
    schemas = document["components"]["schemas"]
    mark = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    assert any(mark in schema.get("x-kubernetes-group-version-kind", []) for schema in schemas.values())
    assert all(schema["description"] for schema in schemas.values())


def test_no_type_is_without_a_user() -> None:
    """Each type of `schema/*.yaml` is part of some document."""
    used: set[str] = set()
    for path in json.loads(openapi.document("/openapi/v3") or b"")["paths"]:
        used |= json.loads(openapi.document(f"/openapi/v3/{path}") or b"")["components"]["schemas"].keys()
    assert used == openapi.types().keys()


def test_both_forms_of_discovery_agree() -> None:
    """The aggregated documents and the plain ones name the same resources, verbs and short names."""
    aggregated = set()
    for path in ("/api", "/apis"):
        document, media_type = discovery.document(path, accept=discovery.AGGREGATED) or ({}, "")
        assert media_type == discovery.AGGREGATED
        for group in document["items"]:
            for version in group["versions"]:
                for resource in version["resources"]:
                    names = (
                        resource["resource"],
                        *(f"{resource['resource']}/{s['subresource']}" for s in resource.get("subresources", [])),
                    )
                    aggregated |= {(group["metadata"].get("name", ""), version["version"], name) for name in names}
    plain = set()
    for kind in KINDS:
        path = f"/apis/{kind.api_version}" if kind.group else "/api/v1"
        document, _ = discovery.document(path, accept="application/json") or ({}, "")
        plain |= {(kind.group, kind.version, resource["name"]) for resource in document["resources"]}
    assert aggregated == plain
