"""What our programs write to stderr."""

import subprocess
import sys

import pytest

NASTY = "a\x1b[2J\0\r\n\u202e\ud800"
LOG = """
import logging, structlog
from openline.logs import set_up_logs
set_up_logs("info", {log_format!r})
nasty = {nasty!r}
structlog.get_logger().info("request.answered", cluster_id=nasty, plain="späť", both=[nasty])
logging.getLogger("library").warning("about %s", nasty)
try:
    raise ValueError(nasty)
except ValueError:
    structlog.get_logger().exception("request.failed")
"""
IMPORT = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print(os.environ.get("GRPC_VERBOSITY"))
sys.meta_path.insert(0, Watch())
import {module}
"""


def run(program: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, timeout=60, check=True, env=variables)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_what_a_terminal_would_act_on_is_escaped(log_format: str) -> None:
    """In our lines, in those of libraries and in tracebacks; other text is as it was."""
    logged = run(LOG.format(log_format=log_format, nasty=NASTY), PYTHONIOENCODING="utf-8").stderr.decode()
    assert all(line.isprintable() for line in logged.split("\n"))
    assert logged.count("request.answered") == logged.count("about a") == 1
    assert logged.count("[2J") == 4
    if log_format == "console":
        assert "cluster_id='a\\x1b" in logged or "cluster_id=a\\x1b" in logged
        assert "späť" in logged


@pytest.mark.parametrize("module", ["broker.main", "executor.main", "gateway.main"])
def test_grpc_keeps_its_own_lines_to_itself(module: str) -> None:
    """It is told before it is imported. Who wants its lines can have them."""
    assert run(IMPORT.format(module=module)).stdout == b"NONE\n"
    assert run(IMPORT.format(module=module), GRPC_VERBOSITY="DEBUG").stdout == b"DEBUG\n"
