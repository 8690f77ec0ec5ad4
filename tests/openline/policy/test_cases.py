"""Every row of cases.toml, judged by the default policy."""

import shlex
import tomllib
from pathlib import Path

from openline.policy import Allowed, Denied, Policy, judge
from openline.policy.wire import denied_error
from openline.reasons import NO, Reason

REMAINING_S = 10.0
MIN_ROWS = 200


def decide(line: str) -> Allowed | Denied:
    streamed = line.startswith("~")
    return judge(shlex.split(line.removeprefix("~")), Policy(), streamed=streamed, remaining_s=REMAINING_S)


def test_it_may_run_as_it_was_understood(allowed: tuple[str, str]) -> None:
    """What runs is its row's, and is written the same once more: nothing in it can be read in a second way."""
    line, becomes = allowed
    verdict = decide(line)
    assert isinstance(verdict, Allowed), verdict
    given = list(verdict.argv)
    if "--request-timeout" not in line:
        given.remove("--request-timeout=10s")
    expected = shlex.split(becomes)
    assert given == expected
    again = judge(verdict.argv, Policy(), streamed=line.startswith("~"), remaining_s=REMAINING_S)
    assert again == verdict


def test_it_may_not_run(denied: tuple[str, str]) -> None:
    """It is refused by the rule of its row, in words that can be shown, and was not executed."""
    line, rule = denied
    verdict = decide(line)
    assert isinstance(verdict, Denied), verdict
    assert verdict.rule == rule, verdict
    assert verdict.allowed
    assert (verdict.message + verdict.allowed).isprintable()
    assert len(verdict.message) < 400
    error = denied_error(verdict)
    assert (error.reason, error.executed, error.metadata["rule"]) == (Reason.POLICY_DENIED, NO, rule)


def test_there_are_many_rows_and_none_twice() -> None:
    cases = tomllib.loads((Path(__file__).parent / "cases.toml").read_text())
    rows = [line for rows in cases["allowed"].values() for line in rows]
    rows += [line for rules in cases["denied"].values() for lines in rules.values() for line in lines]
    assert len(rows) > MIN_ROWS
    assert sorted(set(rows)) == sorted(rows)
