"""NATS request–reply, what a user would pick instead: the server, a responder and a requester, clients on uvloop.

The responder is a process of its own: `python -m loadtest.rivals.nats nats://HOST:PORT`.
"""

import asyncio
import contextlib
import importlib.util
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from loadtest.figures import OK
from loadtest.measuring import Ask, until_answered
from loadtest.stage import Stage
from openline.reasons import Reason

SUBJECT = "loadtest"
# A deadline, as every call of ours has one.
TIMEOUT_S = 10.0


class NatsMissing(Exception):
    """There is no NATS to compare with; the message says how to install it."""

    def __init__(self) -> None:
        super().__init__(
            "NATS was not measured, since it is not installed: `apt-get install nats-server` (or from nats.io), and "
            "`pip install nats-py`"
        )


def find_server() -> Path:
    """The path of nats-server. Raises NatsMissing, also when the Python client is not there."""
    # Debian puts it where a plain user's PATH does not lead.
    server = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/local/sbin:/usr/sbin")
    if server is None or importlib.util.find_spec("nats") is None:
        raise NatsMissing
    return Path(server)


async def start(stage: Stage, *, reply_bytes: int) -> str:
    """Starts the server and the responder; gives the server's URL. Raises NatsMissing, StartFailed."""
    address = stage.address()
    await stage.start("nats-server", find_server(), "--addr", address.host, "--port", str(address.port))
    await stage.listening(address)
    url = f"nats://{address}"
    await stage.module("nats-responder", "loadtest.rivals.nats", url, str(reply_bytes))
    return url


@contextlib.asynccontextmanager
async def requester(url: str, payload: bytes) -> AsyncIterator[Ask]:
    """Asks the responder, which is there when this is entered."""
    import nats

    client = await nats.connect(url)

    async def ask() -> str:
        try:
            await client.request(SUBJECT, payload, timeout=TIMEOUT_S)
        except nats.errors.NoRespondersError:
            return str(Reason.CLUSTER_OFFLINE)
        except (nats.errors.Error, TimeoutError) as failure:
            return type(failure).__name__
        return OK

    try:
        await until_answered(ask)
        yield ask
    finally:
        await client.close()


async def _respond(url: str, reply: bytes) -> None:
    import nats
    from nats.aio.msg import Msg

    client = await nats.connect(url)

    async def answer(message: Msg) -> None:
        await message.respond(reply)

    await client.subscribe(SUBJECT, cb=answer)
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    await stop.wait()
    await client.close()


if __name__ == "__main__":
    uvloop.run(_respond(sys.argv[1], b"x" * int(sys.argv[2])))
