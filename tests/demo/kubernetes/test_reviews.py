"""What may be done, and how a client asks; without a server."""

import json

import pytest

from demo.kubernetes import cluster, rbac, reviews
from demo.kubernetes.errors import BadRequest
from demo.kubernetes.kinds import KINDS
from demo.kubernetes.objects import Obj
from demo.kubernetes.server import ADMIN, EXECUTOR

STORE = cluster.local(1_800_000_000.0).store


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2, len(content)]) + content


def envelope(spec: bytes) -> bytes:
    """A review as kubectl sends it: magic, then runtime.Unknown with the review as its field 2."""
    review = field(1, b"") + field(2, spec) + field(3, b"")
    return b"k8s\0" + field(1, field(1, b"authorization.k8s.io/v1")) + field(2, review) + field(3, b"") + field(4, b"")


def ask(body: bytes, kind: str = "SelfSubjectAccessReview") -> Obj:
    return reviews.answer(kind, body, store=STORE, identity=EXECUTOR)


def test_protobuf_and_json_ask_the_same() -> None:
    """The same question gets the same answer in both encodings."""
    attributes = {1: "shop", 2: "get", 3: "", 4: "v1", 5: "pods", 6: "log", 7: "p"}
    spec = field(1, b"".join(field(number, text.encode()) for number, text in attributes.items()))
    written = {"namespace": "shop", "verb": "get", "resource": "pods", "subresource": "log", "name": "p"}
    asked = json.dumps({"spec": {"resourceAttributes": written}}).encode()
    assert ask(envelope(spec))["status"] == ask(asked)["status"] == {"allowed": True}


def test_paths_can_be_asked_for() -> None:
    """Paths that are no resources are decided, too."""
    for path, allowed in (("/version", True), ("/metrics", False)):
        spec = field(2, field(1, path.encode()) + field(2, b"get"))
        assert ask(envelope(spec))["status"] == {"allowed": allowed}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b"k8s\0", b"k8s\0\xff", b"k8s\0\x12\x7f", b"k8s\0" + b"\xff" * 200, b'{"spec": 1}'],
)
def test_a_body_that_cannot_be_read(body: bytes) -> None:
    """A body that is no review is a bad request, whatever the bytes."""
    with pytest.raises(BadRequest):
        ask(body)


def test_the_executor_reads_everything_but_secrets() -> None:
    """The shipped role grants reading of each kind that can be read, and of no secret."""
    for kind in KINDS:
        if "list" in kind.verbs:
            for verb in kind.verbs:
                wanted = {"verb": verb, "group": kind.group, "resource": kind.plural, "namespace": "shop"}
                assert rbac.allowed(STORE, EXECUTOR, attributes=wanted) is (kind.plural != "secrets")
                assert rbac.allowed(STORE, ADMIN, attributes=wanted)


@pytest.mark.parametrize("verb", ["create", "update", "patch", "delete", "deletecollection", "impersonate", "*"])
def test_the_executor_writes_nothing(verb: str) -> None:
    """No verb but the reading ones is granted on anything that is kept."""
    for kind in KINDS:
        if "list" in kind.verbs:
            for subresource in ("", *(each.name for each in kind.subresources)):
                wanted = {"verb": verb, "group": kind.group, "resource": kind.plural, "subresource": subresource}
                assert not rbac.allowed(STORE, EXECUTOR, attributes=wanted)


def test_a_role_holds_in_its_namespace_only() -> None:
    """A RoleBinding grants in its own namespace, and nowhere else."""
    on_call = rbac.Identity("ada", ("payments-on-call", "system:authenticated"))
    wanted = {"verb": "create", "group": "", "resource": "pods", "subresource": "exec", "name": "p"}
    assert rbac.allowed(STORE, on_call, attributes={**wanted, "namespace": "payments"})
    assert not rbac.allowed(STORE, on_call, attributes={**wanted, "namespace": "shop"})
    assert not rbac.allowed(STORE, on_call, attributes={**wanted, "namespace": ""})
