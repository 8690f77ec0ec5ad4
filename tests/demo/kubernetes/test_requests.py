"""From method, path and query to what is meant; without a server."""

import pytest

from demo.kubernetes import selectors
from demo.kubernetes.errors import ApiError, BadRequest, MethodNotAllowed, NotAcceptable, NotFound
from demo.kubernetes.objects import Obj
from demo.kubernetes.requests import Request, Target, target

# Method and path, and: verb, resource, namespace, name, subresource.
MEANINGS: dict[str, tuple[str, str, str, str, str]] = {
    "GET /api/v1/pods": ("list", "pods", "", "", ""),
    "GET /api/v1/namespaces/a/pods": ("list", "pods", "a", "", ""),
    "GET /api/v1/namespaces/a/pods/": ("list", "pods", "a", "", ""),
    "GET /api/v1/namespaces/a/pods/p": ("get", "pods", "a", "p", ""),
    "HEAD /api/v1/namespaces/a/pods/p": ("get", "pods", "a", "p", ""),
    "GET /api/v1/namespaces/a/pods/p/log": ("get", "pods", "a", "p", "log"),
    "GET /api/v1/namespaces/a/pods/p/proxy/x/y": ("get", "pods", "a", "p", "proxy"),
    "POST /api/v1/namespaces/a/pods/p/exec": ("create", "pods", "a", "p", "exec"),
    "GET /api/v1/namespaces/a": ("get", "namespaces", "a", "a", ""),
    "GET /api/v1/namespaces/a/status": ("get", "namespaces", "a", "a", "status"),
    "DELETE /api/v1/namespaces/a/pods": ("deletecollection", "pods", "a", "", ""),
    "DELETE /apis/apps/v1/namespaces/a/deployments/d": ("delete", "deployments.apps", "a", "d", ""),
    "PATCH /apis/apps/v1/namespaces/a/deployments/d/scale": ("patch", "deployments.apps", "a", "d", "scale"),
    "GET /apis/metrics.k8s.io/v1beta1/nodes": ("list", "nodes.metrics.k8s.io", "", "", ""),
}

# Paths that lead nowhere; a secret must not be found by any of them.
NOWHERE = (
    "/api/v1/secret",
    "/api/v1/Secrets",
    "/apis/apps/v1/secrets",
    "/api/v1/watch/secrets",
    "/api/v1/secrets/x",
    "/api/v1//namespaces/a/secrets/x",
    "/api/v1/namespaces/a/secrets/x/status",
    "/api/v1/namespaces/a/nodes/birch",
    "/api/v1/namespaces/a/pods/p/log/more",
)


@pytest.mark.parametrize("line", MEANINGS)
def test_a_path_means_one_thing(line: str) -> None:
    """Verb, kind, namespace, name and subresource follow from method and path."""
    method, path = line.split()
    found = target(Request(method, path))
    assert isinstance(found, Target)
    assert (found.verb, found.kind.resource, found.namespace, found.name, found.subresource) == MEANINGS[line]


@pytest.mark.parametrize("path", NOWHERE)
def test_a_path_that_leads_nowhere(path: str) -> None:
    """What is not in the table of kinds is not found."""
    with pytest.raises(NotFound):
        target(Request("GET", path))


def test_a_watch_is_a_list_that_says_so() -> None:
    """`watch` is a verb of its own for RBAC, however the query spells true."""
    for value in ("1", "true"):
        assert target(Request("GET", "/api/v1/pods", {"watch": value})).verb == "watch"
    assert target(Request("GET", "/api/v1/pods", {"watch": "false"})).verb == "list"


def test_a_method_that_means_nothing() -> None:
    """Methods that Kubernetes does not use are not allowed."""
    with pytest.raises(MethodNotAllowed):
        target(Request("BREW", "/api/v1/pods"))


@pytest.mark.parametrize(
    ("accept", "table"),
    [
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", True),
        ("application/vnd.kubernetes.protobuf, application/json", False),
        ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json", False),
        ("", False),
        ("*/*", False),
    ],
)
def test_the_first_form_that_is_known_is_taken(accept: str, table: bool) -> None:
    """The Accept header is read in order, and what is not spoken is passed over."""
    assert Request("GET", "/", accept=accept).table() is table


def test_a_form_that_is_not_known() -> None:
    """A client that takes no JSON is told."""
    with pytest.raises(NotAcceptable):
        Request("GET", "/", accept="application/vnd.kubernetes.protobuf").table()


@pytest.mark.parametrize("query", ["a=%ff", "&".join("a=1" for _ in range(60))])
def test_a_query_that_cannot_be_read(query: str) -> None:
    """Bytes that are no text, and far too many fields, are bad requests."""
    with pytest.raises(BadRequest):
        Request.parse("GET", "/", query=query, accept="")


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "0x10", "9" * 30])
def test_a_number_that_is_none(text: str) -> None:
    """Numbers are decimal, not negative and not endless."""
    with pytest.raises(BadRequest):
        Request("GET", "/", {"limit": text}).integer("limit")


POD: Obj = {
    "metadata": {"name": "p", "labels": {"app": "web", "tier": "front", "example.com/size": "12"}},
    "spec": {"hostNetwork": True},
    "status": {"phase": "Running"},
}


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app!=web", False),
        ("other!=web", True),
        ("app in (web, cart)", True),
        ("app notin (web,cart)", False),
        ("app,!legacy", True),
        ("!app", False),
        ("example.com/size>10", True),
        ("example.com/size<10", False),
        ("app=", False),
    ],
)
def test_labels_select(selector: str, fits: bool) -> None:
    """Label selectors mean what they mean to Kubernetes."""
    assert selectors.labels(selector)(POD) is fits


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ("metadata.name=p", True),
        ("metadata.name!=p", False),
        ("status.phase==Running,spec.hostNetwork=true", True),
        ("spec.nodeName=", True),
        ("spec.nodeName!=", False),
    ],
)
def test_fields_select(selector: str, fits: bool) -> None:
    """Field selectors compare as text, and a field that is absent is empty."""
    known = ("metadata.name", "status.phase", "spec.hostNetwork", "spec.nodeName")
    assert selectors.fields(selector, known=known)(POD) is fits


@pytest.mark.parametrize("selector", ["a b", "a in web", "a=b=c", "=", "a in (", ",", "a>x"])
def test_a_selector_that_cannot_be_read(selector: str) -> None:
    """Malformed selectors are bad requests, of labels and of fields."""
    with pytest.raises(ApiError):
        selectors.labels(selector)
    with pytest.raises(ApiError):
        selectors.fields("x" + selector, known=("metadata.name",))
