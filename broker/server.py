"""The gRPC server: the services put together, health and reflection, started in stages and stopped in reverse."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from broker.core.credentials import Credentials
from broker.core.ledger import Ledger
from broker.dispatcher import Dispatcher
from broker.executions import Executions
from broker.rpc.clusters import ClusterService
from broker.rpc.commands import CommandService
from broker.rpc.executors import ExecutorService
from broker.rpc.service import add_service
from broker.rpc.sessions import SessionService
from broker.settings import BrokerSettings
from broker.store import keys
from broker.store.store import Store
from openline.channels import SERVER_OPTIONS
from openline.settings import Address
from openline.v1 import (
    admin_service_pb2,
    cluster_service_pb2,
    command_service_pb2,
    executor_service_pb2,
    session_service_pb2,
)

# How long running unary calls may take to end after a stop, and the streams to be told of it.
STOP_GRACE_S = 2.0

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


class CannotListen(Exception):
    """The address cannot be listened on."""


@contextlib.asynccontextmanager
async def serve(settings: BrokerSettings, store: Store, credentials: Credentials) -> AsyncIterator[Address]:
    """Serves until it is left; gives the address. Raises CannotListen, or OSError for a TLS file."""
    dispatcher = Dispatcher(Ledger(reconnect_grace_s=settings.reconnect_grace), store, replica_id=settings.replica_id)
    executions = Executions(dispatcher, store, credentials, max_output_bytes=settings.max_output_bytes)
    commands = CommandService(executions, replica_id=settings.replica_id)
    servicers = {
        "ExecutorService": ExecutorService(dispatcher, credentials, replica_id=settings.replica_id),
        "CommandService": commands,
        "SessionService": SessionService(store, credentials, executions),
        "ClusterService": ClusterService(store, credentials, dispatcher, executions),
        "AdminService": object(),
    }
    server = grpc.aio.server(options=SERVER_OPTIONS)
    for descriptor in DESCRIPTORS:
        add_service(server, descriptor, servicers[descriptor.name])
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = [descriptor.full_name for descriptor in DESCRIPTORS]
    reflection.enable_server_reflection(
        [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME], server
    )
    address = _listen(server, settings)
    await server.start()
    for name in ("", *names):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    refresher = asyncio.create_task(dispatcher.refresh_forever(keys.SEEN_EVERY_S), name="presence")
    try:
        yield address
    finally:
        await health.enter_graceful_shutdown()
        refresher.cancel()
        await asyncio.gather(refresher, return_exceptions=True)
        commands.go_away("the replica is stopping")
        dispatcher.go_away("the replica is stopping")
        commands.close()
        await executions.close()
        await server.stop(STOP_GRACE_S)


def _cannot_listen(listen: Address) -> CannotListen:
    return CannotListen(f"cannot listen on {listen}: is the port in use?")


def _check_free(listen: Address) -> None:
    """Raises CannotListen for a port in use. gRPC finds out as well, but says so on stderr with lines of its own."""
    for family, kind, protocol, _, address in socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as failure:
                if failure.errno == errno.EADDRINUSE:
                    raise _cannot_listen(listen) from None


def _listen(server: grpc.aio.Server, settings: BrokerSettings) -> Address:
    def read(path: Path | None) -> bytes | None:
        return None if path is None else path.read_bytes()

    _check_free(settings.listen)
    try:
        if settings.tls_cert is None:
            port = server.add_insecure_port(settings.listen)
        else:
            pair = (read(settings.tls_key) or b"", settings.tls_cert.read_bytes())
            client_ca = read(settings.tls_client_ca)
            credentials = grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)
            port = server.add_secure_port(settings.listen, credentials)
    except RuntimeError:
        raise _cannot_listen(settings.listen) from None
    return Address(f"{settings.listen.rpartition(':')[0]}:{port}")
