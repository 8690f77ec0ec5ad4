"""Which Go templates are allowed: those that say what is in the objects, as it is, and not many times.

What text/template offers beyond that is left out: functions that build larger values from smaller ones, that call, that
remember, and every one that writes a value in another way (its bytes, its beginning, in hexadecimal), since that would
carry what looks like a credential past the masking of output.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from openline.policy.denial import Refused, Rule, shown

# Actions that read something: each can print all there is.
MAX_ACTIONS = 32
# Of range, if and with in each other; and of range alone: items, their containers, what those have.
MAX_DEPTH = 6
MAX_RANGES_DEEP = 3
# `{{print . . .}}` is put together in memory.
MAX_PRINTED = 8

OPENING = frozenset({"range", "if", "with"})
KEYWORDS = OPENING | {"else", "end", "break", "continue"}
FUNCTIONS = frozenset({"and", "eq", "ge", "gt", "index", "le", "len", "lt", "ne", "not", "or", "true", "false", "nil"})
# They build a text from several; so there may be one of them in an action, and only where it is printed at once.
PRINTING = frozenset({"print", "printf", "println"})
# Fields that are lists in every built-in type: a number behind any other may mean a byte of a text.
LISTS = frozenset({
    "accessModes", "addresses", "args", "command", "conditions", "containers", "containerStatuses", "endpoints",
    "env", "envFrom", "finalizers", "hostIPs", "imagePullSecrets", "images", "ingress", "initContainers",
    "initContainerStatuses", "items", "metrics", "ownerReferences", "paths", "podIPs", "ports", "rules", "secrets",
    "subjects", "subsets", "taints", "tls", "tolerations", "versions", "volumeMounts", "volumes",
})  # fmt: skip

# What printf may be given: values as they are, without widths, places or precisions, and no other escapes.
_FORMAT = re.compile(r'"(?:[^"\\%]|\\[nt"\\]|%[svd%])*"|`(?:[^`%]|%[svd%])*`')
_COMMENT = re.compile(r"(?:- )?/\*(?:(?!\*/).)*\*/(?: -)?\}\}")
_TOKEN = re.compile(
    r"""\s+ | (?P<text> "(?:[^"\\]|\\.)*" | `[^`]*` ) | (?P<number> [+-]?[0-9][0-9.]* )
    | (?P<path> (?:\$[A-Za-z0-9_]*)? (?:\.[A-Za-z_][A-Za-z0-9_]*)+ | \$[A-Za-z0-9_]* | \. )
    | (?P<word> [A-Za-z_][A-Za-z0-9_]* )
    | (?P<close> \) (?:\.[A-Za-z_][A-Za-z0-9_]*)* ) | (?P<sign> := | [|(,] )""",
    re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str  # a group of _TOKEN
    text: str

    @property
    def variable(self) -> str:
        """`$x` of `$x.field`; empty for what does not begin with one."""
        return self.text.partition(".")[0] if self.kind == "path" else ""

    @property
    def is_variable(self) -> bool:
        """A variable as it is: it may be a number, which `range` would count up to."""
        return self.variable == self.text


def check_go_template(template: str) -> None:
    """Raises Refused."""
    scopes = _Scopes()
    reading = 0
    for action in _actions(template):
        reading += any(token.kind == "path" for token in action)
        if reading > MAX_ACTIONS:
            raise _refused("reads too often", f"{MAX_ACTIONS} actions with fields")
        _check_words(action)
        _check_printing(action)
        _check_indexes(action)
        scopes.enter(action)


class _Scopes:
    """What is open at a place of a template, and where its variables are from.

    Within a range only what the range gives may be read, and the next range is over what the innermost one gives. So a
    template goes over each value once for every time it is written, whatever its ranges are.
    """

    def __init__(self) -> None:
        self._open: list[str] = []
        # In how many ranges a variable was declared, the fewest where it was several times.
        self._declared = {"$": 0}

    def enter(self, action: Sequence[_Token]) -> None:
        """Raises Refused for an action that may not be here."""
        first, *rest = [*(token.text for token in action), ""]
        if first == "end" and self._open:
            self._open.pop()
        ranges = self._open.count("range")
        keyword = rest[0] if first == "else" else first
        at = next((at for at, token in enumerate(action) if token.text == ":="), -1)
        declared = [token.variable for token in action[: at + 1] if token.variable]
        value = action[at + 1 :]
        used = [self._declared.get(token.variable, 0) for token in value if token.variable]
        if ranges and 0 in used:
            raise _refused("reads in a range what is outside of it", "fields of what the range goes over")
        if keyword in ("range", "with"):
            _check_goes_over(value)
            if any(depth < ranges for depth in used):
                raise _refused("goes over the same more than once", "fields of what the innermost range goes over")
        for name in declared:
            depth = ranges + 1 if keyword == "range" else min([ranges, *used])
            self._declared[name] = min(depth, self._declared.get(name, depth))
        if first in OPENING:
            self._open.append(first)
        if len(self._open) > MAX_DEPTH or self._open.count("range") > MAX_RANGES_DEEP:
            most = f"at most {MAX_DEPTH} of range, if and with in each other, {MAX_RANGES_DEEP} of them range"
            raise _refused("is nested too deeply", most)


def _check_goes_over(value: Sequence[_Token]) -> None:
    """What `range` and `with` are given can be no number: a range over one goes on as often as it says."""
    indexes = _indexes(value)
    for at, token in enumerate(value):
        is_key = any(index.value <= at < index.end for index in indexes)
        if token.text == "len" or ((token.kind == "number" or token.is_variable) and not is_key):
            raise _refused(f"goes over {shown(token.text)}", "range and with over fields: .items, $pod.spec")


def _check_words(action: Sequence[_Token]) -> None:
    known = KEYWORDS | FUNCTIONS | PRINTING
    for token in action:
        if token.kind == "word" and token.text not in known:
            raise _refused(f"uses {shown(token.text)}", " ".join(sorted(known)))


def _check_printing(action: Sequence[_Token]) -> None:
    texts = [token.text for token in action]
    printing = sum(token.kind == "word" and token.text in PRINTING for token in action)
    if printing > 1 or (printing and (texts[0] in KEYWORDS or not {"(", ":="}.isdisjoint(texts))):
        raise _refused("builds a text in the middle of an action", "print, printf, println only where they print")
    if printing and sum(token.kind not in ("sign", "close") for token in action) > MAX_PRINTED + 2:
        raise _refused("prints too much at a time", f"{MAX_PRINTED} values")
    for name, form in pairwise([*action, _Token("", "")]):
        if name.text == "printf" and name.kind == "word" and _FORMAT.fullmatch(form.text) is None:
            raise _refused(
                f"prints with {shown(form.text)}", "printf with a quoted text that has only %s, %v, %d and %%"
            )


class _Index(NamedTuple):
    """The places of `index VALUE KEY…` in an action; a VALUE in parentheses is looked at by itself."""

    word: int
    value: int  # the last token of VALUE
    end: int  # behind the last KEY


def _check_indexes(action: Sequence[_Token]) -> None:
    """`index` gives the bytes of a text for numbers: so its keys are texts, or one number behind a list."""
    for index in _indexes(action):
        kinds = [token.kind for token in action[index.value + 1 : index.end]]
        if action[index.value].text.rpartition(".")[2] in LISTS and kinds[:1] == ["number"]:
            kinds[0] = "text"
        is_fed = index.word > 0 and action[index.word - 1].text == "|"
        if is_fed or action[index.value].kind not in ("path", "close") or {*kinds} != {"text"}:
            allowed = f'index PATH "key", and a number only behind one of {" ".join(sorted(LISTS))}'
            raise _refused("may take a text apart with index", allowed)


def _indexes(action: Sequence[_Token]) -> list[_Index]:
    found = []
    for word, token in enumerate(action):
        if token == ("word", "index"):
            value, depth = word + 1, 0
            for value in range(word + 1, len(action)):
                depth += (action[value].text == "(") - (action[value].kind == "close")
                if depth <= 0:
                    break
            value = min(value, len(action) - 1)
            keys = (at for at in range(value + 1, len(action)) if action[at].kind in ("sign", "close"))
            found.append(_Index(word, value, next(keys, len(action))))
    return found


def _actions(template: str) -> Iterator[list[_Token]]:
    """The tokens of each {{action}}, as text/template reads them; what stands between actions is printed as it is."""
    at = template.find("{{")
    while at >= 0:
        at += 2
        if (comment := _COMMENT.match(template, at)) is not None:
            at = template.find("{{", comment.end())
            continue
        # `{{- ` and ` -}}` trim what stands around.
        at += template.startswith("- ", at)
        tokens: list[_Token] = []
        while not template.startswith(("}}", "-}}"), at):
            token = _TOKEN.match(template, at)
            if token is None:
                rest = shown(template[at : at + 10]) if at < len(template) else "its end"
                raise _refused(f"cannot be read at {rest}", "fields, quoted texts, numbers and a few functions")
            at = token.end()
            if token.lastgroup is not None:
                tokens.append(_Token(token.lastgroup, token.group()))
        yield tokens
        at = template.find("{{", at)


def _refused(what: str, allowed: str) -> Refused:
    return Refused(Rule.TEMPLATE, f"the template {what}", allowed=allowed)
