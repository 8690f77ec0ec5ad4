"""Every method that the broker serves, and every call on a Pipe, with each kind of key; an executor's stream with each
kind of token. The rows are those of the service descriptors: a new method is held to its rule, or to be given a place.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from broker.core.access import RULES
from broker.server import DESCRIPTORS
from openline import limits
from openline.reasons import Reason
from openline.v1 import command_service_pb2 as pb
from openline.v1 import executor_service_pb2 as wire

METHODS: dict[str, MethodDescriptor] = {
    method.full_name: method for service in DESCRIPTORS for method in service.methods
}
PIPE, CONNECT = "openline.v1.CommandService.Pipe", "openline.v1.ExecutorService.Connect"
CALLS = [name for name in sorted(METHODS) if name not in (PIPE, CONNECT)]
# For probes and tools, which have no key.
OPEN_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
OPEN_METHODS = {
    method.full_name: method
    for service in OPEN_SERVICES
    for method in descriptor_pool.Default().FindServiceByName(service).methods
}
# A key makes keys for the clusters that it sees, asks for an overview of those, and a replica is drained, and logs,
# for all of them: who may not is told so, whether there is such a cluster or not.
NEED_EVERY = {
    f"openline.v1.AdminService.{name}"
    for name in ("CreateApiKey", "Drain", "GetOverview", "SetLogLevel", "WatchOverview")
}
# What a good key is told on this stage, if it is not an answer: there is no other replica.
ALONE = {"openline.v1.AdminService.Drain": Reason.BROKER_UNAVAILABLE}

# What frames on a Pipe are held to the rule of; the others ask for nothing.
FRAMES = {"execute": "Execute", "execute_stream": "ExecuteStream", "watch": "WatchCommand", "cancel": "CancelCommand"}
OTHER_FRAMES = {"hello", "heartbeat", "abandon", "credit"}
# Whose key a call on a Pipe has.
WHERE = ("frame", "pipe")

# What texts in requests are: names of what belongs to a cluster, what has to be there, and what no access depends on.
NAMES = {"cluster_id", "session_id", "command_id", "key_id", "token_id", "clusters"}
NEEDED: Mapping[str, Any] = {"argv": ["get", "pods"], "owner": "yves", "scopes": ["read"]}
FREE = {
    "correlation_id", "idempotency_key", "key", "page_token", "reason", "replica_id", "service_identity", "token",
    "traceparent", "user_id", "why",
}  # fmt: skip
# What need not be there, and would leave out what is looked for.
FILTERS = {("ListAuditEntriesRequest", "owner"), ("ListCommandsRequest", "owner")}


def texts(message: Descriptor) -> list[FieldDescriptor]:
    """Of a request, and of the request in it."""
    fields: list[FieldDescriptor] = []
    for field in message.fields:
        if field.name in ("execute", "conversation"):
            fields += texts(field.message_type)
        elif field.type == FieldDescriptor.TYPE_STRING:
            fields.append(field)
    return fields


def names_in(message: Descriptor) -> list[str]:
    """Which of the names it takes; not the id that a caller makes up for a new command, nor a session once more."""
    return [
        field.name
        for field in texts(message)
        if field.name in NAMES
        and (field.containing_type.name, field.name) != ("ExecuteRequest", "command_id")
        and field.containing_type.name != "Conversation"
    ]


def request_for(message: Descriptor, names: Mapping[str, str], *, about: str = "") -> Message:
    """A request about all that has these names; where only one of them can be said, about that one."""
    request = message_factory.GetMessageClass(message)()
    if "execute" in message.fields_by_name:
        execute = message.fields_by_name["execute"].message_type
        request.execute.CopyFrom(request_for(execute, names, about=about))
    taken = names_in(message)
    for field in message.fields:
        choice = [] if field.containing_oneof is None else [other.name for other in field.containing_oneof.fields]
        if (about in choice and field.name != about) or (message.name, field.name) in FILTERS:
            continue
        if field.name == "clusters" and (about == "clusters" or "cluster_id" not in taken):
            request.clusters.append(names["clusters"])
        elif field.name in taken and field.name != "clusters":
            setattr(request, field.name, names[field.name])
        elif isinstance(value := NEEDED.get(field.name), list):
            getattr(request, field.name).extend(value)
        elif value is not None:
            setattr(request, field.name, value)
    return request


class Answers(NamedTuple):
    """All that was told: cells by row and kind of key, and the rest."""

    cells: Any
    # By method, and the one name of several that is hidden.
    halves: Any
    # By kind of token.
    executors: Any
    # By open method.
    opened: Any
    # The services that there are.
    served: Any


@pytest.fixture(scope="module")
def answers(play: Any, row: Any, told: Any) -> Answers:

    async def call(stage: Any, method: MethodDescriptor, key: str | None, names: Mapping[str, str], about: str) -> Any:
        return await stage.call(method, request_for(method.input_type, names, about=about), key=key)

    async def call_on_pipe(stage: Any, kind: str, where: str, key: str | None, names: Mapping[str, str]) -> Any:
        hello = pb.PipeHello(protocol_version=limits.PROTOCOL_VERSION, client="test")
        content = request_for(pb.CallerFrame.DESCRIPTOR.fields_by_name[kind].message_type, names)
        frame = pb.CallerFrame(call_id=1, api_key=key if where == "frame" else "", **{kind: content})
        requests = [pb.PipeRequest(frames=[each]) for each in (pb.CallerFrame(hello=hello), frame)]
        answer = await stage.call(METHODS[PIPE], *requests, key=key if where == "pipe" else None)
        return told(answer.message.frames[0].error.reason, answer.text)

    async def connect(stage: Any, token: str | None) -> Any:
        hello = wire.Hello(
            protocol_version=limits.PROTOCOL_VERSION, cluster_id="prod", executor_id="two", instance_id="i"
        )
        return await stage.call(
            METHODS[CONNECT], wire.ConnectRequest(frames=[wire.ExecutorFrame(hello=hello)]), key=token
        )

    async def ask(stage: Any) -> Answers:
        executors = {kind: await connect(stage, token) for kind, token in stage.tokens.items()}
        opened = {
            name: await stage.call(method, message_factory.GetMessageClass(method.input_type)(), key=None)
            for name, method in OPEN_METHODS.items()
        }
        halves = {
            (name, about): partial(call, stage, METHODS[name], about=about)
            for name in CALLS
            for about in names_in(METHODS[name].input_type)
        }
        rows = {
            name: row(
                RULES[name],
                partial(call, stage, METHODS[name], about=""),
                is_list=not names_in(METHODS[name].input_type),
                is_last=name.endswith((".CancelAll", ".CancelCommands")),
            )
            for name in CALLS
        } | {
            f"{kind} of {where}": row(
                RULES[f"openline.v1.CommandService.{method}"], partial(call_on_pipe, stage, kind, where)
            )
            for kind, method in FRAMES.items()
            for where in WHERE
        }
        half_hidden = await stage.fill_halves(halves)
        return Answers(await stage.fill(rows), half_hidden, executors, opened, stage.served)

    answered: Answers = play(ask)
    return answered


def test_what_is_served_is_in_the_matrix(answers: Answers) -> None:
    """Services, methods with a stream of requests, kinds of frames, texts in requests: a new one is given its place."""
    assert answers.served == {service.full_name for service in DESCRIPTORS} | set(OPEN_SERVICES)
    assert {name for name, method in METHODS.items() if method.client_streaming} == {PIPE, CONNECT}
    assert {name for name in METHODS if RULES[name].is_open} == {PIPE, CONNECT}
    kinds = {field.name for field in pb.CallerFrame.DESCRIPTOR.oneofs_by_name["frame"].fields}
    assert kinds == FRAMES.keys() | OTHER_FRAMES
    requests = [METHODS[name].input_type for name in CALLS]
    assert {field.name for request in requests for field in texts(request)} == NAMES | NEEDED.keys() | FREE


@pytest.mark.parametrize("name", CALLS)
def test_method(answers: Answers, judge: Any, name: str, kind: str) -> None:
    judge(
        answers.cells[name],
        kind,
        needs_every=name in NEED_EVERY,
        good=ALONE.get(name, ""),
        tells_of=name != "openline.v1.CommandService.CancelCommands",
    )


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("frame", FRAMES)
def test_frame_on_a_pipe(answers: Answers, judge: Any, frame: str, where: str, kind: str) -> None:
    judge(answers.cells[f"{frame} of {where}"], kind)


@pytest.mark.parametrize(
    ("name", "about"), [(name, about) for name in CALLS for about in names_in(METHODS[name].input_type)]
)
def test_one_hidden_name_among_others(answers: Answers, judge_hidden: Any, name: str, about: str) -> None:
    """Such as a hidden session in a cluster that is seen: it is one that there is not."""
    # Patterns are of the key's own; whether something is there that they fit makes no difference.
    judge_hidden(answers.halves[name, about], may_be_refused=about == "clusters" or name in NEED_EVERY)


def test_executor(answers: Answers, token_kind: str) -> None:
    """Whatever is wrong with a token, it is told the same."""
    if token_kind == "good token":
        assert "welcome" in answers.executors[token_kind].text
    else:
        assert answers.executors[token_kind].reason == Reason.UNAUTHENTICATED
        assert answers.executors[token_kind] == answers.executors["wrong token"]


@pytest.mark.parametrize("name", OPEN_METHODS)
def test_open_to_everybody(answers: Answers, name: str) -> None:
    """For probes and load balancers, and for tools that ask what there is."""
    assert answers.opened[name].text
    assert answers.opened[name].reason not in (Reason.UNAUTHENTICATED, Reason.SCOPE_MISSING)
