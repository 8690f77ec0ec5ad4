"""The gateway program: from its flags to a clean stop."""

import asyncio
import signal
import socket
import sys

import structlog
import uvloop
from starlette.types import ASGIApp

from gateway.app import build_app
from gateway.securing import certificates_of, make_tls_server
from gateway.serving import Server, listen, make_server
from gateway.settings import GatewaySettings
from gateway.traffic import Traffic
from openline import __version__
from openline.lag import measure_lag
from openline.logs import set_up_logs
from openline.loudness import LOUDNESS
from openline.pipes import Pipes
from openline.process import forbid_core_dumps
from openline.settings import fail_to_listen, load
from openline.tracing.exporting import traced

PROGRAM = "openline-gateway"

log = structlog.get_logger()


def main() -> None:
    forbid_core_dumps()
    if sys.argv[1:2] == ["mcp"]:
        from gateway.mcp import stdio  # it has a client, which is nothing that a gateway needs

        stdio.main(sys.argv[2:])
        return
    settings = load(GatewaySettings, program=PROGRAM)
    set_up_logs(settings.log_level, settings.log_format)
    try:
        listener = listen(settings.listen.host, settings.listen.port)
    except OSError as failure:
        fail_to_listen(PROGRAM, settings.listen, failure)
    with listener, traced(PROGRAM):
        uvloop.run(_serve(settings, listener))


async def _serve(settings: GatewaySettings, listener: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT; a second one does not wait for what is running."""
    async with Pipes(
        settings.broker,
        client=f"{PROGRAM}/{__version__}",
        ca=settings.tls_ca,
        cert=settings.tls_cert,
        key=settings.tls_key,
    ) as pipes:
        traffic = Traffic()
        app = build_app(pipes, traffic=traffic, public_url=settings.public_url)
        server = _server(settings, app, traffic)

        def stop(number: signal.Signals) -> None:
            log.info("gateway.stopping", signal=number.name)
            server.force_exit = server.should_exit
            server.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
        LOUDNESS.toggle_on_signal()
        host, port = listener.getsockname()[:2]
        settings.warn_of_plaintext()
        tls = bool(settings.listen_tls)
        log.info("gateway.listening", address=f"{host}:{port}", tls=tls, brokers=list(settings.broker))
        measuring = asyncio.create_task(measure_lag(traffic.lag), name="loop-lag")
        try:
            await server.serve(sockets=[listener])
        finally:
            measuring.cancel()
            await asyncio.gather(measuring, return_exceptions=True)
    log.info("gateway.stopped")


def _server(settings: GatewaySettings, app: ASGIApp, traffic: Traffic) -> Server:
    cert, key, client_ca = settings.listen_cert, settings.listen_key, settings.listen_client_ca
    if cert is None or key is None:
        return make_server(app, traffic)
    return make_tls_server(app, certificates_of(cert, key, client_ca), traffic)
