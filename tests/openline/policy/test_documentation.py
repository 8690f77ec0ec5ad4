"""docs/policy.md says what the tables say."""

from pathlib import Path

import pytest
import yaml

from executor.policy_file import read_policy
from openline.policy import Policy, Rule
from openline.policy.__main__ import renewed

DOCUMENT = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()


def test_the_tables_are_those_of_this_version() -> None:
    """Else: `python -m openline.policy docs/policy.md`."""
    assert renewed(DOCUMENT) == DOCUMENT
    with pytest.raises(ValueError, match="there is no"):
        renewed("nothing")


def test_every_rule_is_explained() -> None:
    assert [rule for rule in Rule if f"`{rule}`" not in DOCUMENT] == []


def test_the_default_that_is_spelled_out_is_the_default(tmp_path: Path) -> None:
    example = DOCUMENT.partition("```yaml\n")[2].partition("```")[0]
    assert yaml.safe_load(example)
    (tmp_path / "policy.yaml").write_text(example)
    assert read_policy(tmp_path / "policy.yaml") == Policy()
