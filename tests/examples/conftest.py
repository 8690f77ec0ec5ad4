"""A demo as a user starts it, on free ports, with a cluster that nobody is connected for."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
PATIENCE_S = 60.0
# With the programs of this environment first, as in an activated one; without the settings of whoever runs the tests.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OPENLINE_")} | {
    "PATH": f"{PROGRAMS}{os.pathsep}{os.environ.get('PATH', '')}"
}

Agent = Callable[..., "subprocess.Popen[str]"]


@dataclass(frozen=True)
class Demo:
    gateway: str
    broker: str

    def url(self, via: str) -> str:
        return self.broker if via == "sdk" else self.gateway

    def commands(self, **query: str) -> list[list[str]]:
        """What was run, the first one first."""
        answer = httpx.get(
            f"{self.gateway}/v1/commands", params=query, headers={"X-API-Key": "test-key"}, timeout=PATIENCE_S
        )
        return [each["argv"] for each in reversed(answer.json()["commands"])]


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    port = _free_ports(2)
    flags = ["--port", str(port), "--broker-port", str(port + 1), "--replicas", "1"]
    process = subprocess.Popen(
        [PROGRAMS / "openline-demo", *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        banner = ""
        while "debug/execute" not in banner:
            line = process.stdout.readline()
            assert line, banner
            banner += line
        demo = Demo(f"http://127.0.0.1:{port}", f"127.0.0.1:{port + 1}")
        token = f"{demo.gateway}/admin/agents/away/token"
        httpx.post(token, headers={"X-API-Key": "test-key"}, timeout=PATIENCE_S).raise_for_status()
        yield demo
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _free_ports(count: int) -> int:
    """The first of some neighbouring ports that nobody listens on, below those that the system gives away."""
    for first in range(12_000 + os.getpid() % 7_000, 32_000, count):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise AssertionError("no free ports")


@pytest.fixture(scope="session")
def start() -> Iterator[Agent]:
    """Starts the agent; it is killed at the end if it still runs."""
    with ExitStack() as started:

        def run(via: str, url: str, *flags: str) -> "subprocess.Popen[str]":
            command = [sys.executable, "-m", "examples.diagnose", "--via", via, "--url", url, *flags]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT
            )
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield run


@dataclass(frozen=True)
class Told:
    """What the agent said, in the end and on the way."""

    code: int
    text: str

    @classmethod
    def by(cls, process: "subprocess.Popen[str]") -> "Told":
        out, err = process.communicate(timeout=PATIENCE_S)
        assert err == ""
        return cls(process.returncode, out)

    def of(self, word: str) -> list[str]:
        """The rest of the lines that begin with this word."""
        return [line.removeprefix(word).strip() for line in self.text.splitlines() if line.startswith(word)]

    @property
    def commands(self) -> list[str]:
        return [line.partition("$ kubectl ")[2] for line in self.text.splitlines() if line.startswith("   $ ")]

    @property
    def conversation(self) -> str:
        return self.of("Conversation")[0].partition(",")[0]


@pytest.fixture(scope="session")
def ask(start: Agent) -> Callable[..., Told]:
    """Runs the agent to its end."""
    return lambda *arguments: Told.by(start(*arguments))


@pytest.fixture(scope="session")
def diagnoses(demo: Demo, start: Agent) -> dict[str, Told]:
    """What it said in each transport; all run at once."""
    ways = ("mcp", "mcp-stdio", "rest", "sdk")
    started = {via: start(via, demo.url(via)) for via in ways}
    return {via: Told.by(process) for via, process in started.items()}
