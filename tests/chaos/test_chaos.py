"""A short piece of `make chaos`, of a seed that has a bit of everything and freezes nothing for long."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_nothing_runs_twice_and_everybody_is_told() -> None:
    """Replicas, executors and Redis are killed, frozen and restarted, and lines cut: every answer is true."""
    command = [sys.executable, str(Path(__file__).parent), "--seconds", "7", "--seed", "20", "--callers", "20"]
    played = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert played.returncode == 0, played.stdout + played.stderr
