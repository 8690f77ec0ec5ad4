"""Serves the cluster `local` over TLS on a real socket, and writes the kubeconfigs that lead to it."""

import asyncio
import contextlib
import json
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from pathlib import Path

import trustme
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from demo.kubernetes import cluster
from demo.kubernetes.app import App, create_app
from demo.kubernetes.rbac import Identity

EXECUTOR = Identity.service_account("openline", "openline-executor")
ADMIN = Identity("kubernetes-admin", ("system:masters", "system:authenticated"))

# How long connections may take to say goodbye when the server stops, before they are cut.
_GOODBYE_S = 0.4


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A server that is listening, and how to reach it."""

    url: str
    kubeconfig: Path  # the executor's: reads everything but secrets
    admin_kubeconfig: Path
    ca_file: Path
    token: str  # the executor's


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its signal handlers: signals belong to whoever started us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Protocol(HttpToolsProtocol):
    """HTTP without upgrades: exec and port-forward ask for one, are answered 403, and nobody needs to be warned."""

    def _unsupported_upgrade_warning(self) -> None:
        pass


@contextlib.asynccontextmanager
async def serve(*, host: str = "127.0.0.1", port: int = 0, directory: Path) -> AsyncIterator[ApiServer]:
    """Listens until the block ends; port 0 takes a free one. Files go to `directory`, which must exist.

    Raises OSError when the address cannot be had. Afterwards no task is left, and every connection is closed.
    """
    tokens = {"executor": secrets.token_urlsafe(32), "admin": secrets.token_urlsafe(32)}
    with socket.create_server((host, port), backlog=256) as listener:
        # asyncio does this only for sockets that name their protocol. Connections inherit it; without it each answer
        # waits 40 ms, because uvicorn writes headers and body apart.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound = listener.getsockname()[1]
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host, "localhost").configure_cert(context)
        ca_file = directory / "ca.crt"
        authority.cert_pem.write_to_path(str(ca_file))
        url = f"https://{host}:{bound}"
        kubeconfig = _write_kubeconfig(directory / "kubeconfig", url=url, ca_file=ca_file, token=tokens["executor"])
        admin = _write_kubeconfig(directory / "admin.kubeconfig", url=url, ca_file=ca_file, token=tokens["admin"])
        world = cluster.local(time.time())
        app = create_app(world, {tokens["executor"]: EXECUTOR, tokens["admin"]: ADMIN})
        async with _listening(app, listener, context):
            yield ApiServer(url, kubeconfig, admin, ca_file, tokens["executor"])


@contextlib.asynccontextmanager
async def _listening(app: App, listener: socket.socket, context: ssl.SSLContext) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_context_factory=lambda *_: context,
    )
    server = _Uvicorn(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    passing = asyncio.create_task(app.clock.run())
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        yield
    finally:
        # Streams end first, so that their connections can; what is still open then is cut.
        app.close()
        server.should_exit = True
        passing.cancel()
        await asyncio.wait({serving}, timeout=_GOODBYE_S)
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await asyncio.wait({serving, passing})
    serving.result()
    if not passing.cancelled():
        passing.result()


def _write_kubeconfig(path: Path, *, url: str, ca_file: Path, token: str) -> Path:
    """A kubeconfig with everything in one file; JSON is YAML. Nobody else may read it."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {"server": url, "certificate-authority": str(ca_file.absolute())}}],
        "users": [{"name": "demo", "user": {"token": token}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "demo", "namespace": "default"}}],
        "current-context": "local",
    }
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
