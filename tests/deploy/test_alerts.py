"""The alert rules, as promtool tries them: when they fire, and when they do not."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.prometheus import found

HERE = Path(__file__).parents[2] / "deploy/prometheus"
ALERTS = [
    rule["alert"] for group in yaml.safe_load((HERE / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([found("promtool"), *arguments], capture_output=True, text=True, timeout=120)


def test_promtool_takes_the_rules() -> None:
    checked = promtool("check", "rules", "--lint-fatal", HERE / "alerts.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_they_fire_when_they_should_and_not_else() -> None:
    tried = promtool("test", "rules", HERE / "alerts_test.yaml")
    assert tried.returncode == 0, tried.stdout + tried.stderr


def test_every_one_fires_in_a_test() -> None:
    """It is expected to, and not only named."""
    tests = yaml.safe_load((HERE / "alerts_test.yaml").read_text())["tests"]
    assert {name for each in tests for name in firing(each)} == set(ALERTS)


def firing(test: dict[str, Any]) -> Iterator[str]:
    """The alerts that one of the tests wants to fire."""
    yield from (each["alertname"] for each in test.get("alert_rule_test", ()) if each["exp_alerts"])
    for asked in test.get("promql_expr_test", ()):
        for sample in asked["exp_samples"]:
            yield from re.findall(r'alertname="(\w+)"', sample["labels"])


def test_a_rule_that_no_longer_fires_is_noticed(tmp_path: Path) -> None:
    rules = (HERE / "alerts.yaml").read_text()
    (tmp_path / "alerts.yaml").write_text(
        rules.replace('{outcome="lost"}[10m])) >= 3', '{outcome="lost"}[10m])) >= 300')
    )
    (tmp_path / "alerts_test.yaml").write_text((HERE / "alerts_test.yaml").read_text())
    tried = promtool("test", "rules", tmp_path / "alerts_test.yaml")
    assert tried.returncode != 0
    assert "OpenlineCommandsLost" in tried.stdout + tried.stderr
