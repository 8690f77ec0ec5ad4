"""The server as a whole: health, reflection, what is not built, stopping, and that secrets stay secret."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from broker.opening import Opening
from broker.refusals import Refusals
from broker.rpc.service import add_service
from broker.rpc.volume import Volume
from broker.server import DESCRIPTORS, CannotListen
from broker.settings import BrokerSettings
from openline.errors import OpenlineError, from_rpc_error
from openline.reasons import Reason
from openline.v1 import admin_service_pb2, cluster_service_pb2, command_service_pb2, session_service_pb2
from openline.v1 import executor_service_pb2 as wire
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub
from openline.v1.command_service_pb2_grpc import CommandServiceStub
from openline.v1.session_service_pb2_grpc import SessionServiceStub

PATIENCE_S = 20.0
ALICE = (("x-api-key", "the-key-of-alice"),)
SERVICES = ["ExecutorService", "CommandService", "SessionService", "ClusterService", "AdminService"]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def failure(call: Any) -> OpenlineError:
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call
    return from_rpc_error(ended.value)


# What is there


async def test_health_is_serving_and_then_not(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the server and for each service; a watcher sees the stop before the end."""
    monkeypatch.setattr("broker.server.STOP_GRACE_S", 0.2)  # a watch is a stream that does not end by itself
    async with start_broker() as broker:
        stub = health_pb2_grpc.HealthStub(broker.channel())
        for service in ("", *(f"openline.v1.{name}" for name in SERVICES)):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        seen = asyncio.create_task(watch.read())
        await asyncio.sleep(0)
        # The broker is stopped below, when its channels are still open.
        broker.close = lambda: asyncio.sleep(0)
    assert (await seen).status == health_pb2.HealthCheckResponse.NOT_SERVING
    for channel in broker._channels:
        await channel.close()


async def test_reflection_lists_the_five_services(broker: Any) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(broker.channel())
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()
    names = {service.name for service in answer.list_services_response.service}
    assert {f"openline.v1.{name}" for name in SERVICES} <= names
    assert {descriptor.name for descriptor in DESCRIPTORS} == set(SERVICES)


async def test_a_method_that_is_not_built_says_so() -> None:
    """UNIMPLEMENTED with reason NOT_BUILT."""
    server = grpc.aio.server()
    admin_service = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]
    add_service(server, admin_service, object(), opening=Opening(), refusals=Refusals(), volume=Volume())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            refusal = await failure(AdminServiceStub(channel).CancelAll(admin_service_pb2.CancelAllRequest()))
    finally:
        await server.stop(None)
    assert refusal.reason is Reason.NOT_BUILT
    assert "is not built in this version" in refusal.error.message


# Clusters and sessions


async def test_clusters_are_listed_in_pages(broker: Any) -> None:
    await broker.executor()
    stub = ClusterServiceStub(broker.channel())
    request = cluster_service_pb2.ListClustersRequest(page_size=1)
    first = await stub.ListClusters(request, metadata=ALICE)
    assert [cluster.cluster_id for cluster in first.clusters] == ["prod"]
    assert first.clusters[0].connected
    assert first.clusters[0].has_token
    assert [one.executor_id for one in first.clusters[0].executors] == ["exec-1"]
    request.page_token = first.next_page_token
    second = await stub.ListClusters(request, metadata=ALICE)
    assert [cluster.cluster_id for cluster in second.clusters] == ["staging"]
    assert not second.clusters[0].connected
    assert second.next_page_token == ""


async def test_what_an_executor_allows_is_shown_and_may_change(broker: Any) -> None:
    """As Hello says it, and as the executor says it later; what is too large to be kept changes nothing."""

    async def verbs() -> list[str]:
        request = cluster_service_pb2.GetClusterRequest(cluster_id="prod")
        cluster = (await ClusterServiceStub(broker.channel()).GetCluster(request, metadata=ALICE)).cluster
        return list(cluster.executors[0].capabilities.verbs)

    executor = await broker.executor(capabilities=wire.Capabilities(verbs=["get"]))
    assert await verbs() == ["get"]
    for said, shown in ((["get", "logs"], ["get", "logs"]), (["x" * 100_000], ["get", "logs"])):
        await executor.send(wire.ExecutorFrame(capabilities=wire.Capabilities(verbs=said)))
        await executor.sync()
        assert await verbs() == shown


@pytest.mark.parametrize("cluster_id", ["prd", "", "x" * 1_000_000, "ä" * 50_000])
async def test_a_cluster_that_is_not_there(broker: Any, cluster_id: str) -> None:
    """However long its name is, the reason arrives."""
    request = cluster_service_pb2.GetClusterRequest(cluster_id=cluster_id)
    refusal = await failure(ClusterServiceStub(broker.channel()).GetCluster(request, metadata=ALICE))
    assert refusal.reason is Reason.CLUSTER_UNKNOWN


async def test_every_method_wants_a_key(broker: Any) -> None:
    channel = broker.channel()
    for call in (
        ClusterServiceStub(channel).ListClusters(cluster_service_pb2.ListClustersRequest()),
        ClusterServiceStub(channel).GetCluster(cluster_service_pb2.GetClusterRequest(cluster_id="prod")),
        SessionServiceStub(channel).CreateSession(session_service_pb2.CreateSessionRequest(cluster_id="prod")),
        SessionServiceStub(channel).GetSession(session_service_pb2.GetSessionRequest(session_id="x")),
        SessionServiceStub(channel).DeleteSession(session_service_pb2.DeleteSessionRequest(session_id="x")),
        CommandServiceStub(channel).GetCommand(command_service_pb2.GetCommandRequest(command_id="x")),
        CommandServiceStub(channel).CancelCommand(command_service_pb2.CancelCommandRequest(command_id="x")),
        CommandServiceStub(channel).WatchCommand(command_service_pb2.WatchCommandRequest(command_id="x")).read(),
        CommandServiceStub(channel).ExecuteStream(command_service_pb2.ExecuteStreamRequest()).read(),
    ):
        assert (await failure(call)).reason is Reason.UNAUTHENTICATED


async def test_a_session_from_its_beginning_to_its_end(broker: Any) -> None:
    stub = SessionServiceStub(broker.channel())
    request = session_service_pb2.CreateSessionRequest(cluster_id="prod", ttl_s=120, user_id="u")
    made = (await stub.CreateSession(request, metadata=ALICE)).session
    assert (made.cluster_id, made.ttl_s, made.user_id, made.owner) == ("prod", 120, "u", "alice")
    get = session_service_pb2.GetSessionRequest(session_id=made.session_id)
    assert (await stub.GetSession(get, metadata=ALICE)).session == made
    await stub.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=made.session_id), metadata=ALICE)
    assert (await failure(stub.GetSession(get, metadata=ALICE))).reason is Reason.SESSION_UNKNOWN


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ttl_s": 59}, Reason.INVALID_COMMAND),
        ({"ttl_s": 3601}, Reason.INVALID_COMMAND),
        ({"user_id": "a\nb"}, Reason.INVALID_COMMAND),
        ({"correlation_id": "x" * 201}, Reason.INVALID_COMMAND),
        ({"cluster_id": "prd"}, Reason.CLUSTER_UNKNOWN),
        ({"cluster_id": "x" * 1_000_000}, Reason.CLUSTER_UNKNOWN),
    ],
)
async def test_a_session_that_cannot_be(broker: Any, fields: dict[str, Any], reason: Reason) -> None:
    request = session_service_pb2.CreateSessionRequest(**({"cluster_id": "prod"} | fields))
    call = SessionServiceStub(broker.channel()).CreateSession(request, metadata=ALICE)
    assert (await failure(call)).reason is reason


# Stopping


async def test_a_stop_tells_everyone_to_move(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """GoAway, then the end of the stream with OK, long before the grace for unary calls is over."""
    monkeypatch.setattr("broker.server.STOP_GRACE_S", 60.0)
    async with start_broker() as broker:
        executor, pipe = await broker.executor(), await broker.pipe()
        ended = asyncio.create_task(_to_the_end(executor)), asyncio.create_task(_to_the_end(pipe))
        await asyncio.sleep(0.05)
        stopping = asyncio.get_running_loop().time()
        broker.close = lambda: asyncio.sleep(0)
    assert asyncio.get_running_loop().time() - stopping < PATIENCE_S
    for told in await asyncio.gather(*ended):
        assert told == ["go_away", "StatusCode.OK"]
    for channel in broker._channels:
        await channel.close()


async def _to_the_end(stream: Any) -> list[str]:
    """The kinds of the frames that still come, then the status."""
    told: list[str] = []
    try:
        while True:
            told.append((await stream.next()).WhichOneof("frame"))
    except EOFError as end:
        return [*told, str(end)]


async def test_a_stop_takes_the_executors_out_of_presence(start_broker: Any, store: Any) -> None:
    async with start_broker() as broker:
        await broker.executor()
    assert await store.behind.drain(PATIENCE_S)
    [cluster] = await store.clusters.get(["prod"])
    assert list(cluster.executors) == []
    assert cluster.HasField("last_seen")


# Starting


async def test_a_port_in_use(broker: Any, start_broker: Any) -> None:
    """One clear exception; two servers never share a port."""
    with pytest.raises(CannotListen, match=f"cannot listen on {broker.address}"):
        async with start_broker(listen=broker.address):
            pass


async def test_a_tls_file_that_is_not_there(start_broker: Any, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(ValueError, match=r"missing\.pem"):
        async with start_broker(tls_cert=missing, tls_key=missing):
            pass


# Secrets


async def test_secrets_are_never_logged(broker: Any, frames: Any, log_lines: list[dict[str, Any]]) -> None:
    """Neither keys nor tokens, of those who get in and of those who do not; neither arguments nor output."""
    executor = await broker.executor()
    wrong = broker.dial(token="a-wrong-token")
    with pytest.raises(OpenlineError):
        await wrong.hello()
    await broker.refused(key="a-wrong-key")
    await executor.send(wire.ExecutorFrame(credential=wire.Credential(token="the-second-token-of-prod")))
    pipe = await broker.pipe()
    request = command_service_pb2.ExecuteRequest(cluster_id="prod", argv=["an-argument"])
    frame = command_service_pb2.CallerFrame(call_id=1, api_key="the-key-of-bob", execute=request)
    await pipe.send(frame)
    await executor.run_one(b"some-output")
    await pipe.next()
    pipe.call.cancel()
    await until(lambda: any(line["event"] == "pipe.closed" for line in log_lines))
    logged = str(log_lines)
    for secret in ("the-key-of", "-token-of-", "a-wrong", "an-argument", "some-output"):
        assert secret not in logged


def test_settings_do_not_show_secrets() -> None:
    """Their repr may end up in a traceback."""
    settings = BrokerSettings(
        api_keys="alice:hunter2:read",  # type: ignore[arg-type]
        executor_tokens="prod:hunter2",  # type: ignore[arg-type]
        redis_url="redis://:hunter2@127.0.0.1/0",
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
