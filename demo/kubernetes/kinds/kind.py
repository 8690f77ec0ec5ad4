"""What the server has to know about a kind of object: the types of the table in this package."""

from collections.abc import Callable
from dataclasses import dataclass

from demo.kubernetes.objects import Obj, dig
from demo.kubernetes.times import ago

Cell = str | int | bool | None
Value = Callable[[Obj, float], Cell]

READ = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the Table that kubectl prints; `value` is a dotted path or a function of object and now."""

    name: str
    value: str | Value
    type: str = "string"
    priority: int = 0  # 0 is always shown, 1 with `-o wide`

    def cell(self, obj: Obj, now: float) -> Cell:
        if callable(self.value):
            return self.value(obj, now)
        found: Cell = dig(obj, self.value)
        return "<none>" if found is None or found == "" else found


@dataclass(frozen=True, slots=True)
class Subresource:
    """A path below an object, such as `pods/x/log`. Verbs that are not listed may be granted, but are refused."""

    name: str
    kind: str
    verbs: tuple[str, ...] = ("get",)


@dataclass(frozen=True, slots=True)
class Kind:
    """Everything that tells one kind from another; discovery, tables, selectors and paths all follow from it."""

    group: str
    version: str
    kind: str
    plural: str
    columns: tuple[Column, ...] = ()
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = READ
    fields: tuple[str, ...] = ()  # what a field selector may name, beyond metadata
    subresources: tuple[Subresource, ...] = ()
    stored_as: str = ""  # the key of another kind whose objects these are, as `convert` shows them
    convert: Callable[[Obj], Obj] | None = None
    schema: str = ""  # the type in schema/*.yaml, where it is not named like the kind

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def resource(self) -> str:
        """`pods`, `deployments.apps`: how the kind is stored, and how messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def key(self) -> str:
        return self.stored_as or self.resource

    @property
    def selectable(self) -> tuple[str, ...]:
        return ("metadata.name", *(("metadata.namespace",) if self.namespaced else ()), *self.fields)


def age(obj: Obj, now: float) -> str:
    return ago(obj["metadata"].get("creationTimestamp"), now)


NAME = Column("Name", "metadata.name")
AGE = Column("Age", age)
CREATED_AT = Column("Created At", "metadata.creationTimestamp", "date")


def joined(items: list[str], *, at_most: int | None = None) -> str:
    """A comma list as kubectl shows it, cut after `at_most` items."""
    if at_most is not None and len(items) > at_most:
        return f"{','.join(items[:at_most])} + {len(items) - at_most} more..."
    return ",".join(items) or "<none>"


def pairs(labels: dict[str, str] | None) -> str:
    return joined([f"{key}={value}" for key, value in sorted((labels or {}).items())])


def selector(path: str) -> Value:
    """Shows a label selector, whether it is a plain map or has `matchLabels`."""

    def show(obj: Obj, _: float) -> str:
        found = dig(obj, path) or {}
        return pairs(found.get("matchLabels") if "matchLabels" in found else found)

    return show


def count(path: str) -> Value:
    """Shows how many items a map or a list has."""
    return lambda obj, _: len(dig(obj, path) or ())


def number(path: str) -> Value:
    """Shows a number that Kubernetes leaves out when it is zero."""
    return lambda obj, _: dig(obj, path) or 0


def containers(path: str = "spec.template.spec.containers") -> tuple[Column, Column]:
    """The Containers and Images columns of whatever has a pod template."""

    def column(name: str, field: str) -> Column:
        return Column(name, lambda obj, _: joined([item[field] for item in dig(obj, path, [])]), priority=1)

    return column("Containers", "name"), column("Images", "image")
