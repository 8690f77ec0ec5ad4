"""Which templates are allowed: those whose work and memory stay in proportion to the objects they print.

Output is cut where it arrives, but kubectl collects results in its own memory first. So what multiplies is bounded: in
a JSONPath the steps that yield more than they are given, and how many paths there are; and no step may take a text
apart. Go templates have a module of their own.
"""

import re

from openline.policy.denial import Refused, Rule
from openline.policy.go_templates import check_go_template

MAX_CHARACTERS = 4096
# Each `..` may visit every value below the ones before it.
MAX_DESCENTS = 2
# Names or ranges in one pair of brackets, such as ['a','b'], each yield a result.
MAX_UNIONS = 4
MAX_RANGES = 4
# Paths in braces: each can print all there is. Texts in braces, such as {"\n"}, are not counted.
MAX_PATHS = 32
# A table is laid out in memory before it is printed: 600 columns of 300 KB took 1.2 GB.
MAX_COLUMNS = 16
# Fields that are maps or lists in every built-in type: of a text a wildcard gives the bytes, which masking cannot know.
MAPS = frozenset({
    "allocatable", "annotations", "capacity", "data", "items", "labels", "limits", "matchLabels", "metadata",
    "nodeSelector", "requests", "spec", "status",
})  # fmt: skip

_BRACKETS = re.compile(r"\[[^\]]*\]?")
# Wherever it stands in its braces: `{@ range}` is one as well, and each that is not ended doubles what follows.
_RANGE = re.compile(r"(?<![.A-Za-z_-])range\b")
_PATH = re.compile(r"\{(?!\s*[\"']|\s*end\s*\})")
# `['*']` is one as well.
_WILDCARD = re.compile(r"[.']\*")
_OF_A_MAP = re.compile(rf"(?:^|(?<!\\)\.|[{{:,])(?:{'|'.join(sorted(MAPS))})\.\*")


def check_template(output: str) -> None:
    """Looks at an output format that carries a template, `jsonpath=…`; raises Refused."""
    form, _, template = output.partition("=")
    if len(template) > MAX_CHARACTERS:
        raise _refused(f"is longer than {MAX_CHARACTERS} characters", "a shorter one")
    if form in ("go-template", "template"):
        check_go_template(template)
        return
    if form == "custom-columns" and template.count(",") >= MAX_COLUMNS:
        raise _refused("has too many columns", f"at most {MAX_COLUMNS}")
    check_path(template)


def check_path(path: str) -> None:
    """The same for a JSONPath, or several in one text."""
    if len(_PATH.findall(path)) > MAX_PATHS:
        raise _refused("has too many paths", f"at most {MAX_PATHS} in braces")
    if path.count("..") > MAX_DESCENTS:
        raise _refused("goes down with `..` too often", f"at most {MAX_DESCENTS} times, or a plain path")
    if sum(part.count(",") for part in _BRACKETS.findall(path)) > MAX_UNIONS:
        raise _refused("asks for too many fields in brackets", f"at most {MAX_UNIONS} commas in brackets")
    if len(_RANGE.findall(path)) > MAX_RANGES:
        raise _refused("has too many ranges", f"at most {MAX_RANGES}")
    if len(_WILDCARD.findall(path)) > len(_OF_A_MAP.findall(path)):
        allowed = f"[*] for lists, and .* behind one of {' '.join(sorted(MAPS))}"
        raise _refused("may take a text apart with a wildcard", allowed)


def _refused(what: str, allowed: str) -> Refused:
    return Refused(Rule.TEMPLATE, f"the template {what}", allowed=allowed)
