"""What the documentation says of the client is so."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

from openline.client import AsyncClient, errors
from openline.client.requests import CommandOptions

ROOT = Path(__file__).parents[3]
EXAMPLE = (ROOT / "examples" / "client.py").read_text()
PAGE = (ROOT / "docs" / "client.md").read_text()


def test_the_readme_shows_the_example() -> None:
    """Word for word, and it is short."""
    assert f"```python\n{EXAMPLE}```" in (ROOT / "README.md").read_text()
    assert len(EXAMPLE.splitlines()) <= 12


def test_the_example_runs(broker: str) -> None:
    """As it is, but for the address."""
    assert EXAMPLE.count('"127.0.0.1:50051,127.0.0.1:50052"') == 1
    script = EXAMPLE.replace('"127.0.0.1:50051,127.0.0.1:50052"', repr(broker))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert (run.stderr, run.returncode) == ("", 0)
    assert run.stdout.startswith("get\npods\n")
    assert "('local',) exit code 0, 8 bytes of stdout, 0 of stderr\n('east',) CLUSTER_UNKNOWN" in run.stdout


def test_the_page_has_the_tree_of_errors() -> None:
    """As the module shows it."""
    tree = [line[4:] for line in (inspect.getdoc(errors) or "").splitlines() if line.startswith("    ")]
    assert "\n".join(tree) in PAGE


def test_the_page_has_every_method_and_option() -> None:
    """But for the trace context, which tracing libraries fill in."""
    methods = {name for name, _ in inspect.getmembers(AsyncClient, inspect.isfunction) if not name.startswith("_")}
    assert set(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)) == methods
    options = PAGE.partition("| option |")[2].partition("## Results")[0]
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", options, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert named | {"command", "traceparent"} == set(CommandOptions.__annotations__)
