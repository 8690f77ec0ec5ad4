"""The program as a whole: a real process against a scripted broker."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = str(Path(sys.executable).with_name("openline-executor"))
ANSWERS_VERSION = 'if [ "$1" = version ]; then echo \'{"clientVersion":{"gitVersion":"v1.99.0"}}\'; exit 0; fi\n'


async def start(*flags: str, kubectl: Path | str, broker: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        PROGRAM,
        *("--broker", broker, "--cluster-id", "local", "--executor-id", "pod-0", "--token", "secret"),
        *("--kubectl", str(kubectl), "--log-format", "json", *flags),
        stderr=asyncio.subprocess.PIPE,
    )


async def test_says_hello_runs_a_command_and_stops_cleanly(
    broker: Any, stub_kubectl: Callable[[str], Path], execute: Any
) -> None:
    """Hello, Accepted, Started, Output, Finished; after SIGTERM Draining, exit 0 and no directory left."""
    kubectl = stub_kubectl(ANSWERS_VERSION + 'echo "$HOME" >$LOG; echo pods; echo oops >&2; exit 3')
    process = await start(kubectl=kubectl, broker=broker.address)
    connection = await broker.connection()
    assert connection.metadata["authorization"] == "Bearer secret"
    hello = await connection.welcome()
    assert (hello.cluster_id, hello.executor_id, hello.max_concurrency) == ("local", "pod-0", 8)
    assert hello.versions.kubectl == "v1.99.0"
    assert "get" in hello.capabilities.verbs
    frame = execute("get", "pods")
    await connection.send(frame)
    command_id = frame.execute.command_id
    assert (await connection.expect("accepted")).accepted.command_id == command_id
    assert (await connection.expect("started")).started.command_id == command_id
    finished, stdout, stderr = await connection.result(command_id)
    assert (finished.exit_code, stdout, stderr) == (3, b"pods\n", b"oops\n")
    process.send_signal(signal.SIGTERM)
    await connection.expect("draining")
    _, log = await process.communicate()
    assert process.returncode == 0, log
    assert not Path(Path(kubectl).with_name("log").read_text().strip()).exists()
    assert b"oops" not in log
    assert b"secret" not in log
