"""The gRPC server: the services put together, health and reflection, started in stages and stopped in reverse."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Iterator

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from broker.balancing import balance_forever
from broker.core.credentials import Credentials
from broker.draining import Draining
from broker.readings import serve_metrics
from broker.replica import Replica
from broker.rpc.admin import AdminService
from broker.rpc.api_keys import ApiKeyMethods
from broker.rpc.audit import AuditEntries
from broker.rpc.audited import Audited
from broker.rpc.cancel_all import CancelAllMethod
from broker.rpc.cancel_commands import CancelCommandsMethod
from broker.rpc.clusters import ClusterService
from broker.rpc.commands import CommandService
from broker.rpc.drain import DrainMethod
from broker.rpc.executors import ExecutorService
from broker.rpc.keyless import Health, Reflection
from broker.rpc.log_level import SetLogLevelMethod
from broker.rpc.overview import OverviewMethods
from broker.rpc.pipe import Pipes
from broker.rpc.service import add_service
from broker.rpc.sessions import SessionService
from broker.settings import BrokerSettings
from broker.store.store import Store
from openline.channels import SERVER_OPTIONS, server_credentials
from openline.fresh import Fresh
from openline.health import serve_health
from openline.process import open_files
from openline.settings import Address
from openline.tls import Pems
from openline.v1 import (
    admin_service_pb2,
    cluster_service_pb2,
    command_service_pb2,
    executor_service_pb2,
    session_service_pb2,
)

# How long running unary calls may take to end after a stop, and the streams to be told of it.
STOP_GRACE_S = 2.0
# Of executors, callers and other replicas; an idle one costs 14 KB. Those beyond it are closed at once.
MAX_CONNECTIONS = 20_000
# Files that connections must leave to everything else, above all to Redis: a flood would take its connections first.
RESERVED_FILES = 512

DESCRIPTORS = {
    pb2.DESCRIPTOR.services_by_name[name]
    for pb2, name in (
        (executor_service_pb2, "ExecutorService"),
        (command_service_pb2, "CommandService"),
        (session_service_pb2, "SessionService"),
        (cluster_service_pb2, "ClusterService"),
        (admin_service_pb2, "AdminService"),
    )
}
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]


class CannotListen(Exception):
    """The address cannot be listened on."""


@contextlib.asynccontextmanager
async def serve(settings: BrokerSettings, store: Store, credentials: Credentials) -> AsyncIterator[Address]:
    """Serves until it is left, and then drains; gives the address. Raises CannotListen, or OSError for a TLS file."""
    replica = Replica(settings, store, credentials)
    pipes = Pipes(
        replica.executions,
        replica.lookups,
        credentials,
        replica.lasting,
        replica.proof,
        replica.opening,
        replica.refusals,
        replica_id=settings.replica_id,
    )
    health = Health([descriptor.full_name for descriptor in DESCRIPTORS])
    async with contextlib.AsyncExitStack() as stages:
        if (listen := settings.metrics_listen) is not None:
            with _naming("--metrics-listen", listen):
                await stages.enter_async_context(serve_metrics(listen, replica, store, pipes))
        # Before and behind the server: it says of a replica that drains that it does not serve.
        if (listen := settings.health_listen) is not None:
            with _naming("--health-listen", listen):
                health_page = serve_health(listen, healthy=lambda: health.is_serving, otherwise="not serving")
                await stages.enter_async_context(health_page)
        yield await stages.enter_async_context(_serving(settings, store, credentials, replica, pipes, health))


@contextlib.contextmanager
def _naming(flag: str, listen: Address) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise CannotListen(f"{flag}: cannot listen on {listen}: {failure.strerror or failure}") from None


@contextlib.asynccontextmanager
async def _serving(
    settings: BrokerSettings, store: Store, credentials: Credentials, replica: Replica, pipes: Pipes, health: Health
) -> AsyncIterator[Address]:
    """The gRPC server, from its first to its last call."""
    executors = ExecutorService(
        replica.dispatcher,
        replica.ledger.connections,
        replica.directory,
        credentials,
        replica.proof,
        replica.opening,
        replica.refusals,
        replica.rivals,
        replica_id=settings.replica_id,
    )
    draining = Draining(replica, executors)
    audited = Audited(credentials, replica.audit)
    servicers = {
        "ExecutorService": executors,
        "CommandService": CommandService(
            replica.executions,
            replica.lookups,
            replica.listings,
            credentials,
            replica.lasting,
            replica.proof,
            pipes,
            CancelCommandsMethod(replica.killing, credentials, replica.audit),
        ),
        "SessionService": SessionService(store, credentials, replica.registry, replica.listings, replica.audit),
        "ClusterService": ClusterService(credentials, replica.registry, replica.overview, replica.lasting),
        "AdminService": AdminService(
            replica.tokens,
            credentials,
            replica.registry,
            ApiKeyMethods(replica.api_keys, credentials, audited),
            CancelAllMethod(replica.killing, replica.registry, replica.proof, audited),
            DrainMethod(draining, replica.peers, replica.proof, audited, replica_id=settings.replica_id),
            OverviewMethods(replica.survey, replica.views, credentials, replica.lasting, replica.proof),
            AuditEntries(store.audit, credentials),
            audited,
            SetLogLevelMethod(replica.peers, replica.proof, audited, replica_id=settings.replica_id),
        ),
    }
    names = [descriptor.full_name for descriptor in DESCRIPTORS]
    servicers[HEALTH.name] = health
    most = ("grpc.max_allowed_incoming_connections", connections_allowed())
    server = grpc.aio.server(options=[*SERVER_OPTIONS, most])
    for descriptor in (*DESCRIPTORS, HEALTH):
        add_service(
            server,
            descriptor,
            servicers[descriptor.name],
            opening=replica.opening,
            refusals=replica.refusals,
            volume=replica.volume,
        )
    reflecting = Reflection([*names, HEALTH.full_name, reflection.SERVICE_NAME])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, server)
    # Nothing is `shown`: the replica's dialer has the same certificate, and tells when it expires.
    tls = Fresh(settings.tls.paths, settings.tls.read, use="listen") if settings.tls else None
    address = _listen(server, settings, tls)
    await asyncio.gather(replica.tokens.begin(), replica.api_keys.begin(), replica.hearing.begin())
    await server.start()
    health.serves(True)
    async with replica.known_at(settings.advertise or _advertised(address)):
        watched = [files for files in (tls, replica.dialer.files) if files is not None]
        asides = [
            asyncio.create_task(_balance(replica, every_s=settings.rebalance), name="balance"),
            *(asyncio.create_task(files.watch(), name="certificates") for files in watched),
        ]
        try:
            yield address
        finally:
            for aside in asides:
                aside.cancel()
            await asyncio.gather(*asides, return_exceptions=True)
            health.serves(False)
            replica.overview.close()
            replica.views.close()
            await draining.finish(pipes)
            replica.dispatcher.streams.let_go_of_all()
            pipes.close()
            await replica.executions.close()
            await server.stop(STOP_GRACE_S)


async def _balance(replica: Replica, *, every_s: float) -> None:
    if every_s > 0:
        await balance_forever(replica, every_s=every_s)


def _advertised(address: Address) -> Address:
    host, _, port = address.rpartition(":")
    return Address(f"{socket.gethostname()}:{port}") if host in ("0.0.0.0", "[::]", "") else address  # noqa: S104  (compared, not bound to)


def connections_allowed() -> int:
    return max(1, min(MAX_CONNECTIONS, open_files() - RESERVED_FILES))


def check_listen(listen: Address) -> None:
    """Raises OSError for an address that cannot be had. gRPC finds out as well, but not why, nor before it serves."""
    failures: list[OSError] = []
    found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as failure:
            if failure.errno == errno.EADDRINUSE:
                raise
            failures.append(failure)
    # A name may stand for an IPv6 address, which this machine has not, and another.
    if len(failures) == len(found):
        raise failures[0]


def _listen(server: grpc.aio.Server, settings: BrokerSettings, tls: Fresh[Pems] | None) -> Address:
    try:
        if tls is None:
            port = server.add_insecure_port(settings.listen)
        else:
            mutual = settings.tls_client_ca is not None
            port = server.add_secure_port(settings.listen, server_credentials(tls, mutual=mutual))
    except RuntimeError:
        raise CannotListen(f"--listen: cannot listen on {settings.listen}: is the port in use?") from None
    return Address(f"{settings.listen.rpartition(':')[0]}:{port}")
