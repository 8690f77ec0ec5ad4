"""The program as a user runs it: short runs on loopback, with everything real."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from loadtest.compare import command
from loadtest.compare.ratios import RATIOS
from loadtest.main import COMMANDS
from loadtest.rivals import nats

NATS_KEY = "pipe_c1_p50_over_nats"
SHORT = ("--seconds", "0.2", "--rounds", "1", "--only", NATS_KEY)


def start(*arguments: str | Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "loadtest.main", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def run(*arguments: str | Path, **environment: str) -> tuple[int, str, str]:
    process = start(*arguments, **environment)
    out, err = process.communicate(timeout=90)
    return process.returncode, out, err


def test_a_short_dispatch(tmp_path: Path) -> None:
    """Everything is started; the table, the JSON and the page say what came of it."""
    json_file, html_file = tmp_path / "figures.json", tmp_path / "figures.html"
    # So many commands take all processes some of the kernel's steps of 10 ms, however little gets done in a second.
    many = ("--count", "500", "--seconds", "60")
    code, out, err = run(
        "dispatch", *many, "--clusters", "2", "--executors", "2", "--json", json_file, "--html", html_file
    )
    assert (code, err) == (0, "")
    assert "pipe" in out
    told = json.loads(json_file.read_text())
    assert told["command"] == "dispatch"
    assert {"cores", "kernel", "python", "libraries", "load_average", "load_average_after"} <= set(told["machine"])
    for way in ("pipe", "unary"):
        figures = told["measured"][way]
        assert figures["ends"] == {"exit code 0": figures["count"]}
        assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"] <= figures["latency_ms"]["max"]
        assert {"broker", "executors", "caller"} <= set(figures["cpu_us_per_command"])
    assert "loadtest-key" not in json_file.read_text()
    assert html_file.read_text().count("<svg") == 4


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        pytest.param(["rest", "--count", "50"], {"rest"}, id="rest"),
        pytest.param(["storm", "--clusters", "3", "--callers", "1"], {"callers meanwhile"}, id="storm"),
        pytest.param(
            ["flood", "--seconds", "0.1"], {"flood cut, same executor", "flood watched, other cluster"}, id="flood"
        ),
    ],
)
def test_a_short_run_of_each(arguments: list[str], found: set[str], tmp_path: Path) -> None:
    """All of it ends as expected, and is in the report."""
    file = tmp_path / "figures.json"
    code, out, err = run(*arguments, "--json", file)
    assert (code, err) == (0, ""), out
    assert found <= json.loads(file.read_text())["measured"].keys()


@pytest.mark.skipif(
    shutil.which("nats-server", path=f"{os.environ['PATH']}:/usr/sbin") is None, reason="no nats-server"
)
def test_a_short_compare_with_nats(tmp_path: Path) -> None:
    """One key, one round; the others are not measured."""
    file = tmp_path / "ratios.json"
    code, _, err = run("compare", *SHORT, "--json", file)
    assert (code, err) == (0, "")
    told = json.loads(file.read_text())
    assert told["ratios"].keys() == {NATS_KEY}
    assert told["ratios"][NATS_KEY] > 0
    assert told["measured"].keys() == {RATIOS[NATS_KEY].over, RATIOS[NATS_KEY].under}


def test_compare_without_nats_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes on without, says so, and that is no failure."""

    def missing() -> Path:
        raise nats.NatsMissing

    monkeypatch.setattr(command.nats, "find_server", missing)
    monkeypatch.setattr(command, "GROUPS", ())
    from loadtest.main import main

    with pytest.raises(SystemExit) as ended:
        main(["compare", "--only", NATS_KEY])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "not measured" in said
    assert "apt-get install nats-server" in said
    assert "pip install nats-py" in said


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param(["nope"], "nope", id="no such command"),
        pytest.param(["--bogus"], "--bogus", id="a flag and no command"),
        pytest.param(["dispatch", "--bogus"], "--bogus", id="no such flag"),
        pytest.param(["dispatch", "--callers", "0"], "--callers", id="nobody asks"),
        pytest.param(["dispatch", "--seconds", "1e9"], "--seconds", id="without an end"),
        pytest.param(["dispatch", "--json", "/nowhere/figures.json"], "--json", id="no directory"),
        pytest.param(["compare", "--only", "speed"], "--only", id="no such ratio"),
        pytest.param(["compare", "--against", __file__], "--against", id="no ratios in it"),
        pytest.param(["storm", "--broker", "127.0.0.1:1"], "--lose", id="another one's broker"),
        pytest.param(["rest", "--url", "example"], "--url", id="no URL"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, and what is wrong is named."""
    from loadtest.main import main

    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert named in said.err


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with a sentence; and without a command as well."""
    from loadtest.main import main

    main([])
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in COMMANDS)


def test_nobody_there_is_one_line() -> None:
    """Exit code 1."""
    code, out, err = run("dispatch", "--broker", "127.0.0.1:1", "--over", "pipe")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "BROKER_UNAVAILABLE" in err


def test_ctrl_c_shows_what_there_is_and_leaves_nothing(tmp_path: Path) -> None:
    """No process, no file."""
    process = start("mixed", "--seconds", "60", "--think", "0.01", "--clusters", "1", TMPDIR=str(tmp_path))
    children: list[psutil.Process] = []
    give_up = time.monotonic() + 60
    while not any("loadtest.answering" in child.cmdline() for child in children):
        assert time.monotonic() < give_up
        time.sleep(0.1)
        children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert "stopped before its end" in out
    assert not [child for child in children if child.is_running()]
    assert list(tmp_path.iterdir()) == []
