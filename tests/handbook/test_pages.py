"""What pages say of modules, keys, promises and tests is so."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from broker.cli_settings import (
    KeyCreateSettings,
    KeyRevokeSettings,
    LogLevelSettings,
    TokenCreateSettings,
    TokenRevokeSettings,
    TopSettings,
)
from broker.settings import BrokerSettings
from broker.store import keys
from demo.settings import DemoSettings
from executor.settings import ExecutorSettings
from gateway.settings import GatewaySettings
from openline import metrics

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SETTINGS = (
    BrokerSettings, ExecutorSettings, GatewaySettings, DemoSettings,
    TokenCreateSettings, TokenRevokeSettings, KeyCreateSettings, KeyRevokeSettings, LogLevelSettings, TopSettings,
)  # fmt: skip
# Of other programs that an operator is told to run.
FOREIGN_FLAGS = {"bigkeys", "memkeys", "scan", "pattern", "tail", "help"}
PLACES = "broker|executor|gateway|protos|demo|loadtest|tests|deploy|examples|docs|handbook"


def rows(page: str, *, columns: int) -> list[list[str]]:
    """The cells of a page's first table."""
    table = page[page.index("\n|") + 1 :].partition("\n\n")[0]
    cells = [
        [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        for line in table.splitlines()[2:]
    ]
    assert {len(row) for row in cells} == {columns}
    return cells


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_a_file_that_a_page_names_is_there(page: Path) -> None:
    """In a decision as well, although it may be old."""
    named = re.findall(rf"`((?:{PLACES})/[\w./-]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_step_of_a_request_names_its_module() -> None:
    """But for a few that are about no code of their own."""
    page = (DOCS / "routing.md").read_text()
    steps = re.findall(r"^\d+\. (.*(?:\n(?:   .*))*)", page, re.MULTILINE)
    assert len(steps) > 30
    without = [step for step in steps if not re.search(r"`[a-z]+/[\w/]+\.py`", step)]
    assert len(without) <= 7, without
    assert len(set(re.findall(r"`([a-z]+/[\w/]+\.py)`", page))) > 40


def test_the_page_has_every_key_in_redis() -> None:
    """Those of `broker/store/keys.py`, with the same name, and no other."""
    functions = [function for _, function in inspect.getmembers(keys, inspect.isfunction)]
    made = {function(*(f"<{name}>" for name in inspect.signature(function).parameters)) for function in functions}
    fixed = {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}
    shown = [row[0].strip("`") for row in rows((DOCS / "redis.md").read_text(), columns=6)]
    assert sorted(shown) == sorted(made | fixed)
    assert len(shown) > 20


def test_lives_and_bounds_of_keys_are_what_the_code_has() -> None:
    shown = {row[0].strip("`"): row[3] + " " + row[5] for row in rows((DOCS / "redis.md").read_text(), columns=6)}
    for key, said in {
        keys.active("<cluster_id>"): f"{keys.ACTIVE_S} s",
        keys.seen("<cluster_id>"): f"{keys.SEEN_S // 86400} days",
        keys.presence("<cluster_id>"): f"{keys.PRESENCE_S} s",
        keys.MARK: {86400: "a day"}[keys.AGREED_S],
        keys.TOKENS: f"{keys.MAX_TOKENS:,}",
        keys.API_KEYS: f"{keys.MAX_API_KEYS:,}",
        keys.owned_sessions("<owner>"): {7200: "two hours"}[keys.OWNED_SESSIONS_S],
        keys.owned_commands("<owner>"): f"{keys.MAX_OWNED_COMMANDS:,}",
        keys.session_commands("<session_id>"): f"{keys.MAX_GROUPED_COMMANDS:,}",
        keys.conversation_commands("<owner>", "<correlation_id>"): f"{keys.MAX_GROUPED_COMMANDS:,}",
        keys.quota("<digest>"): f"{keys.QUOTA_S} s",
    }.items():
        assert said in shown[key], key


def test_each_promise_has_its_tests() -> None:
    """The README's promises, word for word; every test that proves one is there, and every outage's test proves one."""
    promises = rows((DOCS / "promises.md").read_text(), columns=3)
    readme = (ROOT / "README.md").read_text().partition("## Promises")[2]
    assert [row[:2] for row in promises] == [row[:2] for row in rows(readme, columns=2)]
    tests = {
        part.name
        for path in (ROOT / "tests" / "e2e").glob("test_*.py")
        for part in ast.walk(ast.parse(path.read_text()))
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for when, _, proof in promises:
        named = re.findall(r"`(test_\w+)`", proof)
        assert named, when
        assert [name for name in named if name not in tests] == []


def test_memory_of_executors_is_said_alike() -> None:
    """Where it is sized, where a command is lost, and in the flag's help."""
    page = (DOCS / "operating.md").read_text()
    assert page.count("50 MiB for each") == 2
    assert f"`--max-concurrency`, {ExecutorSettings.model_fields['max_concurrency'].default})" in page


@pytest.mark.parametrize("name", ["operating", "quick-start", "concepts", "routing", "redis"])
def test_a_flag_that_a_page_names_is_there(name: str) -> None:
    """Of one of the programs, of what an operator asks with, or of somebody else's that is named above."""
    fields = {field.validation_alias or name for settings in SETTINGS for name, field in settings.model_fields.items()}
    flags = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*[a-z])(?![\w…-])", (DOCS / f"{name}.md").read_text()))
    assert {flag for flag in flags if flag.replace("-", "_") not in fields} <= FOREIGN_FLAGS


def test_a_metric_that_a_page_names_is_there() -> None:
    """Also without a scrape's suffix."""
    known = {metric.name for metric in (*metrics.BROKER, *metrics.GATEWAY)}
    named = {
        (page.name, metric)
        for page in DOCS.glob("*.md")
        for metric in re.findall(r"\bopenline_(?:broker|gateway)_[a-z_]+", page.read_text())
    }
    assert len(named) > 20
    assert {
        (page, metric) for page, metric in named if re.sub("_(bucket|sum|count)$", "", metric) not in known
    } == set()
