"""The manifests that give an executor its rights: what they grant, and above all what they do not."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from openline.policy.resources import ALIASES, ALL, ALWAYS_DENIED, CLUSTER_SCOPED, DENIED_BY_DEFAULT
from openline.policy.tables import SUBRESOURCE

SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema/v1.37.0-local/_definitions.json"
MANIFEST = Path(__file__).parents[2] / "deploy/kubernetes/executor/rbac.yaml"
OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text()))
ROLES = [part for part in OBJECTS if part["kind"] == "ClusterRole"]
RULES: list[dict[str, list[str]]] = [rule for role in ROLES for rule in role["rules"]]
GRANTS = {
    (group, resource): set(rule["verbs"])
    for rule in RULES
    for group in rule["apiGroups"]
    for resource in rule["resources"]
}


def plural(kind: str) -> str:
    """As Kubernetes guesses it, which is right for all built-in kinds."""
    name = kind.lower()
    if name == "endpoints":
        return name
    if re.search(r"(s|x|ch|sh)$", name):
        return name + "es"
    return re.sub(r"(?<![aeiou])y$", "ie", name) + "s"


def stable_types() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Group, plural and schema of each built-in type that can be listed and has a version that is not alpha or beta."""
    definitions = json.loads(SCHEMAS.read_text())["$defs"].values()
    kinds = [
        (kind["group"], kind["kind"], kind["version"], schema)
        for schema in definitions
        for kind in schema.get("x-kubernetes-group-version-kind", ())
    ]
    listed = {(group, kind.removesuffix("List")) for group, kind, _, _ in kinds if kind.endswith("List")}
    for group, kind, version, schema in kinds:
        # APIGroup describes the API itself and is no object.
        if (group, kind) in listed and re.fullmatch(r"v\d+", version) and kind != "APIGroup":
            yield group, plural(kind), schema


TYPES = {(group, name): schema for group, name, schema in stable_types()}


def test_the_account_gets_the_sum_of_the_labelled_roles_and_nothing_else() -> None:
    """One binding, of one account, to the role that collects the others."""
    kinds = [part["kind"] for part in OBJECTS]
    assert kinds == ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRole", "ClusterRoleBinding"]
    account, read, collected, binding = OBJECTS[1:]
    assert binding["roleRef"]["name"] == collected["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert (subject["kind"], subject["name"], subject["namespace"]) == (
        "ServiceAccount",
        account["metadata"]["name"],
        account["metadata"]["namespace"],
    )
    (selector,) = collected["aggregationRule"]["clusterRoleSelectors"]
    assert selector["matchLabels"].items() <= read["metadata"]["labels"].items()


def test_nothing_is_granted_by_wildcard_or_by_path() -> None:
    assert not [rule for rule in RULES if "*" in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])]
    assert not [rule for rule in RULES if "nonResourceURLs" in rule]


def test_no_secret_and_nothing_that_reaches_into_a_pod() -> None:
    resources = {resource for _, resource in GRANTS}
    assert not {resource for resource in resources if resource.partition("/")[0] == "secrets"}
    subresources = {resource.partition("/")[2] for resource in resources} - {""}
    assert subresources == {"log", "scale", "status"}
    assert all(verbs == {"get"} for (_, resource), verbs in GRANTS.items() if "/" in resource)


def test_every_built_in_type_can_be_read_but_secrets() -> None:
    """The policy lets all of them be named, so a command that it allows must not end at the API server. What there is,
    Kubernetes says; what `kubectl top` reads is another API's."""
    assert len(TYPES) > 50
    objects = {grant for grant, verbs in GRANTS.items() if verbs == {"get", "list", "watch"}}
    assert objects == {(group, name) for group, name in TYPES if name not in ALWAYS_DENIED}


def test_what_the_policy_knows_by_name_is_such_a_type() -> None:
    known = {*ALIASES.values(), *ALL, *CLUSTER_SCOPED} - {*DENIED_BY_DEFAULT}
    assert known == known & {name for _, name in TYPES}


def test_nothing_that_the_policy_denies_can_be_read() -> None:
    """Custom types that hold credentials are denied by default; no built-in one has such a name."""
    assert not {resource.partition("/")[0] for _, resource in GRANTS} & {*ALWAYS_DENIED, *DENIED_BY_DEFAULT}


def test_status_and_scale_can_be_read_where_there_are_any() -> None:
    """What `get --subresource` may name."""
    granted = {(group, *resource.split("/")) for group, resource in GRANTS if "/" in resource} - {("", "pods", "log")}
    assert {subresource for *_, subresource in granted} == set(SUBRESOURCE.shape.pattern.split("|"))
    with_status = {grant for grant, schema in TYPES.items() if "status" in schema.get("properties", {})}
    # A status that is written with the object has no address of its own.
    without_address = {("storage.k8s.io", "csinodes")}
    assert {(g, name) for g, name, subresource in granted if subresource == "status"} == with_status - without_address
    assert {(g, name) for g, name, subresource in granted if subresource == "scale"} == {
        ("", "replicationcontrollers"),
        ("apps", "deployments"),
        ("apps", "replicasets"),
        ("apps", "statefulsets"),
    }


def test_nothing_can_be_changed() -> None:
    """What can be created are questions about oneself, which the API server answers and keeps nothing of."""
    changing = {grant: verbs for grant, verbs in GRANTS.items() if not verbs <= {"get", "list", "watch"}}
    assert set().union(*changing.values()) == {"create"}
    assert {resource for _, resource in changing} == {
        "selfsubjectaccessreviews",
        "selfsubjectreviews",
        "selfsubjectrulesreviews",
    }


@pytest.mark.parametrize(
    ("command", "group", "resource", "verbs"),
    [
        ("get pods -w", "", "pods", {"get", "list", "watch"}),
        ("logs", "", "pods/log", {"get"}),
        ("describe node", "", "nodes", {"get", "list"}),
        ("describe node, its leases", "coordination.k8s.io", "leases", {"get"}),
        ("events", "", "events", {"list", "watch"}),
        ("events, the new ones", "events.k8s.io", "events", {"list", "watch"}),
        ("rollout history", "apps", "controllerrevisions", {"list"}),
        ("rollout status", "apps", "deployments", {"get", "list", "watch"}),
        ("describe service", "discovery.k8s.io", "endpointslices", {"list"}),
        ("get jobs", "batch", "jobs", {"get", "list"}),
        ("get ingress", "networking.k8s.io", "ingresses", {"get", "list"}),
        ("get hpa", "autoscaling", "horizontalpodautoscalers", {"get", "list"}),
        ("get pdb", "policy", "poddisruptionbudgets", {"get", "list"}),
        ("get storageclass", "storage.k8s.io", "storageclasses", {"get", "list"}),
        ("get crd", "apiextensions.k8s.io", "customresourcedefinitions", {"get", "list"}),
        ("top pods", "metrics.k8s.io", "pods", {"get", "list"}),
        ("top nodes", "metrics.k8s.io", "nodes", {"get", "list"}),
        ("auth can-i", "authorization.k8s.io", "selfsubjectaccessreviews", {"create"}),
        ("auth can-i --list", "authorization.k8s.io", "selfsubjectrulesreviews", {"create"}),
        ("auth whoami", "authentication.k8s.io", "selfsubjectreviews", {"create"}),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_what_the_policy_allows_can_be_done(command: str, group: str, resource: str, verbs: set[str]) -> None:
    assert verbs <= GRANTS[group, resource], command
