"""Clusters that a key does not see: to it they are clusters that there are not, wherever it asks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from broker.core.access import RULES
from broker.server import DESCRIPTORS
from broker.store.store import Store, open_store
from openline import ids
from openline.errors import OpenlineError, from_rpc_error
from openline.reasons import Reason
from openline.v1 import admin_service_pb2, cluster_service_pb2, command_pb2, session_service_pb2
from openline.v1 import command_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.session_service_pb2_grpc import SessionServiceStub

PATIENCE_S = 20.0
# Of the same owner and with all scopes: one sees everything, the other one `prod` alone.
ALL, SOME = "the-key-that-sees-it-all", "the-key-that-sees-some"
KEYS = [f"zoe:{ALL}:execute+session+read+admin+audit", f"zoe:{SOME}:execute+session+read+admin+audit@prod*"]
# One that there is, and one that there is not; of a length, and near to nothing.
HIDDEN, UNKNOWN = "staging", "gnigats"
METHODS = {method.full_name: method for service in DESCRIPTORS for method in service.methods}


@pytest.fixture
async def broker(start_broker: Any) -> AsyncIterator[Any]:
    async with start_broker(extra_keys=KEYS) as running:
        yield running


async def ask(broker: Any, stub: Any, method: str, request: Any, key: str = SOME) -> Any:
    """Raises OpenlineError for a status."""
    try:
        call = getattr(stub(broker.channel()), method)
        return await call(request, metadata=(("x-api-key", key),), timeout=PATIENCE_S)
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from failure


async def refusal(asked: Any) -> OpenlineError:
    with pytest.raises(OpenlineError) as refused:
        await asked
    return refused.value


async def make_session(broker: Any, cluster_id: str, key: str = ALL) -> str:
    request = session_service_pb2.CreateSessionRequest(cluster_id=cluster_id)
    return str((await ask(broker, SessionServiceStub, "CreateSession", request, key)).session.session_id)


async def run(broker: Any, executor: Any, **fields: Any) -> str:
    """Runs a command to its end; its id."""
    asked = broker.execute(key=ALL, **fields)
    await executor.run_one(b"output")
    await executor.expect("result_ack")
    return str((await asked).result.command_id)


async def staging(broker: Any, **hello: Any) -> Any:
    """An executor of the hidden cluster."""
    executor = broker.dial(token="the-token-of-staging")
    await executor.hello(cluster_id=HIDDEN, **hello)
    return executor


# What a key may name


async def said(broker: Any, name: str, cluster_id: str) -> tuple[Any, ...]:
    """All that a call with the key that sees some is told of this cluster, byte for byte, with its name blotted out."""
    method = METHODS[name]
    request = message_factory.GetMessageClass(method.input_type)()
    *outer, field = RULES[name].cluster_field.split(".")
    inner: Any = request
    for part in outer:
        inner = getattr(inner, part)
    setattr(inner, field, cluster_id)
    response_type = message_factory.GetMessageClass(method.output_type)
    channel, path = broker.channel(), f"/{method.containing_service.full_name}/{method.name}"
    metadata = (("x-api-key", SOME),)
    answer = b""
    try:
        if method.server_streaming:
            call: Any = channel.unary_stream(path, type(request).SerializeToString, response_type.FromString)
            answer = (await call(request, metadata=metadata, timeout=PATIENCE_S).read()).SerializeToString()
        else:
            call = channel.unary_unary(path, type(request).SerializeToString, response_type.FromString)
            answer = (await call(request, metadata=metadata, timeout=PATIENCE_S)).SerializeToString()
        told: tuple[Any, ...] = ()
    except grpc.aio.AioRpcError as status:
        trailers = [(key, _blot(value, cluster_id)) for key, value in status.trailing_metadata() or ()]
        told = (status.code(), _blot(status.details() or "", cluster_id), trailers)
    return (_blot(answer, cluster_id), *told)


def _blot(text: str | bytes, cluster_id: str) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return data.replace(cluster_id.encode(), b"?" * len(cluster_id))


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.cluster_field])
async def test_a_hidden_cluster_is_told_of_as_one_that_there_is_not(broker: Any, name: str) -> None:
    """Byte for byte, by every method that takes a cluster; though it is there, in use, with sessions and commands."""
    executor = await staging(broker)
    session_id = await make_session(broker, HIDDEN)
    await run(broker, executor, cluster_id=HIDDEN, session_id=session_id)
    hidden, unknown = await said(broker, name, HIDDEN), await said(broker, name, UNKNOWN)
    assert hidden == unknown
    assert HIDDEN not in str(hidden)


async def test_what_is_near_and_available_is_what_the_key_sees(broker: Any) -> None:
    """For Execute and for the rest, since it is one place; a typing error near to the hidden one finds nothing."""
    refused = await broker.refused(cluster_id="stagin", key=SOME)
    assert refused.reason is Reason.CLUSTER_UNKNOWN
    assert (refused.metadata["available"], refused.metadata["near"]) == ("prod", "")
    assert (await broker.refused(cluster_id="stagin", key=ALL)).metadata["near"] == "staging"


async def test_a_new_cluster_is_made_within_the_patterns_only(broker: Any) -> None:
    request = admin_service_pb2.CreateExecutorTokenRequest(cluster_id="fresh")
    refused = await refusal(ask(broker, AdminServiceStub, "CreateExecutorToken", request))
    assert refused.reason is Reason.CLUSTER_UNKNOWN
    request.cluster_id = "prod-2"
    await ask(broker, AdminServiceStub, "CreateExecutorToken", request)


async def test_tokens_of_a_hidden_cluster_stay(broker: Any) -> None:
    request = admin_service_pb2.RevokeExecutorTokenRequest(cluster_id=HIDDEN)
    await refusal(ask(broker, AdminServiceStub, "RevokeExecutorToken", request))
    await staging(broker)


async def test_no_cluster_is_not_every_cluster(broker: Any) -> None:
    """To revoke tokens without saying of which cluster revokes nothing, whoever asks."""
    for key in (SOME, ALL):
        request = admin_service_pb2.RevokeExecutorTokenRequest()
        refused = await refusal(ask(broker, AdminServiceStub, "RevokeExecutorToken", request, key))
        assert refused.reason is Reason.CLUSTER_UNKNOWN
    await staging(broker)
    await broker.executor()


async def test_a_replica_is_drained_by_keys_that_see_everything(broker: Any) -> None:
    """It moves executors of every cluster, and says how many."""
    await staging(broker)
    refused = await refusal(ask(broker, AdminServiceStub, "Drain", admin_service_pb2.DrainRequest()))
    assert refused.reason is Reason.SCOPE_MISSING


# What a key may list


async def test_lists_have_what_the_key_sees(broker: Any) -> None:
    """Clusters, sessions, commands, tokens and the audit trail; the same owner's other key has it all."""
    here, there = await broker.executor(), await staging(broker)
    for executor, cluster_id in ((here, "prod"), (there, HIDDEN)):
        await make_session(broker, cluster_id)
        await run(broker, executor, cluster_id=cluster_id)
    lists: list[tuple[Any, str, Any, Callable[[Any], Any]]] = [
        (ClusterServiceStub, "ListClusters", cluster_service_pb2.ListClustersRequest(), lambda page: page.clusters),
        (SessionServiceStub, "ListSessions", session_service_pb2.ListSessionsRequest(), lambda page: page.sessions),
        (CommandServiceStub, "ListCommands", pb.ListCommandsRequest(), lambda page: page.commands),
        (
            AdminServiceStub,
            "ListExecutorTokens",
            admin_service_pb2.ListExecutorTokensRequest(),
            lambda page: page.executor_tokens,
        ),
        (AdminServiceStub, "ListAuditEntries", admin_service_pb2.ListAuditEntriesRequest(), lambda page: page.entries),
    ]
    for stub, method, request, items in lists:
        async with asyncio.timeout(PATIENCE_S):
            while {each.cluster_id for each in items(await ask(broker, stub, method, request, ALL))} != {
                "prod",
                HIDDEN,
            }:
                await asyncio.sleep(0.02)
        seen = await ask(broker, stub, method, request)
        assert {each.cluster_id for each in items(seen)} == {"prod"}, method
        assert HIDDEN not in str(seen)
        assert not seen.next_page_token


async def test_a_page_of_clusters_does_not_count_those_that_are_hidden(broker: Any) -> None:
    """A short page would tell how many there are between two that are seen."""
    for name in ("prod-1", "prod-2", "proa", "prod-11"):
        request = admin_service_pb2.CreateExecutorTokenRequest(cluster_id=name)
        await ask(broker, AdminServiceStub, "CreateExecutorToken", request, ALL)
    pages, token = [], ""
    while not pages or token:
        listing = cluster_service_pb2.ListClustersRequest(page_size=2, page_token=token)
        page = await ask(broker, ClusterServiceStub, "ListClusters", listing)
        pages.append([cluster.cluster_id for cluster in page.clusters])
        token = page.next_page_token
    assert pages == [["prod", "prod-1"], ["prod-11", "prod-2"]]


async def test_what_is_about_no_cluster_is_in_the_trail_of_those_who_see_all(broker: Any) -> None:
    """What was done to API keys names patterns, and so clusters."""
    request = admin_service_pb2.CreateApiKeyRequest(owner="dave", scopes=["read"], clusters=[HIDDEN])
    await ask(broker, AdminServiceStub, "CreateApiKey", request, ALL)
    trail = admin_service_pb2.ListAuditEntriesRequest()
    async with asyncio.timeout(PATIENCE_S):
        while not (await ask(broker, AdminServiceStub, "ListAuditEntries", trail, ALL)).entries:
            await asyncio.sleep(0.02)
    assert list((await ask(broker, AdminServiceStub, "ListAuditEntries", trail)).entries) == []


async def test_a_sessions_commands_are_hidden_with_its_cluster(broker: Any) -> None:
    """An admin sees those of any session by its id; not of this one."""
    executor = await staging(broker)
    session_id = await make_session(broker, HIDDEN)
    await run(broker, executor, cluster_id=HIDDEN, session_id=session_id)
    request = pb.ListCommandsRequest(session_id=session_id)
    async with asyncio.timeout(PATIENCE_S):
        while not (await ask(broker, CommandServiceStub, "ListCommands", request, ALL)).commands:
            await asyncio.sleep(0.02)
    assert list((await ask(broker, CommandServiceStub, "ListCommands", request)).commands) == []


# What a key may know by its id


async def test_a_session_of_a_hidden_cluster_is_unknown(broker: Any) -> None:
    """To look at, to end, and to execute in: not even that it is another cluster's is told."""
    await broker.executor()
    hidden, unknown = await make_session(broker, HIDDEN), ids.new_id()
    get, delete = session_service_pb2.GetSessionRequest, session_service_pb2.DeleteSessionRequest
    for method, request in (("GetSession", get), ("DeleteSession", delete)):
        told = [
            (await refusal(ask(broker, SessionServiceStub, method, request(session_id=each)))).error
            for each in (hidden, unknown)
        ]
        assert told[0] == told[1]
    for _ in range(2):  # looked up in Redis, and then believed
        told = [(await broker.refused(key=SOME, session_id=each)).error for each in (hidden, unknown)]
        assert told[0] == told[1]
        assert told[0].reason == Reason.SESSION_UNKNOWN
        assert (await broker.refused(key=ALL, session_id=hidden)).reason is Reason.SESSION_MISMATCH
    assert (await ask(broker, SessionServiceStub, "GetSession", get(session_id=hidden), ALL)).session.session_id


async def told_of(broker: Any, command_id: str, pipe: Any) -> list[command_pb2.Error]:
    """By every method, and on a pipe."""
    cancel = pb.CancelCommandRequest(command_id=command_id)
    watch = pb.WatchCommandRequest(command_id=command_id)
    errors = [
        (await refusal(broker.get(command_id, key=SOME))).error,
        (await refusal(broker.get(command_id, key=SOME, wait_s=1.0))).error,
        (await refusal(broker.cancel(command_id, key=SOME))).error,
        (await refusal(broker.watch(command_id, key=SOME).next())).error,
    ]
    for frame in (pb.CallerFrame(call_id=1, cancel=cancel), pb.CallerFrame(call_id=1, watch=watch)):
        frame.api_key = SOME
        await pipe.send(frame)
        errors.append((await pipe.next()).error)
    return errors


@pytest.mark.parametrize("where", ["running here", "stored", "running on another replica"])
async def test_a_command_of_a_hidden_cluster_is_unknown(
    broker: Any, start_broker: Any, store: Store, where: str
) -> None:
    """As one that there never was, whoever has it; also to the owner's own key, and to an admin's."""
    async with start_broker(extra_keys=KEYS, replica_id="replica-2") as other:
        async with asyncio.timeout(PATIENCE_S):
            while not broker.inside.dispatcher._forwarding._peers.reachable:
                await asyncio.sleep(0.01)
        executor = await staging(other if where == "running on another replica" else broker)
        asker = other if where == "running on another replica" else broker
        asked = asker.execute(key=ALL, cluster_id=HIDDEN)
        command_id = await executor.begin_one()
        if where == "stored":
            await executor.send(broker._frames.finished(command_id))
            await asked
            await executor.expect("result_ack")
        pipe = await broker.pipe()
        assert await told_of(broker, command_id, pipe) == await told_of(broker, ids.new_id(), pipe)
        assert (await broker.get(command_id, key=ALL)).command_id == command_id
        if where != "stored":
            await executor.sync()  # it was not cancelled
            await executor.send(broker._frames.finished(command_id))
            await asked


async def test_an_id_that_is_old_does_not_give_a_hidden_command_away(broker: Any, store: Store) -> None:
    """Of one that there never was it is said that it has expired; so it is of this one, which has not."""
    executor = await staging(broker)
    old, never = ("01900000-0000-7000-8000-00000000000" + last for last in "12")
    await run(broker, executor, cluster_id=HIDDEN, command_id=old)
    told = [(await refusal(broker.get(each, key=SOME))).error for each in (old, never)]
    assert told[0] == told[1]
    assert told[0].reason == Reason.RESULT_EXPIRED


async def test_a_hidden_command_is_looked_for_as_long_as_one_that_there_is_not(
    broker: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the store and on every other replica: how long it takes tells nothing."""
    executor = await staging(broker)
    command_id = await run(broker, executor, cluster_id=HIDDEN)
    asked = broker.execute(key=ALL, cluster_id=HIDDEN)
    running = await executor.begin_one()
    steps: list[str] = []

    def counting(owner: Any, name: str) -> None:
        do = getattr(owner, name)

        async def counted(*arguments: Any, **named: Any) -> Any:
            steps.append(name)
            return await do(*arguments, **named)

        monkeypatch.setattr(owner, name, counted)

    counting(type(store.results), "get")
    counting(type(broker.inside.dispatcher._forwarding._peers), "find")
    taken = []
    for each in (command_id, running, ids.new_id()):
        steps.clear()
        await refusal(broker.get(each, key=SOME))
        taken.append(list(steps))
    assert taken == [["get", "find"]] * 3
    await executor.send(broker._frames.finished(running))
    await asked


async def test_while_redis_has_not_told_neither_is_said_to_be_unknown(start_broker: Any) -> None:
    """Though of the hidden one the replica knows that it is there."""
    async with (
        open_store("redis://127.0.0.1:1", result_ttl_s=60) as nowhere,
        start_broker(nowhere, extra_keys=KEYS) as alone,
    ):
        for name in (HIDDEN, UNKNOWN):
            assert (await alone.refused(cluster_id=name, key=SOME)).reason is Reason.STORE_UNAVAILABLE
