"""What the last release was: one file says it, and it is true."""

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MAKE, GIT = shutil.which("make") or "make", shutil.which("git") or "git"


def test_the_file_names_the_last_release(release: dict[str, str], old: Any, new: Any) -> None:
    """The newest version with a date in the change log, and the commit that had that version."""
    dated = re.findall(r"^## (\S+), \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert release["version"] == dated[0]
    there, here = (tree.path / "protos" / "openline" / "__init__.py" for tree in (old, new))
    assert f'__version__ = "{release["version"]}"' in there.read_text()
    assert f'__version__ = "{release["version"]}"' not in here.read_text(), (
        "begin the next version: see CONTRIBUTING.md"
    )


def test_the_makefile_reads_the_same_file(release: dict[str, str]) -> None:
    """`make check` holds the contract against that commit."""
    told = subprocess.run(
        [MAKE, "--no-print-directory", "-n", "-p", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert f"RELEASED := {release['commit']}" in told.stdout.splitlines()


@pytest.mark.parametrize("program", ["broker", "executor", "gateway"])
def test_each_tree_runs_its_own_programs(old: Any, new: Any, program: str) -> None:
    """Neither is mistaken for the other, and what is installed is enough for both."""
    for tree in (old, new):
        script = f"import {program}.main, openline; print({program}.__file__, openline.__file__)"
        told = subprocess.run(
            tree.python("-c", script), env=tree.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert told.returncode == 0, told.stderr
        files = told.stdout.split()
        assert len(files) == 2
        assert all(Path(file).is_relative_to(tree.path) for file in files), files


def test_a_checkout_without_history_says_what_to_do(
    release: Mapping[str, str], take_out: Callable[..., Path], tmp_path: Path
) -> None:
    """Of a shallow clone, or an archive: there is nothing that could be run beside today's programs."""
    empty = tmp_path / "checkout"
    subprocess.run([GIT, "init", "-q", empty], check=True, timeout=60)
    with pytest.raises(pytest.fail.Exception, match="git fetch --unshallow"):
        take_out(release, empty, tmp_path)
