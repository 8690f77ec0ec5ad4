"""`openline-gateway mcp --stdio`: what a desktop client starts. The client is the SDK's, or lines as they are."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from gateway.mcp import stdio
from gateway.mcp.lines import MAX_LINE_BYTES, split_lines
from tests.programs import free_port

GATEWAY = Path(sys.executable).parent / "openline-gateway"
KEY = "the-key-of-mia"
PATIENCE_S = 60.0
# Without a question first, which is given up after a time on a busy machine.
MODES = {"modern": "2026-07-28", "legacy": "legacy"}


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Any]:
    """Starts the program; it is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*flags: str, key: str | None = KEY, **more: Any) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        given = environment | ({} if key is None else {"OPENLINE_API_KEY": key})
        started.append(subprocess.Popen([GATEWAY, "mcp", *flags], env=given, **pipes))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait(timeout=PATIENCE_S)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()


@asynccontextmanager
async def connected(url: str, mode: str, environment: dict[str, str], *, key: str = KEY) -> AsyncIterator[Client]:
    server = StdioServerParameters(
        command=str(GATEWAY), args=["mcp", "--stdio", "--url", url], env=environment | {"OPENLINE_API_KEY": key}
    )
    async with Client(stdio_client(server), mode=MODES[mode]) as client:
        yield client


def message(method: str, params: Any = None, *, number: Any = 1) -> bytes:
    sent = {"jsonrpc": "2.0", "id": number, "method": method} | ({} if params is None else {"params": params})
    return json.dumps(sent).encode() + b"\n"


def calling(name: str, *, number: Any = 1, timeout_s: float = 40) -> bytes:
    arguments = {"cluster": "script", "command": f"get pods {name} -n sleeps", "timeout_seconds": timeout_s}
    return message("tools/call", {"name": "kubectl", "arguments": arguments}, number=number)


async def test_the_tools(mcp: Any, environment: dict[str, str], call: Any, mode: str) -> None:
    """All of it: the handshake or none, listing, calls, more of an output, progress."""
    name = f"stdio-held-{mode}"

    async def hear(_progress: float, _total: float | None, text: str | None) -> None:
        if text == "running, 9 bytes so far":
            mcp.let_go(name)

    async with connected(mcp.urls[0], mode, environment) as client:
        assert client.protocol_version == {"modern": "2026-07-28", "legacy": "2025-11-25"}[mode]
        assert len((await client.list_tools()).tools) == 5
        answer = await call(client, "kubectl", cluster="real", command="get deployments -o name")
        assert answer.text.startswith("deployment.apps/")
        answer = await call(client, "kubectl", cluster="script", command="get pods x -n floods")
        assert (await call(client, "get_result", cursor=answer.fields["next_cursor"])).fields["stdout"]
        held = {"cluster": "script", "command": f"get pods {name} -n held", "timeout_seconds": 60}
        assert (await call(client, "kubectl", progress=hear, **held)).text == "one, two\nthree\n"
        both = await asyncio.gather(
            *(call(client, "kubectl", cluster="script", command=f"get pods w{nth}") for nth in range(10))
        )
        assert [each.text for each in both] == [f"w{nth}\n" for nth in range(10)]


async def test_cancelling(mcp: Any, environment: dict[str, str], call: Any, eventually: Any, mode: str) -> None:
    """Reaches the process in the cluster."""
    name = f"stdio-{mode}"
    async with connected(mcp.urls[0], mode, environment) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as waiting:

                async def ask() -> None:
                    await call(client, "kubectl", cluster="script", command=f"get pods {name} -n sleeps")

                waiting.start_soon(ask)
                await eventually(lambda: mcp.marks(name) == ["begun"])
                scope.cancel()
        await eventually(lambda: not mcp.is_running(name))
        assert not (await call(client, "list_clusters")).is_error


async def test_the_calls_of_a_process_are_a_conversation(
    mcp: Any, environment: dict[str, str], call: Any, api: Any
) -> None:
    async with connected(mcp.urls[0], "modern", environment) as client:
        answers = [await call(client, "kubectl", cluster="script", command=f"get pods c{nth}") for nth in range(3)]
    commands: list[Any] = []
    while len(commands) < 3:
        listed = (await api.get("/v1/commands", params={"limit": 50})).json().get("commands", [])
        ids = {answer.fields["command_id"] for answer in answers}
        commands = [each for each in listed if each["command_id"] in ids]
    [correlation_id] = {each["correlation_id"] for each in commands}
    assert correlation_id


def test_what_is_asked_before_the_end_is_answered(mcp: Any, start: Any) -> None:
    """Lines by a pipe that ends: each has its answer, nothing else is on stdout, and the exit code is 0."""
    process = start("--stdio", "--url", mcp.urls[0])
    sent = [
        message("tools/list", number="a"),
        b"\n",
        b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n',
        b"junk\n",
        b"[1]\n",
        b'{"jsonrpc":"2.0","id":null,"method":"ping"}\n',
        b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}\n',
        message("tools/call", {"name": "list_clusters", "arguments": {}}, number=2),
        b'{"jsonrpc":"2.0","id":9,"result":{}}\n',
        b'{"x":"' + b"y" * MAX_LINE_BYTES + b'"}\n',
        message("ping", number=3).strip(),
    ]
    out, err = process.communicate(b"".join(sent), timeout=PATIENCE_S)
    answers = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 0, err
    by_id = {answer["id"]: answer for answer in answers if answer["id"] is not None}
    assert len(by_id["a"]["result"]["tools"]) == 5
    assert by_id[2]["result"]["isError"] is False
    assert by_id[3]["result"] == {}
    wrong = [answer["error"]["code"] for answer in answers if answer["id"] is None]
    assert wrong == [-32700, -32600, -32600, -32600, -32600]
    assert err == b""


def test_a_file_of_lines(mcp: Any, start: Any, tmp_path: Path) -> None:
    """Neither end has to be a pipe."""
    (tmp_path / "in").write_bytes(message("ping"))
    with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as told:
        process = start("--stdio", "--url", mcp.urls[0], stdin=given, stdout=told)
        assert process.wait(timeout=PATIENCE_S) == 0
    assert json.loads((tmp_path / "out").read_text()) == {"jsonrpc": "2.0", "id": 1, "result": {}}


def test_the_client_closes_its_end(mcp: Any, start: Any) -> None:
    """And has left: what is still running for it is stopped, and the program ends."""
    process = start("--stdio", "--url", mcp.urls[0])
    process.stdin.write(_hello())
    process.stdin.flush()
    process.stdout.readline()
    process.stdin.write(calling("closes"))
    process.stdin.flush()
    _until(lambda: mcp.marks("closes") == ["begun"])
    process.stdin.close()
    assert process.wait(timeout=PATIENCE_S) == 0
    _until(lambda: not mcp.is_running("closes"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal(mcp: Any, start: Any, number: signal.Signals) -> None:
    """Ends it at once, cleanly, whatever it waits for; what runs is stopped."""
    name = f"signal-{number.name}"
    process = start("--stdio", "--url", mcp.urls[0])
    process.stdin.write(_hello())
    process.stdin.flush()
    process.stdout.readline()
    process.stdin.write(calling(name))
    process.stdin.flush()
    _until(lambda: mcp.marks(name) == ["begun"])
    process.send_signal(number)
    assert process.wait(timeout=PATIENCE_S) == 0
    assert process.stderr.read() == b""
    _until(lambda: not mcp.is_running(name))


def test_nobody_reads(mcp: Any, start: Any) -> None:
    """Whoever closes the other end has left as well."""
    process = start("--stdio", "--url", mcp.urls[0])
    process.stdout.close()
    process.stdin.write(message("tools/list"))
    process.stdin.flush()
    assert process.wait(timeout=PATIENCE_S) == 0


def test_a_client_that_is_frozen(mcp: Any, start: Any) -> None:
    """It takes none of its answers and asks for more: that is bounded, and a signal ends it all the same."""
    process = start("--stdio", "--url", mcp.urls[0])
    process.stdin.write(message("tools/list"))
    process.stdin.flush()
    process.stdout.readline()
    for number in range(300):
        process.stdin.write(message("tools/list", number=number))
    process.stdin.flush()
    time.sleep(0.5)
    process.terminate()
    assert process.wait(timeout=PATIENCE_S) == 0


def test_no_gateway(start: Any) -> None:
    """Every request has an answer, which says where none was found."""
    url = f"http://127.0.0.1:{free_port()}"
    process = start("--stdio", "--url", url)
    sent = message("initialize", {}) + b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
    out, err = process.communicate(sent, timeout=PATIENCE_S)
    [answer] = [json.loads(line) for line in out.splitlines()]
    assert answer["id"] == 1
    assert answer["error"]["message"].startswith(f"no answer from the gateway at {url}/mcp: ")
    assert process.returncode == 0
    assert b"mcp.not_passed_on" in err


def test_the_gateway_goes_and_comes_back(run_program: Any, start: Any) -> None:
    """While it is away each request says so; then all is well again."""
    flags = ("--broker", "127.0.0.1:1")
    address = f"127.0.0.1:{free_port()}"
    with run_program("openline-gateway", "--listen", address, *flags) as gateway:
        gateway.until("gateway.listening")
        process = start("--stdio", "--url", f"http://{address}")

        def ask() -> dict[str, Any]:
            process.stdin.write(message("ping"))
            process.stdin.flush()
            return dict(json.loads(process.stdout.readline()))

        assert ask()["result"] == {}
        gateway.stop()
        assert "no answer from the gateway" in ask()["error"]["message"]
    with run_program("openline-gateway", "--listen", address, *flags) as gateway:
        gateway.until("gateway.listening")
        assert ask()["result"] == {}


@pytest.mark.parametrize("key", ["k" * 300, "a-key-of-nobody"])
def test_a_key_that_is_refused(mcp: Any, start: Any, key: str) -> None:
    """At the beginning, be it none that there is or none that there can be, with what to do about it."""
    process = start("--stdio", "--url", mcp.urls[0], key=key)
    out, _ = process.communicate(message("initialize", {}), timeout=PATIENCE_S)
    told = json.loads(out)["error"]["message"]
    assert "says 401: Invalid API key. Check the API key that this server is started with." in told


def test_something_else_at_the_address(start: Any) -> None:
    """A server that is no gateway, and one that says nothing sensible."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = start("--stdio", "--url", f"http://127.0.0.1:{port}")
        server.settimeout(PATIENCE_S)
        for head, says in (
            (
                b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
                "says 404: Not Found. Is it an openline gateway",
            ),
            (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", "says 200: OK."),
            (
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\ndata: {\n\n",
                "the answer is not JSON",
            ),
            (
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\n: ping\n\n",
                "the answer broke off",
            ),
            (b"junk\r\n\r\n", "no answer from the gateway"),
            (b"", "no answer from the gateway"),
        ):
            process.stdin.write(message("ping"))
            process.stdin.flush()
            connection, _ = server.accept()
            with connection:
                asked = b""
                # All of it: what is not read would be told the client as a reset.
                while not asked.endswith(b"}"):
                    asked += connection.recv(65536)
                connection.sendall(head)
            assert says in json.loads(process.stdout.readline())["error"]["message"]
        process.stdin.close()
        assert process.wait(timeout=PATIENCE_S) == 0


def test_over_tls(mcp: Any, run_program: Any, start: Any, tmp_path: Path) -> None:
    """With an authority of one's own, and with a certificate of one's own where the gateway asks for it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("gateway", "client"):
        made = authority.issue_cert("localhost")
        made.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        for blob in made.cert_chain_pems:
            blob.write_to_path(tmp_path / f"{name}.pem", append=True)
    flags = (
        "--listen", "127.0.0.1:0", "--broker", "127.0.0.1:1", "--listen-cert", str(tmp_path / "gateway.pem"),
        "--listen-key", str(tmp_path / "gateway.key"), "--listen-client-ca", str(tmp_path / "ca.pem"),
    )  # fmt: skip
    own = ("--tls-cert", str(tmp_path / "client.pem"), "--tls-key", str(tmp_path / "client.key"))
    ca = ("--tls-ca", str(tmp_path / "ca.pem"))
    with run_program("openline-gateway", *flags) as gateway:
        port = gateway.until("gateway.listening")["address"].rpartition(":")[2]
        for more, is_good in (((*ca, *own), True), (ca, False)):
            process = start("--stdio", "--url", f"https://localhost:{port}", *more)
            # Its end stays open: behind that, what is being answered has not very long.
            process.stdin.write(message("ping"))
            process.stdin.flush()
            assert ("result" in json.loads(process.stdout.readline())) is is_good


@pytest.mark.parametrize(
    ("flags", "key", "says"),
    [
        ((), KEY, "--stdio: has to be given"),
        (("--stdio",), None, "--api-key: give a key with --api-key or --api-key-file"),
        (("--stdio",), "with space", "--api-key: expected a key"),
        (("--stdio", "--api-key-file", "no-such-file"), None, "--api-key-file: cannot read"),
        (("--stdio", "--url", "ftp://x"), KEY, "--url: expected http://HOST:PORT"),
        (("--stdio", "--url", "http://"), KEY, "--url: expected http://HOST:PORT"),
        (("--stdio", "--url", "http://x:y"), KEY, "--url: expected http://HOST:PORT"),
        (("--stdio", "--url", "http://me:it@127.0.0.1"), KEY, "--url: has no room for credentials"),
        (
            ("--stdio", "--url", "http://example.com"),
            KEY,
            "--url: plaintext at http://example.com/mcp leaves this machine",
        ),
        (("--stdio", "--tls-ca", __file__), KEY, "--tls-ca: there is no PEM certificate"),
        (("--stdio", "--what"), KEY, "unrecognized arguments: --what"),
    ],
)
def test_bad_usage(
    flags: tuple[str, ...],
    key: str | None,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that names the flag, exit code 2, and never the key."""
    for name in [name for name in os.environ if name.startswith("OPENLINE_")]:
        monkeypatch.delenv(name)
    if key is not None:
        monkeypatch.setenv("OPENLINE_API_KEY", key)
    with pytest.raises(SystemExit) as ended:
        stdio.main(flags)
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert "with space" not in err


def test_a_key_file(mcp: Any, start: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    process = start("--stdio", "--url", f"{mcp.urls[0]}/mcp/", "--api-key-file", str(tmp_path / "key"), key=None)
    out, _ = process.communicate(message("tools/call", {"name": "list_clusters"}), timeout=PATIENCE_S)
    assert json.loads(out)["result"]["isError"] is False


@given(st.lists(st.sampled_from([b"", b" ", b"a", b"bc", b"\n", b"\r\n", b"\n\n", b"{}\n", b"x" * 9])))
def test_lines(chunks: list[bytes]) -> None:
    """However a text comes in pieces, its lines are the same."""
    text = b"".join(chunks)
    assert list(split_lines(iter(chunks))) == [line.strip() for line in text.split(b"\n") if line.strip()]


def test_a_long_line() -> None:
    """Is cut where it shows that it is too long, and does not pile up; the next one is whole."""
    lines = split_lines(iter([b"x" * MAX_LINE_BYTES, b"y" * MAX_LINE_BYTES, b"z\nnext\n"]))
    assert [len(line) for line in lines] == [MAX_LINE_BYTES + 1, 4]


def _hello() -> bytes:
    client = {"name": "test", "version": "1"}
    return message("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}, number=0)


def _until(holds: Any) -> None:
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)
