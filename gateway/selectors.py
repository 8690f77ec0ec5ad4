"""Label selectors, as kubectl's `-l` has them: `env=prod,tier!=db,region in (eu, us),gpu,!spot`. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_SELECTOR_CHARS = 1_000

_KEY = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_VALUE = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EQUAL = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})?")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")
_VALUE_ALONE = re.compile(_VALUE)
_COMMA = re.compile(r"\s*,\s*")


class BadSelector(ValueError):
    """Not a selector; the message says what was not understood."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Of one label: that it has one of these values, or is there at all (None); or the contrary."""

    key: str
    values: frozenset[str] | None
    is_wanted: bool

    def fits(self, labels: Mapping[str, str]) -> bool:
        has = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return has is self.is_wanted


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements, all of which must hold."""

    requirements: tuple[Requirement, ...]

    def fits(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.fits(labels) for requirement in self.requirements)


def parse_selector(text: str) -> Selector:
    """Raises BadSelector; also for an empty one, which would mean every cluster there is."""
    text = text.strip()
    if not text or len(text) > MAX_SELECTOR_CHARS:
        raise BadSelector(f"a selector has 1 to {MAX_SELECTOR_CHARS} characters")
    requirements: list[Requirement] = []
    at = 0
    while True:
        requirement, at = _requirement(text, at)
        requirements.append(requirement)
        if at == len(text):
            return Selector(tuple(requirements))
        if not (comma := _COMMA.match(text, at)):
            raise BadSelector(f"not understood: {text[at : at + 40]!r}")
        at = comma.end()


def _requirement(text: str, at: int) -> tuple[Requirement, int]:
    if match := _SET.match(text, at):
        values = [value.strip() for value in match[3].split(",")]
        wrong = [value for value in values if value and not _VALUE_ALONE.fullmatch(value)]
        if wrong:
            raise BadSelector(f"not a label's value: {wrong[0][:40]!r}")
        return Requirement(match[1], frozenset(values), match[2] == "in"), match.end()
    if match := _EQUAL.match(text, at):
        return Requirement(match[1], frozenset({match[3] or ""}), match[2] != "!="), match.end()
    if match := _EXISTS.match(text, at):
        return Requirement(match[2], None, not match[1]), match.end()
    raise BadSelector(f"not understood: {text[at : at + 40]!r}")
