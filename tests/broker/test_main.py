"""openline-broker as a person runs it: a process, its flags, its exit codes and what it leaves behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from openline.errors import from_rpc_error
from openline.reasons import Reason
from openline.v1 import command_service_pb2
from openline.v1.command_service_pb2_grpc import CommandServiceStub

PROGRAM = str(Path(sys.executable).with_name("openline-broker"))
CREDENTIALS = ("--api-keys", "alice:the-key-of-alice:execute", "--executor-tokens", "prod:the-token-of-prod")
PATIENCE_S = 60.0

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts brokers, with no variable of this environment that could change them."""
    processes: list[subprocess.Popen[str]] = []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENLINE_")}

    def start(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment | variables,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def until_started(process: "subprocess.Popen[str]") -> str:
    """Reads the log until the broker listens; the address."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if found := re.search(r"broker\.started.*listen=(\S+)", re.sub(r"\x1b\[[0-9;]*m", "", line)):
            return found[1]
    raise AssertionError(said)


def descendants(pid: int) -> list[int]:
    """The processes below this one."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until_dead(pids: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, "left behind"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1:99999"),
        ("--metrics-listen", "nowhere"),
        ("--health-listen", "nowhere"),
        ("--quota-in-flight", "-1"),
        ("--result-ttl", "0"),
        ("--result-ttl", "soon"),
        ("--reconnect-grace", "-1"),
        ("--reconnect-grace", "nan"),
        ("--max-output-bytes", "5000000"),
        ("--log-level", "loud"),
        ("--log-format", "xml"),
        ("--redis-url", "http://127.0.0.1"),
        ("--redis-url", "redis://127.0.0.1:port/0"),
        ("--redis-url", "redis+sentinel://:hunter2@127.0.0.1:26379"),  # and no name
        ("--redis-url", "redis+cluster://:hunter2@127.0.0.1:7000/1"),
        ("--redis-url", "redis://127.0.0.1?no_such_option=1"),
        ("--api-keys", "hunter2"),
        ("--api-keys", "alice:hunter2-hunter2:read@"),
        ("--executor-tokens", "hunter2"),
        ("--tls-key", "key.pem"),
        ("--tls-client-ca", "ca.pem"),
        ("--tls-cert", "cert.pem"),  # and no key
        ("--no-such-flag", "1"),
    ],
)
def test_bad_usage_is_one_line_that_names_the_flag(start: Start, flag: str, value: str) -> None:
    """Exit code 2, no traceback, and nothing of what may be a secret."""
    # With the port of the test's own, in case it starts after all.
    process = start(flag, value, OPENLINE_LISTEN="127.0.0.1:0")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("openline-broker: ")
    assert flag.removeprefix("--no-such-") in line
    assert "hunter2" not in line


def test_a_bad_variable_is_named_as_its_flag(start: Start) -> None:
    process = start(OPENLINE_RESULT_TTL="soon")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    [line] = err.splitlines()
    assert "--result-ttl" in line


def test_a_port_in_use_is_one_line(start: Start) -> None:
    """Exit code 1; nothing is left behind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = start("--listen", address, "--log-level", "warning", *CREDENTIALS)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    [line] = err.splitlines()
    assert line == f"openline-broker: --listen: cannot listen on {address}: Address already in use"


def test_a_data_dir_that_cannot_be_is_one_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = start("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "file"))
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    [line] = err.splitlines()
    assert line == f"openline-broker: --data-dir: cannot keep data in {tmp_path / 'file'}: File exists"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--insecure", "--listen", "nosuchhost.invalid:1"), "--listen: cannot listen on nosuchhost.invalid:1: "),
        (
            ("--insecure", "--listen", "203.0.113.7:5000"),
            "--listen: cannot listen on 203.0.113.7:5000: Cannot assign requested address",
        ),
        (("--data-dir", "/proc/x"), "--data-dir: cannot keep data in /proc/x: No such file or directory"),
        (("--listen", "0.0.0.0:0"), "--listen: plaintext at 0.0.0.0:0 leaves this machine"),
        (("--advertise", "broker:1"), "--advertise: plaintext at broker:1 leaves this machine"),
        (("--redis-url", "redis://:hunter2@h:1"), "--redis-url: plaintext at h:1 leaves this machine"),
        (("--executor-certificates", "prod"), "--executor-certificates: has no effect without --tls-client-ca"),
        (("--tls-cert", "/nope"), "--tls-cert: cannot read /nope: No such file or directory"),
        (("--tls-cert", __file__, "--tls-key", __file__), "--tls-cert: there is no PEM certificate in "),
    ],
)
def test_what_the_machine_does_not_have_is_one_line(start: Start, arguments: tuple[str, ...], said: str) -> None:
    """Exit code 2, before anything is started that would have to be stopped."""
    process = start(*arguments, OPENLINE_LISTEN="127.0.0.1:0")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    [line] = err.splitlines()
    assert line.startswith(f"openline-broker: {said}")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_clean_stop(start: Start, signum: signal.Signals) -> None:
    """Exit code 0, a line for each stage, and no Valkey left."""
    process = start("--listen", "127.0.0.1:0", *CREDENTIALS)
    until_started(process)
    below = descendants(process.pid)
    assert below
    process.send_signal(signum)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "broker.stopping" in err
    assert "broker.stopped" in err
    assert "Traceback" not in err
    until_dead(below)


def test_kill_9_leaves_no_valkey_behind(start: Start) -> None:
    process = start("--listen", "127.0.0.1:0", *CREDENTIALS)
    until_started(process)
    below = descendants(process.pid)
    assert below
    process.kill()
    process.wait(timeout=PATIENCE_S)
    until_dead(below)


def test_it_works_with_no_flag_but_the_credentials(start: Start) -> None:
    """The first broker that a person starts. (The port is the test's, since another broker may have the usual one.)"""
    process = start(
        OPENLINE_LISTEN="127.0.0.1:0",
        OPENLINE_API_KEYS="a:the-key-of-a:execute",
        OPENLINE_EXECUTOR_TOKENS="prod:the-token-of-prod",
    )
    address = until_started(process)
    request = command_service_pb2.ExecuteRequest(cluster_id="prod", argv=["get", "pods"])
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refusal:
        CommandServiceStub(channel).Execute(request, metadata=(("x-api-key", "the-key-of-a"),), timeout=PATIENCE_S)
    assert from_rpc_error(refusal.value).reason is Reason.CLUSTER_OFFLINE


def test_help_and_version(start: Start) -> None:
    """`--help` says every flag, its default and its unit."""
    process = start("--help")
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    for flag in ("--listen", "--replica-id", "--redis-url", "--data-dir", "--api-keys", "--result-ttl", "--log-format"):
        assert flag in out
    assert "127.0.0.1:50051" in out
    assert "seconds" in out
    process = start("--version")
    assert process.communicate(timeout=PATIENCE_S)[0].startswith("openline-broker ")


def test_logs_can_be_json(start: Start) -> None:
    """One object a line, on stderr."""
    process = start("--listen", "127.0.0.1:0", "--log-format", "json", *CREDENTIALS)
    assert process.stderr is not None
    while (line := json.loads(process.stderr.readline()))["event"] != "broker.started":
        assert line["level"] in ("info", "warning")
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE_S)
    # What it hears of Redis may come in between.
    ended = [event for line in err.splitlines() if (event := json.loads(line)["event"]).startswith("broker.")]
    assert ended == ["broker.stopping", "broker.stopped"]
