"""openline-loadtest COMMAND: the table of commands, and what they have in common: progress, tables, files, a stop."""

import asyncio
import json
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from demo.kubectl import KubectlMissing
from demo.programs import StartFailed
from loadtest import dispatch, flood, idle, mixed, rest, spawn, storm
from loadtest.bench import Bench
from loadtest.compare import command as compare
from loadtest.measuring import NoAnswer
from loadtest.page import page
from loadtest.report import Report
from loadtest.screen import Screen
from loadtest.settings import ReportSettings
from loadtest.tables import show
from openline import __version__
from openline.errors import OpenlineError
from openline.logs import set_up_logs
from openline.settings import fail, load

PROGRAM = "openline-loadtest"
# As a shell says of a program that ended by Ctrl-C.
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to measure: its settings, and what runs it."""

    settings: type[ReportSettings]
    run: Callable[[Any, Bench], Awaitable[None]]


COMMANDS: dict[str, Command] = {
    "dispatch": Command(dispatch.DispatchSettings, dispatch.run),
    "rest": Command(rest.RestSettings, rest.run),
    "mixed": Command(mixed.MixedSettings, mixed.run),
    "idle": Command(idle.IdleSettings, idle.run),
    "storm": Command(storm.StormSettings, storm.run),
    "flood": Command(flood.FloodSettings, flood.run),
    "spawn": Command(spawn.SpawnSettings, spawn.run),
    "compare": Command(compare.CompareSettings, compare.run),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit code 0 when every command ended as expected, 1 when not, 2 for bad usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else "--help"
    if name in ("-h", "--help"):
        print(_usage())
        return
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return
    if name not in COMMANDS:
        fail(PROGRAM, f"{name}: expected one of {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    settings = load(command.settings, program=f"{PROGRAM} {name}", arguments=given[1:])
    set_up_logs(settings.log_level, settings.log_format)
    _allow_many_connections()
    report = Report(name, settings.model_dump(mode="json", exclude={"log_level", "log_format"}))
    try:
        with Screen() as screen:
            stopped = uvloop.run(_until_stopped(command.run(settings, Bench(report, screen))))
    except (StartFailed, KubectlMissing, NoAnswer, OpenlineError, OSError) as failure:
        fail(f"{PROGRAM} {name}", str(failure), code=1)
    if stopped:
        report.notes.append("It was stopped before its end.")
    show(report)
    if settings.json_file is not None:
        settings.json_file.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    if settings.html_file is not None:
        settings.html_file.write_text(page(report))
    raise SystemExit(INTERRUPTED if stopped else 0 if report.is_good else 1)


async def _until_stopped(running: Awaitable[None]) -> bool:
    """Runs it, or until Ctrl-C or SIGTERM, which ends everything that was started; whether it was that."""
    task = asyncio.ensure_future(running)
    for signum in (signal.SIGTERM, signal.SIGINT):
        # Once: a second one must not interrupt the closing, which takes a bounded time.
        asyncio.get_running_loop().add_signal_handler(signum, lambda: task.cancelling() or task.cancel())
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


def _allow_many_connections() -> None:
    """As many open files as this user may have; what is started here has as many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _usage() -> str:
    """What there is, from the first line of what each one's settings say."""
    described = {name: (command.settings.__doc__ or "").partition("\n")[0] for name, command in COMMANDS.items()}
    listing = "\n".join(f"  {name:<10}{text}" for name, text in described.items())
    return f"usage: {PROGRAM} COMMAND [--flags]; COMMAND --help lists the flags\n\n{listing}"


if __name__ == "__main__":
    main()
