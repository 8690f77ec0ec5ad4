"""What holds for every test: generated examples are the same each time in `make test`, and new ones in `make fuzz`; and
no key and no token that a test uses is printed, in whatever way.

The keys and tokens are those that a broker in this process is given or shown, and those that programs are started with.
What is printed is what pytest captures, log lines that a test takes, errors, metrics, and what programs write to their
logs: to a file, or to a pipe. A test that finds one of its secrets there fails. What a program says on its standard
output is for whoever has started it: the demo shows its key, and tokens are shown when they are made.
"""

import asyncio
import contextlib
import functools
import gc
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self, TypeVar

# With gRPC's fork handlers on, some of what is started by fork beside it ends at once with a signal, a broker of the
# load test's for one. It must hear this before it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import pytest
import structlog
from hypothesis import settings
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from broker.core import credentials
from openline.errors import OpenlineError
from openline.exposition import Exposition
from openline.tracing.spans import record_with

# How long an example takes says more of the machine than of what is tested.
settings.register_profile("fresh", deadline=None)
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("fresh" if "OPENLINE_FUZZ_EXAMPLES" in os.environ else "steady")

TESTS = Path(__file__).parent
# Anything shorter is found in texts that have nothing to do with it.
MIN_CHARACTERS = 8
# Made up by generated examples, they are many; the oldest are forgotten.
MAX_SECRETS = 5_000
# The demo's, which it says on its standard output.
KEY_OF_THE_DEMO = "test-key"
# How a program is given them: the flag, or its variable, and where in an entry the secret is.
ENTRIES: dict[str, Callable[[str], str]] = {
    "--api-keys": lambda entry: entry.partition(":")[2].rpartition(":")[0],
    "--executor-tokens": lambda entry: entry.partition(":")[2],
    "--token": str,
    "--peer-secret": str,
}
FILE = "--token-file"

T = TypeVar("T")


class Overheard:
    """The secrets of this process's tests, and what was printed and not looked through yet."""

    def __init__(self) -> None:
        self._secrets: dict[str, None] = {KEY_OF_THE_DEMO: None}
        self._said: list[str] = []
        # Files with secrets, and logs with how much of them was looked through.
        self._files: set[Path] = set()
        self._logs: dict[Path, int] = {}
        self._short: set[str] = set()

    def keep(self, secret: str) -> str:
        """This must not be printed from now on; returns it."""
        if len(secret) >= MIN_CHARACTERS and len(set(secret)) > 2:  # generated examples are all one letter
            self._secrets.pop(secret, None)
            self._secrets[secret] = None
            if len(self._secrets) > MAX_SECRETS:
                del self._secrets[next(iter(self._secrets))]
        return secret

    def hear(self, said: T) -> T:
        """This was printed; returns it."""
        if said:
            self._said.append(said.decode(errors="replace") if isinstance(said, bytes) else str(said))
        return said

    def started(self, command: Sequence[str], environment: Mapping[str, str] | None, output: Iterable[Any]) -> bool:
        """A program was started, with these files, if they are files, for its output; whether it may know secrets."""
        given = dict(_flags(command))
        knows = Path(command[0]).name.startswith("openline-")
        for flag in (*ENTRIES, FILE):
            variable = f"OPENLINE_{flag[2:].replace('-', '_').upper()}"
            if (value := given.get(flag, (environment or {}).get(variable))) is None:
                continue
            knows = True
            if flag == FILE:
                self._files.add(Path(value))
                continue
            for secret in map(ENTRIES[flag], value.split(",")):
                self.keep(secret)
                if 0 < len(secret) < MIN_CHARACTERS:
                    self._short.add(secret)
        for file in output:
            if isinstance(name := getattr(file, "name", None), str | os.PathLike):
                self._logs.setdefault(Path(name), 0)
        return knows

    def follow(self, directory: Path) -> None:
        """Somebody else's programs write their logs there."""
        for log in directory.glob("*.log"):
            self._logs.setdefault(log, 0)

    def catch_up(self) -> None:
        """Reads on in the logs, which may be about to be taken away."""
        for log, read in self._logs.items():
            with contextlib.suppress(OSError), log.open("rb") as file:
                file.seek(read)
                self._logs[log] += len(self.hear(file.read()))

    def complaints(self) -> list[str]:
        """What is wrong with what was printed since the last time."""
        for file in self._files:
            if file.is_file():
                self.keep(file.read_text().strip())
        self.catch_up()
        said, short = "\n".join(self._said), sorted(self._short)
        self._said.clear()
        self._short.clear()
        printed = [secret for secret in self._secrets if secret in said]
        return [
            *(f"{secret!r} is a secret, and was printed: {_around(said, secret)!r}" for secret in printed),
            *(f"{secret!r}, with which a program was started, is too short to be looked for" for secret in short),
        ]


OVERHEARD = Overheard()


class Tapped:
    """A program's pipe, of which all that a test reads is overheard."""

    def __init__(self, pipe: IO[Any]) -> None:
        self._pipe = pipe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if not (line := self.readline()):
            raise StopIteration
        return line

    def read(self, *size: int) -> Any:
        return OVERHEARD.hear(self._pipe.read(*size))

    def readline(self, *size: int) -> Any:
        return OVERHEARD.hear(self._pipe.readline(*size))


def _flags(command: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word, following in zip(command, [*command[1:], ""], strict=True):
        flag, has_value, value = word.partition("=")
        yield flag, value if has_value else following


def _words(command: Any) -> list[str]:
    one = isinstance(command, str | bytes | os.PathLike)
    return [os.fsdecode(word) for word in ([command] if one else command)]


def _is_demo(command: Any) -> bool:
    return Path(_words(command)[0]).name == "openline-demo"


def _around(said: str, secret: str) -> str:
    at = said.index(secret)
    return said[max(0, at - 60) : at + len(secret) + 60]


# What is put in the place of a function of ours, of structlog or of Python does the same, and something is heard.


def _tap(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Puts `decorated(original)` in the place of `owner.name`."""

    def put(decorated: Callable[..., Any]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, functools.wraps(original)(decorated(original)))

    return put


@_tap(credentials, "digest")
def _digest(digest: Any) -> Any:
    """Every key and every token that a broker is given, makes or is shown."""
    return lambda secret: digest(OVERHEARD.keep(secret))


@_tap(structlog.testing.LogCapture, "__call__")
def _log(capture: Any) -> Any:
    return lambda self, logger, name, line: capture(self, logger, OVERHEARD.hear(name), OVERHEARD.hear(line))


@_tap(OpenlineError, "__init__")
def _error(init: Any) -> Any:
    return lambda self, error, **result: init(self, OVERHEARD.hear(error), **result)


@_tap(Exposition, "text")
def _metrics(text: Any) -> Any:
    return lambda self: OVERHEARD.hear(text(self))


@_tap(subprocess.Popen, "__init__")
def _start(init: Any) -> Any:
    def start(self: Any, args: Any, *more: Any, **named: Any) -> None:
        init(self, args, *more, **named)
        if not OVERHEARD.started(_words(args), named.get("env"), (named.get("stdout"), named.get("stderr"))):
            return
        if self.stderr is not None:
            self.stderr = Tapped(self.stderr)
        if self.stdout is not None and named.get("stderr") is subprocess.STDOUT and not _is_demo(args):
            self.stdout = Tapped(self.stdout)

    return start


@_tap(subprocess.Popen, "communicate")
def _end(communicate: Any) -> Any:
    def end(self: Any, *given: Any, **named: Any) -> Any:
        said, complained = communicate(self, *given, **named)
        return said, OVERHEARD.hear(complained) if isinstance(self.stderr, Tapped) else complained

    return end


@_tap(asyncio, "create_subprocess_exec")
def _create(create: Any) -> Any:
    async def start(*command: Any, **named: Any) -> Any:
        # uvloop's child runs Python before it becomes the program. A garbage collection there that has to end a channel
        # of gRPC's waits without end for a thread of the parent, and the parent for the child.
        gc.disable()
        try:
            process = await create(*command, **named)
        finally:
            gc.enable()
        OVERHEARD.started(_words(command), named.get("env"), (named.get("stdout"), named.get("stderr")))
        return process

    return start


@_tap(asyncio.subprocess.SubprocessStreamProtocol, "pipe_data_received")
def _receive(received: Any) -> Any:
    return lambda self, fd, data: received(self, fd, OVERHEARD.hear(data) if fd == 2 else data)


@pytest.fixture(scope="session")
def overheard() -> Overheard:
    """For programs that a test does not start itself."""
    return OVERHEARD


@pytest.fixture
def recorded() -> Iterator[InMemorySpanExporter]:
    """The spans of what runs in this process, those that have ended; `get_finished_spans` gives them."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    record_with(provider)
    yield exporter
    record_with(None)
    provider.shutdown()


# What is tried with programs waits most of the time, and the rest computes: side by side they make the most of the
# cores, while of one kind alone, some stand in each other's way and others leave the cores idle.
WITH_PROGRAMS = frozenset({"chaos", "demo", "e2e", "examples", "loadtest", "tls", "upgrade"})
# These files take the longest and are spread over so much of a run, so that none of them is what the end waits for.
SPREAD = 0.8


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with programs and others are taken in turns; inside a file nothing changes."""
    place: dict[Path, float] = {}
    files = list(dict.fromkeys(item.path for item in items))
    waiting = [file for file in files if TESTS in file.parents and file.relative_to(TESTS).parts[0] in WITH_PROGRAMS]
    computing = [file for file in files if file not in set(waiting)]
    for some, spread in (waiting, SPREAD), (computing, 1.0):
        place |= {file: number / len(some) * spread for number, file in enumerate(some)}
    items.sort(key=lambda item: place[item.path])


# Hundreds of thousands of objects come about with the tests and what they import, and stay. A collection that looks
# through them all takes seconds in the end, for which every program in this process stands still.


def pytest_collection_finish() -> None:
    _leave_alone_what_stays()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or nextitem.path != item.path:
        _leave_alone_what_stays()


def _leave_alone_what_stays() -> None:
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Iterator[Any]:
    report: pytest.TestReport = yield
    if call.when == "teardown":
        for _, content in report.sections:
            OVERHEARD.hear(content)
        if complaints := OVERHEARD.complaints():
            report.outcome = "failed"
            report.longrepr = "\n".join(filter(None, [report.longreprtext, *complaints]))
    return report
