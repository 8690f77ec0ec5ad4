"""The floor of gRPC in Python: a server that gives back what it gets, unary and on a bare bidirectional stream.

A process of its own: `python -m loadtest.echoing HOST:PORT`.
"""

import asyncio
import signal
import sys
from typing import Any

import grpc
import uvloop

from openline.channels import CLIENT_OPTIONS, SERVER_OPTIONS

UNARY = "/loadtest.Echo/Unary"
STREAM = "/loadtest.Echo/Stream"


async def serve(address: str) -> None:
    """Serves until SIGTERM or SIGINT."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((_Echo(),))
    server.add_insecure_port(address)
    await server.start()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    await stop.wait()
    await server.stop(0)


def channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS)


class _Echo(grpc.GenericRpcHandler):
    def service(self, call: Any) -> Any:
        if call.method == UNARY:
            return grpc.unary_unary_rpc_method_handler(_unary)
        if call.method == STREAM:
            return grpc.stream_stream_rpc_method_handler(_stream)
        return None


async def _unary(request: bytes, _context: Any) -> bytes:
    return request


async def _stream(_requests: Any, context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
