"""The demo as a user starts it: real processes on free ports, the real kubectl, nothing imported from the programs."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

DEMO = Path(sys.executable).parent / "openline-demo"
START_TIMEOUT_S = 60


@dataclass(frozen=True)
class Demo:
    """A running demo, as its banner describes it."""

    process: subprocess.Popen[str]
    url: str
    brokers: list[str]
    redis: "redis.Redis"
    logs: Path
    pids: dict[str, int]

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers={"X-API-Key": "test-key", **headers}, timeout=30)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers={"X-API-Key": "test-key"}, timeout=30)

    def execute(self, *args: str, command_type: str = "get", **more: Any) -> httpx.Response:
        """Asks for a command the way today's AI agents do."""
        body = {"cluster_id": "local", "command_type": command_type, "args": list(args), **more}
        return self.post("/debug/execute", body)

    def log_lines(self, program: str) -> list[str]:
        """What the programs of this name have logged."""
        return [line for log in sorted(self.logs.glob(f"{program}*.log")) for line in log.read_text().splitlines()]


def free_ports(count: int) -> int:
    """The first of some neighbouring ports that nobody listens on."""
    for first in range(20_000 + os.getpid() % 10_000, 60_000, count):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise AssertionError("no free ports")


@contextmanager
def running_demo(*arguments: str) -> Iterator[Demo]:
    first = free_ports(4)
    command = [str(DEMO), "--port", str(first), "--broker-port", str(first + 1), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield Demo(process, **_read_banner(process))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _read_banner(process: "subprocess.Popen[str]") -> dict[str, Any]:
    lines: list[str] = []
    deadline = time.monotonic() + START_TIMEOUT_S
    while not lines or "debug/execute" not in lines[-1]:
        line = process.stdout.readline() if process.stdout else ""
        if not line or time.monotonic() > deadline:
            raise AssertionError(f"the demo did not start: {''.join(lines)}")
        lines.append(line)
    rows = dict(re.findall(r"^  (\w+) +(\S.*)$", "".join(lines), re.MULTILINE))
    return {
        "url": rows["gateway"],
        "brokers": rows["brokers"].split(", "),
        "redis": redis.Redis.from_url(rows["redis"]),
        "logs": Path(rows["logs"]).parent,
        "pids": {name: int(pid) for name, pid in (each.split() for each in rows["processes"].split(", "))},
    }


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    """One demo for all tests that leave it as it was."""
    with running_demo() as running:
        yield running
        running.redis.close()


@pytest.fixture
def own_demo() -> Iterator[Demo]:
    """A demo for one test, to break."""
    with running_demo() as running:
        yield running
        running.redis.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until something is so; fails after 30 s."""

    def wait(holds: Callable[[], bool], within_s: float = 30) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.05)

    return wait
