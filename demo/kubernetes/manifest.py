"""Reads `manifests/*.yaml`: ordinary Kubernetes manifests, each with a `demo` block that says how it fares.

The `demo` block is never served. Its fields are those of `Demo`; ages are written like `12d` or `90s`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from demo.kubernetes.logs import Script
from demo.kubernetes.objects import Obj
from demo.kubernetes.times import seconds

DIRECTORY = Path(__file__).parent / "manifests"


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of the pods of a workload, and the particulars; `kind` names a generator in life.py."""

    kind: str = "healthy"
    container: str = ""  # the one that fails; the first if unset
    message: str = ""
    reason: str = "Error"
    exit_code: int = 1
    restarts: int = 0  # so far
    run_s: float = 3.0  # how long a run lasts before it fails
    backoff_s: float = 8.0  # shorter than a kubelet's five minutes: a demo has to show something


@dataclass(frozen=True, slots=True)
class Revision:
    """One rollout of a Deployment: when, why, and the image of its first container ("" as in the manifest)."""

    age_s: float
    cause: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class Demo:
    """What a manifest cannot say: how old the object is, how it fares, and what its containers log."""

    age_s: float = seconds("41d")
    fate: Fate = Fate()
    revisions: tuple[Revision, ...] = ()  # oldest first; the last is the one that runs
    logs: dict[str, Script] = field(default_factory=dict)  # by container
    delay_s: float = 0.0  # of a namespace: how long each answer about it takes


@dataclass(frozen=True, slots=True)
class Manifest:
    obj: Obj
    demo: Demo


def load(directory: Path = DIRECTORY) -> Iterator[Manifest]:
    """Every manifest, in the order of file names and then of documents."""
    for path in sorted(directory.glob("*.yaml")):
        for document in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
            demo = _demo(document.pop("demo", {}))
            yield Manifest(document, demo)


def _demo(block: dict[str, Any]) -> Demo:
    given: dict[str, Any] = dict(block)
    if "age" in given:
        given["age_s"] = seconds(given.pop("age"))
    if "fate" in given:
        given["fate"] = Fate(**given["fate"])
    given["logs"] = {container: Script.parse(script) for container, script in given.get("logs", {}).items()}
    given["revisions"] = tuple(
        Revision(age_s=seconds(r["age"]), cause=r.get("cause", ""), image=r.get("image", ""))
        for r in given.get("revisions", ())
    )
    return Demo(**given)
