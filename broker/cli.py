"""`openline-broker token …`, `… key …`, `… log-level …` and `… top`: an operator asks a broker that runs.

A secret that was made is all that goes to stdout, so that it can be piped to where it is kept.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from broker import cli_commands as commands
from broker import cli_settings as settings
from broker.cli_commands import Shown
from broker.rpc.operator import Operator
from openline.channels import open_channel
from openline.errors import OpenlineError
from openline.logs import set_up_logs
from openline.settings import fail, load

PROGRAM = "openline-broker"
# As a shell says of a program that ended by Ctrl-C.
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to ask: what it is given, and what asks it, and shows the answer unless it gives it back."""

    settings: type[settings.AskSettings]
    run: Callable[[Any, Operator], Awaitable[Shown | None]]
    # What it does; without it the settings say that.
    says: str = ""


async def _top(given: settings.TopSettings, operator: Operator) -> Shown | None:
    # Here: a broker that starts has no use for what draws on terminals.
    from broker import cli_top

    return await cli_top.run(given, operator)


# By their first word alone.
ALONE: Mapping[str, Command] = {"top": Command(settings.TopSettings, _top)}
# By the first word and the second.
COMMANDS: Mapping[str, Mapping[str, Command]] = {
    "token": {
        "create": Command(settings.TokenCreateSettings, commands.create_token),
        "list": Command(settings.TokenListSettings, commands.list_tokens),
        "revoke": Command(settings.TokenRevokeSettings, commands.revoke_token),
    },
    "key": {
        "create": Command(settings.KeyCreateSettings, commands.create_key),
        "list": Command(settings.KeyListSettings, commands.list_keys),
        "revoke": Command(settings.KeyRevokeSettings, commands.revoke_key),
    },
    "log-level": {
        name: Command(settings.LogLevelSettings, partial(commands.set_log_level, name), says)
        for name, says in commands.LOG_LEVELS.items()
    },
}


def knows(word: str) -> bool:
    """Whether something is asked that begins with this word."""
    return word in ALONE or word in COMMANDS


def main(arguments: Sequence[str]) -> None:
    """Asks what the first words say. Exit code 0 when it was done, 1 when not, 2 for bad usage."""
    group, *rest = arguments
    program = f"{PROGRAM} {group}"
    if (command := ALONE.get(group)) is None:
        name = rest[0] if rest else "--help"
        if name in ("-h", "--help"):
            sys.stdout.write(_usage(group))
            return
        if (command := COMMANDS[group].get(name)) is None:
            fail(program, f"{name}: expected one of {', '.join(COMMANDS[group])}")
        program = f"{program} {name}"
        rest = rest[1:]
    given = load(command.settings, program=program, arguments=rest)
    set_up_logs(given.log_level, given.log_format)
    given.warn_of_plaintext()
    try:
        if (shown := asyncio.run(_ask(command, given))) is not None:
            _show(shown, as_json=given.as_json)
    except OpenlineError as refusal:
        wrong = "; ".join(f"{each.field} {each.description}" for each in refusal.error.violations)
        fail(program, f"{refusal}: {wrong}" if wrong else str(refusal), code=1)
    except OSError as failure:
        fail(program, str(failure), code=1)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


async def _ask(command: Command, given: settings.AskSettings) -> Shown | None:
    async with open_channel(given.broker, ca=given.tls_ca, cert=given.tls_cert, key=given.tls_key) as channel:
        return await command.run(given, Operator(channel, key=given.read_key()))


def _show(shown: Shown, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(shown.record, indent=1) + "\n")
        return
    sys.stdout.writelines(f"{line}\n" for line in [*shown.lines, *_table(shown.rows)])
    if shown.aside:
        sys.stderr.write(f"{shown.aside}\n")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as what is in them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _usage(group: str) -> str:
    lines = [f"usage: {PROGRAM} {group} COMMAND [flags], where `COMMAND --help` says which"]
    for name, command in COMMANDS[group].items():
        lines.append(f"  {name:<8} {(command.says or command.settings.__doc__ or '').strip()}")
    return "".join(f"{line}\n" for line in lines)
