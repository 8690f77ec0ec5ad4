"""The tables and the rendering held against the real kubectl: the newest one, and facts about the one before it."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from demo.kubectl import kubectl_path
from openline.policy import Allowed, Policy, judge
from openline.policy.tables import BOOL, DENIED, GLOBAL, SHORT, SHORT_IN, VERBS

Kubectl = Callable[..., CompletedProcess[str]]

HERE = Path(__file__).parent
# What help says of a flag: its letter, its name, its default.
FLAG = re.compile(r"^    (?:-(?P<letter>\w), )?--(?P<name>[a-z0-9-]+)=(?P<default>.*):$", re.MULTILINE)
AGE = re.compile(r"\b(?:\d+[dhms])+\b| +")
TRIES = 4
# Not the rows about names alone, which find nothing, nor those that never end.
RUN = ("outputs", "flags-in-every-spelling", "selecting", "types", "logs", "the-other-verbs")


def flags_of_1_36(verb: str) -> set[str]:
    """The flags of a verb in the minor version before the newest, written down; "" for those of every verb."""
    facts = tomllib.loads((HERE / "kubectl-1.36.toml").read_text())
    return set(facts[verb or "every verb"].split())


@pytest.fixture(scope="module")
def help_of(at_once: ThreadPoolExecutor) -> dict[str, str]:
    """What the newest kubectl says of its flags, by verb; under "" of those that every verb takes."""

    def ask(verb: str) -> str:
        command = [str(kubectl_path()), *(verb.split() or ["options"]), *(["--help"] if verb else [])]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout

    verbs = ["", *VERBS]
    return dict(zip(verbs, at_once.map(ask, verbs), strict=True))


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_flag_of_every_verb_has_a_verdict(verb: str, help_of: dict[str, str]) -> None:
    """In both versions: it is allowed, or it is known why not. And what is allowed exists in at least one of them."""
    allowed = {*(VERBS[verb].flags if verb else ()), *GLOBAL}
    newest = {flag["name"] for flag in FLAG.finditer(help_of[verb])}
    assert newest or VERBS[verb].flags == {}
    both = newest | flags_of_1_36(verb)
    assert both - allowed - DENIED.keys() == set()
    assert allowed - both - GLOBAL.keys() == set()


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_flags_have_the_letters_and_the_kinds_that_kubectl_says(verb: str, help_of: dict[str, str]) -> None:
    """A flag is a switch here exactly where it is one there: else the next word would be read differently."""
    letters = {**SHORT, **SHORT_IN.get(verb, {})}
    kinds = {**(VERBS[verb].flags if verb else {}), **GLOBAL}
    for flag in FLAG.finditer(help_of[verb]):
        name = flag["name"]
        if flag["letter"]:
            assert letters[flag["letter"]] == name
        if name in kinds:
            assert (kinds[name] is BOOL) == (flag["default"] in ("true", "false")), name


def comparable(run: CompletedProcess[str]) -> tuple[int, str, str]:
    """Without ages, which pass, and the columns that widen with them."""
    return run.returncode, AGE.sub(" ", run.stdout), AGE.sub(" ", run.stderr)


def test_what_runs_prints_what_was_asked_for(kubectl: Kubectl, at_once: ThreadPoolExecutor) -> None:
    """Every allowed row, as it was typed and as it was written anew, against the demo's API server."""
    cases = tomllib.loads((HERE / "cases.toml").read_text())
    lines = [line for rows in RUN for line in cases["allowed"][rows]]

    # Rows that run as the same have one of them run for all.
    verdicts = [judge(shlex.split(line), Policy(), streamed=False, remaining_s=10.0) for line in lines]
    argvs = [verdict.argv for verdict in verdicts if isinstance(verdict, Allowed)]
    distinct = sorted(set(argvs))
    printed = dict(zip(distinct, at_once.map(lambda argv: comparable(kubectl(*argv)), distinct), strict=True))

    def differs(line: str, argv: tuple[str, ...]) -> str:
        ours = printed[argv]
        for _ in range(TRIES):  # the cluster moves on between the two
            asked = comparable(kubectl(*shlex.split(line)))
            if asked == ours:
                return ""
            ours = comparable(kubectl(*argv))
        return f"{line}: {asked} is not {ours}"

    assert [wrong for wrong in at_once.map(differs, lines, argvs) if wrong] == []
    assert len(lines) > 60
