"""Which keys may call which method."""

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from broker.core.access import RULES, Rule
from broker.core.credentials import SCOPES, Caller
from broker.opening import Opening
from broker.refusals import Refusals
from broker.rpc.service import add_service
from broker.rpc.volume import Volume
from broker.server import DESCRIPTORS, HEALTH
from openline.errors import OpenlineError
from openline.reasons import Reason

METHODS = {method.full_name: method for service in (*DESCRIPTORS, HEALTH) for method in service.methods}


def test_every_method_has_a_rule_and_every_rule_a_method() -> None:
    assert RULES.keys() == METHODS.keys()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_names_a_scope_or_says_that_it_is_open(name: str) -> None:
    """An empty row would let nobody in, or everybody."""
    rule = RULES[name]
    assert rule.is_open != (rule.scope in SCOPES)
    assert rule.or_scope in {"", *SCOPES}


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.cluster_field])
def test_the_field_of_a_rule_is_in_the_request(name: str) -> None:
    """And every `cluster_id` of a request is the field of its rule."""
    message = METHODS[name].input_type
    *outer, last = RULES[name].cluster_field.split(".")
    for field in outer:
        message = message.fields_by_name[field].message_type
    assert last in message.fields_by_name


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if not rule.cluster_field])
def test_a_request_that_names_a_cluster_has_that_in_its_rule(name: str) -> None:
    assert "cluster_id" not in METHODS[name].input_type.fields_by_name


def test_a_rule_is_kept_by_scope() -> None:
    rule = Rule("read", or_scope="admin")
    rule.check(Caller(owner="alice", scopes=("read",)))
    rule.check(Caller(owner="alice", scopes=("admin",)))
    with pytest.raises(OpenlineError) as refusal:
        rule.check(Caller(owner="alice", scopes=("execute", "audit")))
    assert (refusal.value.reason, refusal.value.metadata["scope"]) == (Reason.SCOPE_MISSING, "read")
    Rule(is_open=True).check(Caller(owner="alice", scopes=()))


async def test_a_method_without_a_rule_keeps_the_server_from_starting() -> None:
    """A new method is nobody's until somebody has said whose it is."""
    file = descriptor_pb2.FileDescriptorProto(name="fresh.proto", package="fresh", syntax="proto3")
    file.message_type.add(name="Nothing")
    service = file.service.add(name="FreshService")
    service.method.add(name="Peek", input_type=".fresh.Nothing", output_type=".fresh.Nothing")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    fresh = pool.FindServiceByName("fresh.FreshService")
    with pytest.raises(LookupError, match=r"fresh\.FreshService\.Peek"):
        add_service(grpc.aio.server(), fresh, object(), opening=Opening(), refusals=Refusals(), volume=Volume())
