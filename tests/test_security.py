"""What docs/security.md says of names and numbers is so, and no security rule is waived without a reason."""

import importlib
import re
from pathlib import Path

import pytest

from broker.cli_settings import KeyCreateSettings, TokenCreateSettings
from broker.core.access import RULES
from broker.core.credentials import SCOPES
from broker.settings import BrokerSettings
from executor.settings import ExecutorSettings
from gateway.settings import GatewaySettings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()
FIELDS = {
    name
    for settings in (BrokerSettings, ExecutorSettings, GatewaySettings, KeyCreateSettings, TokenCreateSettings)
    for name in settings.model_fields
}
# Each row of the table of bounds: what is shown, the module, and the name of the number in it.
BOUNDS = re.findall(r"^\| .* \| ([^|]+) \| `([a-z0-9_.]+)\.([A-Z_]+)` \|$", PAGE, re.MULTILINE)


def shown(name: str, value: float) -> str:
    """As the page has it: the unit is the end of the name."""
    if name.endswith("_BYTES"):
        if value >= 1 << 40:
            return f"{int(value) >> 40} TiB"
        return f"{int(value) >> 20} MiB" if value >= 1 << 20 else f"{int(value) >> 10} KiB"
    if name.endswith("_S"):
        return f"{value:g} s"
    return f"{value:,.0f} a second" if name.endswith("_RATE") else f"{value:,}"


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_has_every_scope() -> None:
    """And no other; each opens some method."""
    assert re.findall(r"^\| `([a-z]+)` \| ", PAGE, re.MULTILINE) == ["execute", "session", "read", "admin", "audit"]
    assert {rule.scope for rule in RULES.values() if not rule.is_open} == SCOPES


def test_the_flags_and_variables_are_there() -> None:
    flags = set(re.findall(r"--([a-z][a-z-]+)", PAGE))
    assert {flag for flag in flags if flag.replace("-", "_") not in FIELDS} == set()
    variables = set(re.findall(r"\bOPENLINE_([A-Z_]+)", PAGE))
    assert {variable for variable in variables if variable.lower() not in FIELDS} == set()
    assert len(flags) > 20


@pytest.mark.parametrize(("bound", "module", "name"), BOUNDS, ids=lambda part: str(part))
def test_a_bound_is_what_the_code_has(bound: str, module: str, name: str) -> None:
    assert bound == shown(name, getattr(importlib.import_module(module), name))


def test_every_row_of_bounds_names_its_number() -> None:
    table = PAGE.partition("| against | bound |")[2].partition("\n\n")[0]
    rows = [row for row in table.splitlines()[2:] if not row.startswith("| **")]
    assert len(rows) == len(BOUNDS) > 30


def test_the_links_lead_somewhere() -> None:
    """Those of SECURITY.md as well; also files that are named without a link."""
    for page in (ROOT / "docs" / "security.md", ROOT / "SECURITY.md"):
        for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            file = page.parent / target if target else page
            assert file.is_file(), target
            assert not anchor or anchor in anchors(file), f"{target}#{anchor}"
    named = re.findall(r"`([a-z]+/[a-z_/]+\.(?:py|yaml))`", PAGE)
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_each_security_rule_that_is_waived_says_why() -> None:
    """In words beside it, in the code and in pyproject.toml."""
    waived = [
        f"{path.relative_to(ROOT)}:{number}"
        for place in ("broker", "executor", "gateway", "protos", "demo", "loadtest", "examples", "tests")
        for path in (ROOT / place).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"# noqa: (?:[A-Z]+\d+, ?)*S\d", line) and not re.search(r"# noqa: [A-Z0-9, ]+\(.+\)", line)
    ]
    assert waived == []
    ignored = (ROOT / "pyproject.toml").read_text().partition("per-file-ignores]")[2].partition("\n[")[0]
    rules = [line for line in ignored.splitlines() if re.search(r'"S\d', line)]
    assert rules
    assert [line for line in rules if "#" not in line] == []
