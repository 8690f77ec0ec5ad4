"""The floor of gRPC in Python: a server that gives back what it gets, unary and on a bare bidirectional stream.

A process of its own: `python -m loadtest.rivals.echoing HOST:PORT`.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from loadtest.figures import OK
from loadtest.measuring import Ask
from loadtest.stage import Stage
from openline.channels import SERVER_OPTIONS
from openline.settings import Address

UNARY = "/loadtest.Echo/Unary"
STREAM = "/loadtest.Echo/Stream"
# A deadline, as every call of ours has one.
TIMEOUT_S = 10.0


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


async def start(stage: Stage) -> Address:
    """Starts it; gives where it listens."""
    address = stage.address()
    await stage.module("echo", "loadtest.rivals.echoing", address)
    await stage.listening(address)
    return address


def unary(channel: grpc.aio.Channel, payload: bytes) -> Ask:
    """One unary call for each."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(UNARY)

    async def ask() -> str:
        try:
            await call(payload, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as failure:
            return str(failure.code().name)
        return OK

    return ask


@contextlib.asynccontextmanager
async def open_stream(channel: grpc.aio.Channel, payload: bytes) -> AsyncIterator[Ask]:
    """One message there and one back for each, on one stream; for one caller at a time."""
    echo: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM)
    stream = echo()

    async def ask() -> str:
        try:
            await stream.write(payload)
            await stream.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return str((await stream.code()).name)
        return OK

    try:
        yield ask
    finally:
        stream.cancel()


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
