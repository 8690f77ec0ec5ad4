"""TLS on the gateway's own port: each connection is accepted, shakes hands within bounds, and is HTTP's from then on.

asyncio's servers take one set of certificates for ever, wait a minute for a handshake, and count none.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog
from starlette.types import ASGIApp

from gateway.serving import BoundedHttp, Config, Server, configure
from gateway.traffic import Traffic
from openline.fresh import Fresh
from openline.tls import TlsFiles, server_context

# As long as for the head of a request, and so many at one time; those beyond are closed unheard.
HANDSHAKE_TIMEOUT_S = 10.0
MAX_HANDSHAKES = 1024
# For the other end to say that it closes as well.
GOODBYE_TIMEOUT_S = 5.0
# When there are no more files to open, some must be closed first.
ACCEPT_AGAIN_S = 0.5

log = structlog.get_logger()


class TlsServer(Server):
    """The gateway's server, which shows to each new connection what the certificates are then."""

    config: Config

    def __init__(self, config: Config, certificates: Fresh[ssl.SSLContext]) -> None:
        super().__init__(config)
        self._certificates = config.traffic.certificates = certificates
        self._asides: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Must be given sockets."""
        await super().startup([])
        self._asides = [asyncio.create_task(self._certificates.watch(), name="certificates")]
        for listener in sockets or ():
            accepting = _accept_forever(listener, self._certificates, self._protocol, self.config.traffic)
            self._asides.append(asyncio.create_task(accepting, name="accept"))
        for aside in self._asides:
            # A defect there must not leave a gateway behind that nobody can reach.
            aside.add_done_callback(self._stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for aside in self._asides:
            aside.cancel()
        ends = await asyncio.gather(*self._asides, return_exceptions=True)
        await super().shutdown(sockets)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _protocol(self) -> asyncio.Protocol:
        return BoundedHttp(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _stop(self, _aside: "asyncio.Task[None]") -> None:
        self.should_exit = True


def make_tls_server(app: ASGIApp, certificates: Fresh[ssl.SSLContext], traffic: Traffic | None = None) -> TlsServer:
    return TlsServer(configure(app, traffic), certificates)


def certificates_of(cert: Path, key: Path, client_ca: Path | None) -> Fresh[ssl.SSLContext]:
    """What is shown at the gateway's port, and by whom callers must be signed. Raises OSError as `server_context`."""
    files = TlsFiles(client_ca, cert, key).paths
    return Fresh(files, lambda: server_context(cert, key, client_ca), use="listen", shown=cert)


async def _accept_forever(
    listener: socket.socket,
    certificates: Fresh[ssl.SSLContext],
    make_protocol: Callable[[], asyncio.Protocol],
    traffic: Traffic,
) -> None:
    """Serves a listening socket until it is cancelled by its owner; connections that stand stay."""
    loop = asyncio.get_running_loop()
    handshakes: set[asyncio.Task[None]] = set()
    try:
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as failure:
                log.error("connections.not_accepted", why=failure.strerror)
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            if len(handshakes) >= MAX_HANDSHAKES:
                traffic.refused["unheard"] += 1
                connection.close()
                continue
            task = loop.create_task(_shake_hands(connection, certificates.current(), make_protocol))
            handshakes.add(task)
            task.add_done_callback(handshakes.discard)
    finally:
        for task in handshakes:
            task.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)


async def _shake_hands(
    connection: socket.socket, context: ssl.SSLContext, make_protocol: Callable[[], asyncio.Protocol]
) -> None:
    """Ends when the protocol has its connection, or when there will be none."""
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            make_protocol,
            connection,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            ssl_shutdown_timeout=GOODBYE_TIMEOUT_S,
        )
    except OSError as failure:
        log.debug("handshake.failed", why=str(failure))
