"""Label and field selectors: parsed once into predicates over objects."""

import re
from collections.abc import Callable

from demo.kubernetes.errors import BadRequest
from demo.kubernetes.objects import Obj, dig, labels_of

Predicate = Callable[[Obj], bool]

_KEY = r"(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_VALUE = r"[A-Za-z0-9_.-]*"

# One requirement of a label selector; the first pattern that fits gives its meaning.
_EXISTS = re.compile(rf"(?P<absent>!?)\s*(?P<key>{_KEY})")
_EQUALS = re.compile(rf"(?P<key>{_KEY})\s*(?P<operator>==|=|!=)\s*(?P<value>{_VALUE})")
_AMONG = re.compile(rf"(?P<key>{_KEY})\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_COMPARES = re.compile(rf"(?P<key>{_KEY})\s*(?P<operator>[<>])\s*(?P<value>-?\d+)")


def everything(_: Obj) -> bool:
    return True


def labels(text: str) -> Predicate:
    """A label selector: `app=web,tier!=cache,env in (a,b),!legacy`. Raises BadRequest when it cannot be parsed."""
    requirements = [_requirement(part.strip()) for part in re.split(r",(?![^()]*\))", text)] if text else []
    return lambda obj: all(holds(labels_of(obj)) for holds in requirements)


def _requirement(text: str) -> Callable[[dict[str, str]], bool]:
    if found := _EXISTS.fullmatch(text):
        key, wanted = found["key"], not found["absent"]
        return lambda labels: (key in labels) is wanted
    if found := _EQUALS.fullmatch(text):
        key, value, equal = found["key"], found["value"], found["operator"] != "!="
        return lambda labels: (labels.get(key) == value) is equal
    if found := _AMONG.fullmatch(text):
        key, inside = found["key"], found["operator"] == "in"
        values = {value.strip() for value in found["values"].split(",")}
        return lambda labels: (labels.get(key) in values) is inside
    if found := _COMPARES.fullmatch(text):
        key, limit, sign = found["key"], int(found["value"]), 1 if found["operator"] == ">" else -1
        return lambda labels: _number(labels.get(key)) is not None and sign * (int(labels[key]) - limit) > 0
    raise BadRequest(f"unable to parse requirement: couldn't parse {text!r} as a label selector requirement")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def fields(text: str, *, known: tuple[str, ...]) -> Predicate:
    """A field selector over the fields that the kind knows. Raises BadRequest for another field or a malformed term."""
    terms: list[tuple[str, bool, str]] = []
    for term in filter(None, text.split(",")):
        found = re.fullmatch(r"(?P<field>[^=!]+?)(?P<operator>==|=|!=)(?P<value>[^=]*)", term)
        if not found:
            raise BadRequest(f"invalid selector: '{text}'; can't understand '{term}'")
        if found["field"] not in known:
            raise BadRequest(f'field label not supported: "{found["field"]}"')
        terms.append((found["field"], found["operator"] != "!=", found["value"]))
    return lambda obj: all((_text(dig(obj, field)) == value) is equal for field, equal, value in terms)


def _text(value: object) -> str:
    """As the API server compares it: absent is empty, booleans in lower case."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
