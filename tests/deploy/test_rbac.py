"""The manifests that give an executor its rights: what they grant, and above all what they do not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

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
    assert subresources == {"log", "status"}


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
