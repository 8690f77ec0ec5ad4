"""`openline-broker top`: on a terminal, without one, and what it does when the broker goes."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from broker.rates import History
from broker.screen import plain, screen
from openline.v1 import command_pb2
from openline.v1 import overview_pb2 as pb
from openline.v1.cluster_service_pb2 import Cluster, ConnectedExecutor, Replica
from tests.programs import free_port

PROGRAM = str(Path(sys.executable).with_name("openline-broker"))
ROOT, OF_PROD = "the-key-of-root", "the-key-of-an-admin-of-prod"
PATIENCE_S = 60.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


async def run(broker: Any, *words: str, key: str = ROOT) -> tuple[int, str, str]:
    """Without a terminal."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENLINE_")}
    variables = {"OPENLINE_BROKER": broker.address, "OPENLINE_ADMIN_KEY": key, "COLUMNS": "140"}
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "top", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment | variables
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


class Terminal:
    """The program on a terminal of its own, and what it has written there."""

    def __init__(self, process: "subprocess.Popen[bytes]", fd: int) -> None:
        self.process = process
        self._fd = fd
        self.written = ""
        os.set_blocking(fd, False)

    async def until(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.read():
                await asyncio.sleep(0.02)

    def read(self) -> str:
        """All of it since the last time that this was forgotten, without what moves the cursor."""
        try:
            while content := os.read(self._fd, 1 << 16):
                self.written += content.decode(errors="replace")
        except OSError:  # nothing is there now, or the program has ended
            pass
        return ESCAPES.sub("", self.written)

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            while self.process.poll() is None:
                self.read()
                await asyncio.sleep(0.02)
        return int(self.process.returncode)


@contextmanager
def terminal(broker: Any, *words: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENLINE_")}
    variables = {"OPENLINE_BROKER": broker.address, "OPENLINE_ADMIN_KEY": ROOT, "TERM": "xterm"}
    size = {"COLUMNS": "140", "LINES": "40"}
    process = subprocess.Popen(
        [PROGRAM, "top", *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment | variables | size
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture
async def broker(start_broker: Any) -> Any:
    async with start_broker(extra_keys=[f"pat:{OF_PROD}:admin@prod*"]) as running:
        yield running


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
async def test_the_terminal_is_as_it_was_whatever_ends_it(broker: Any, signum: signal.Signals) -> None:
    """Somebody's kill, or a connection that is lost."""
    with terminal(broker, "--interval", "0.5") as top:
        await top.until("nothing runs")
        top.process.send_signal(signum)
        assert await top.ended() == 0
        top.read()
        assert top.written.rstrip().endswith(("\x1b[?1049l\x1b[?25h", "\x1b[?25h\x1b[?1049l"))


async def test_on_a_terminal_until_ctrl_c(broker: Any) -> None:
    """What begins is there a moment later; the end is clean, with the screen as it was and the cursor back."""
    with terminal(broker, "--interval", "0.5") as top:
        await top.until("nothing runs")
        executor = await broker.executor()
        asked = broker.execute(argv=["get", "pods", "-n", "shop"])
        await executor.begin_one()
        await top.until("get pods -n shop")
        await top.until("connected, active")
        top.process.send_signal(signal.SIGINT)
        assert await top.ended() == 0
        top.read()
        assert top.written.rstrip().endswith(("\x1b[?1049l\x1b[?25h", "\x1b[?25h\x1b[?1049l"))
        assert "Traceback" not in top.written
        asked.cancel()


async def test_a_broker_that_goes_and_comes_back(start_broker: Any) -> None:
    """What is shown is said to be old, and goes on by itself."""
    address = f"127.0.0.1:{free_port()}"
    async with start_broker(listen=address) as broker:
        watching = terminal(broker, "--interval", "0.5")
        top = watching.__enter__()
        await top.until("1/1 replicas")
    try:
        await top.until("stale:")
        top.written = ""
        async with start_broker(listen=address):
            async with asyncio.timeout(PATIENCE_S):
                while "1/1 replicas" not in (seen := top.read()) or "stale:" in seen:
                    top.written = ""
                    await asyncio.sleep(1)
    finally:
        watching.__exit__(None, None, None)


async def test_without_a_terminal_it_is_shown_once(broker: Any) -> None:
    """With rates, which take two looks; the same with --once."""
    executor = await broker.executor()
    asked = broker.execute(timeout_s=300)
    await executor.begin_one()
    for words in ((), ("--once",)):
        code, out, err = await run(broker, *words, "--interval", "0.5")
        assert (code, err) == (0, "")
        assert "\x1b" not in out
        assert re.search(r"1/1 replicas  1/2 clusters  1 in flight  0\.0 commands/s", out)
        assert re.search(r"^replica-1 .* answers ", out, re.MULTILINE)
        assert re.search(r"^running .* prod +get pods .* alice +exec-1 +replica-1", out, re.MULTILINE)
        assert re.search(r"^prod +connected, active +1/4 +exec-1 +replica-1", out, re.MULTILINE)
        assert re.search(r"^staging +away", out, re.MULTILINE)
    asked.cancel()


async def test_as_json_for_programs(broker: Any) -> None:
    """The names of the contract, and one look."""
    code, out, _ = await run(broker, "--json", "--clusters", "prod")
    overview = json.loads(out)
    assert (code, overview["is_whole"]) == (0, False)
    assert [cluster["cluster_id"] for cluster in overview["clusters"]] == ["prod"]
    assert overview["replicas"][0]["reachable"]


async def test_a_key_of_some_clusters_is_shown_those(broker: Any) -> None:
    """Without rates, which are those of all."""
    code, out, _ = await run(broker, "--once", "--interval", "0.5", key=OF_PROD)
    assert code == 0
    assert "staging" not in out
    assert "commands/s" not in out


@pytest.mark.parametrize(
    ("key", "why"), [("no-such-key", "API key"), ("the-key-of-alice", "scope 'admin'")], ids=["unknown", "no admin"]
)
async def test_a_refusal_is_one_line(broker: Any, key: str, why: str) -> None:
    for words in ((), ("--json",)):
        code, out, err = await run(broker, *words, key=key)
        assert (code, out) == (1, "")
        assert err.startswith("openline-broker top: ")
        assert why in err
        assert err.count("\n") == 1


async def test_nobody_there_is_one_line(broker: Any) -> None:
    class Nobody:
        address = "127.0.0.1:1"

    code, out, err = await run(Nobody(), "--once")
    assert (code, out, err.count("\n")) == (1, "", 1)


@pytest.mark.parametrize("interval", ["0.1", "11", "nan", "x"])
async def test_intervals_that_cannot_be(broker: Any, interval: str) -> None:
    code, _, err = await run(broker, "--interval", interval)
    assert code == 2
    assert "--interval" in err


# What is drawn


def drawn(overview: pb.Overview, *, width: int = 120, height: int = 30, lost: str = "") -> str:
    console = Console(width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(screen(overview, History(), width=width, height=height, lost=lost))
    return capture.get()


def many(commands: int, clusters: int) -> pb.Overview:
    overview = pb.Overview(is_whole=True, more_commands=1000, more_clusters=500)
    overview.replicas.add(replica=Replica(replica_id="a"), reachable=True)
    overview.replicas.add(replica=Replica(address="127.0.0.1:9"))
    for number in range(commands):
        command = command_pb2.Command(argv=["get", "pods", f"pod-{number}"], cluster_id="c", owner="o")
        overview.commands.add(command=command, elapsed_s=number)
    for number in range(clusters):
        executors = [ConnectedExecutor(executor_id=f"e-{number}", replica_id="a", running=number, max_concurrency=8)]
        cluster = Cluster(cluster_id=f"c-{number:04}", connected=number > 0, executors=executors, more_executors=7)
        overview.clusters.append(cluster)
    return overview


def test_the_load_of_a_cluster_that_is_shown_whole() -> None:
    overview = many(0, 1)
    overview.clusters[0].more_executors = 0
    text = drawn(overview)
    assert "0/8" in text
    assert "≥" not in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 30), (200, 60)])
def test_it_fits_on_the_screen(width: int, height: int) -> None:
    """However much there is; what is left out is said."""
    lines = drawn(many(200, 1000), width=width, height=height).rstrip("\n").split("\n")
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert re.search(r"… and 1\d\d\d more", text)
    assert "c-0999" in text
    assert "e-999 and 7 more" in text
    # There may run more on those that are not shown.
    assert "≥999/8" in text
    assert "does not answer" in text


@pytest.mark.parametrize(("width", "is_shown"), [(120, False), (140, True)])
def test_which_executor_has_a_command_is_shown_where_there_is_room(width: int, is_shown: bool) -> None:
    overview = pb.Overview(is_whole=True)
    overview.commands.add(command=command_pb2.Command(argv=["get", "pods"]), executor_id="exec-7", replica_id="a")
    assert ("exec-7" in drawn(overview, width=width)) is is_shown


def test_what_others_have_named_does_nothing_to_a_terminal() -> None:
    """No escape that it would obey, no markup of rich's, and no line of its own."""
    evil = ["\x1b]0;owned\x07", "\x1b[2J", "[red]x[/red]", "a\nb", "\x9b31m", "\u202eabc", "\r"]
    overview = pb.Overview(is_whole=True)
    overview.commands.add(command=command_pb2.Command(argv=evil, cluster_id="c", owner="\x1b[5mo"))
    text = drawn(overview, lost="\x1b[2J", width=200)
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\r", "\u202e"}
    assert "[red]x[/red]" in text
    assert "·]0;owned· ·[2J [red]x[/red] a·b ·31m ·abc ·" in text
    assert plain("ünï 中").plain == "ünï 中"
