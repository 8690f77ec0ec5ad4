"""The cases, and a cluster of the demo in a process of its own, so that many real kubectls can be run at once."""

import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from demo.kubectl import kubectl_path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PATIENCE_S = 20.0

Kubectl = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory with the kubeconfigs: `kubeconfig` may read all but secrets, `admin.kubeconfig` those as well."""
    directory = tmp_path_factory.mktemp("cluster")
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", "TMPDIR": str(directory)}
    command = [sys.executable, "-m", "demo.kubernetes", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=directory, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield Path(process.stdout.readline().strip().partition("=")[2]).parent
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def kubectl(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Runs the real kubectl with nothing but a home of its own and a kubeconfig; `plugins` is put on its PATH."""
    home = tmp_path_factory.mktemp("home")

    def run(*argv: str, admin: bool = False, plugins: Path | None = None) -> CompletedProcess[str]:
        config = cluster / ("admin.kubeconfig" if admin else "kubeconfig")
        environment = {"HOME": str(home), "KUBECONFIG": str(config), "TZ": "UTC", "KUBECTL_KUBERC": "false"}
        return subprocess.run(
            [str(kubectl_path()), *argv],
            env=environment | ({"PATH": str(plugins)} if plugins else {}),
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def at_once() -> Iterator[ThreadPoolExecutor]:
    """kubectl waits as much as it works."""
    with ThreadPoolExecutor(max_workers=2 * (os.cpu_count() or 1)) as pool:
        yield pool


def pytest_generate_tests(metafunc: Any) -> None:
    """`allowed` and `denied` are the rows of cases.toml, one test each."""
    cases = tomllib.loads((HERE / "cases.toml").read_text())
    if "allowed" in metafunc.fixturenames:
        rows = [(line, becomes) for rows in cases["allowed"].values() for line, becomes in rows.items()]
        metafunc.parametrize("allowed", rows, ids=[line for line, _ in rows])
    if "denied" in metafunc.fixturenames:
        refused = [(line, rule) for by_rule in cases["denied"].values() for rule in by_rule for line in by_rule[rule]]
        metafunc.parametrize("denied", refused, ids=[line for line, _ in refused])


@pytest.fixture(scope="session")
def split() -> Callable[[str], list[str]]:
    return shlex.split
