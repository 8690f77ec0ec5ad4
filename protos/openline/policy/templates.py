"""Which templates are allowed: those whose work and memory stay in proportion to the objects they print.

Output is cut where it arrives, but kubectl collects results in its own memory first. So what multiplies is bounded: in
a JSONPath the steps that yield more than they are given, in a Go template everything that can build a larger value from
a smaller one, call itself, or remember. Functions that only change how a value looks are left out as well, since they
would hide what looks like a credential from the masking of output.
"""

import re
from collections.abc import Iterator

from openline.policy.denial import Refused, Rule, shown

MAX_CHARACTERS = 4096
# Each `..` may visit every value below the ones before it.
MAX_DESCENTS = 2
# Names or ranges in one pair of brackets, such as ['a','b'], each yield a result.
MAX_UNIONS = 4
MAX_RANGES = 4
MAX_DEPTH = 4
# A table is laid out in memory before it is printed: 600 columns of 300 KB took 1.2 GB.
MAX_COLUMNS = 16
# `{{print . . .}}` is put together in memory as well.
MAX_PRINTED = 8

KEYWORDS = frozenset({"range", "if", "else", "with", "end", "break", "continue"})
FUNCTIONS = frozenset({"and", "eq", "ge", "gt", "index", "le", "len", "lt", "ne", "not", "or", "true", "false", "nil"})
# They build a text from several; so there may be one of them in an action, and only where it is printed at once.
PRINTING = frozenset({"print", "printf", "println"})

_BRACKETS = re.compile(r"\[[^\]]*\]?")
_RANGE = re.compile(r"\{\s*range\b")
# In a format of printf: a value that is named by its place, and may be so many times; a width that is a value.
_INDEXED = re.compile(r"%[^A-Za-z%]*[\[*]")
_TOKEN = re.compile(
    r"""\s+ | (?P<text> "(?:[^"\\]|\\.)*" ) | (?P<number> [+-]?[0-9][0-9.]* )
    | (?P<path> (?:\$[A-Za-z0-9_]*)? (?:\.[A-Za-z_][A-Za-z0-9_]*)+ | \$[A-Za-z0-9_]* | \. )
    | (?P<word> [A-Za-z_][A-Za-z0-9_]* ) | (?P<sign> := | [|(),] )""",
    re.VERBOSE,
)


def check_template(output: str) -> None:
    """Looks at an output format that carries a template, `jsonpath=…`; raises Refused."""
    form, _, template = output.partition("=")
    if len(template) > MAX_CHARACTERS:
        raise _refused(f"is longer than {MAX_CHARACTERS} characters", "a shorter one")
    if form in ("go-template", "template"):
        _check_go(template)
        return
    if form == "custom-columns" and template.count(",") >= MAX_COLUMNS:
        raise _refused("has too many columns", f"at most {MAX_COLUMNS}")
    check_path(template)


def check_path(path: str) -> None:
    """The same for a JSONPath, or several in one text."""
    if path.count("..") > MAX_DESCENTS:
        raise _refused("goes down with `..` too often", f"at most {MAX_DESCENTS} times, or a plain path")
    if sum(part.count(",") for part in _BRACKETS.findall(path)) > MAX_UNIONS:
        raise _refused("asks for too many fields in brackets", f"at most {MAX_UNIONS} commas in brackets")
    if len(_RANGE.findall(path)) > MAX_RANGES:
        raise _refused("has too many ranges", f"at most {MAX_RANGES}")


def _check_go(template: str) -> None:
    depth = 0
    for action in _actions(template):
        words = [token for name, token in action if name == "word"]
        first = action[0][1] if action else ""
        opens = first in ("range", "if", "with")
        depth += opens - (first == "end")
        if depth > MAX_DEPTH:
            raise _refused("is nested too deeply", f"at most {MAX_DEPTH} of range, if and with in each other")
        for word in words:
            if word not in KEYWORDS | FUNCTIONS | PRINTING:
                known = " ".join(sorted(KEYWORDS | FUNCTIONS | PRINTING))
                raise _refused(f"uses {shown(word)}", known)
        printing = sum(word in PRINTING for word in words)
        signs = {token for name, token in action if name == "sign"}
        if printing > 1 or (printing and (first in KEYWORDS or signs & {"(", ":="})):
            raise _refused("builds a text in the middle of an action", "print, printf, println only where they print")
        values = [token for name, token in action if name != "sign"]
        if printing and (len(values) > MAX_PRINTED + 2 or any(map(_INDEXED.search, values))):
            raise _refused("prints too much at a time", f"{MAX_PRINTED} values, each once, in their order")


def _actions(template: str) -> Iterator[list[tuple[str, str]]]:
    """The tokens of each {{action}}, as text/template reads them; what stands between actions is printed as it is."""
    at = template.find("{{")
    while at >= 0:
        at += 2
        # `{{- ` and ` -}}` trim what stands around.
        at += template.startswith("- ", at)
        tokens: list[tuple[str, str]] = []
        while not template.startswith(("}}", "-}}"), at):
            token = _TOKEN.match(template, at)
            if token is None:
                rest = shown(template[at : at + 10]) if at < len(template) else "its end"
                raise _refused(f"cannot be read at {rest}", "fields, quoted texts, numbers and a few functions")
            at = token.end()
            if token.lastgroup is not None:
                tokens.append((token.lastgroup, token.group()))
        yield tokens
        at = template.find("{{", at)


def _refused(what: str, allowed: str) -> Refused:
    return Refused(Rule.TEMPLATE, f"the template {what}", allowed=allowed)
