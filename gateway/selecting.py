"""JSONPath (RFC 9535) on a command's output, within a budget of steps. Pure, and the same each time.

A query can ask for work out of all proportion to its length: `$..*..*..*`. So every step into an object or array is
counted, where the steps happen: in the containers themselves. The same query on the same output always ends the same
way, which a bound on time could not promise; a page that was fetched later could be missing what the first had.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jsonpath import JSONPathEnvironment, JSONPathError, JSONPathMatch, NodeList
from jsonpath.function_extensions import ExpressionType, FilterFunction

from gateway.patterns import BadPattern, Pattern

MAX_QUERY_CHARS = 500
# A second or two, and some 100 MiB at worst; `$..name` on 1 MiB of pods needs half of it.
MAX_STEPS = 200_000
MAX_SELECTED_CHARS = 8 << 20


class BadQuery(ValueError):
    """The query is malformed."""


class NotSelected(Exception):
    """The query could not be applied; the message says why."""


@dataclass(frozen=True, slots=True)
class Selected:
    """The values, each as JSON on a line of its own, and how many."""

    text: str
    matches: int


def check_query(query: str) -> None:
    """Raises BadQuery."""
    _compile(query, _Budget(0))


def select(text: str, query: str, *, max_steps: int = MAX_STEPS) -> Selected:
    """What the query selects from a JSON text. Raises BadQuery and NotSelected."""
    budget = _Budget(max_steps)
    path = _compile(query, budget)
    try:
        document = _counted(json.loads(text), budget)
    except RecursionError:
        raise NotSelected("the output is nested too deeply") from None
    except ValueError:
        raise NotSelected("the output is not JSON" if text.strip() else "the output is empty") from None
    lines: list[str] = []
    left = MAX_SELECTED_CHARS
    nodes = iter([_Node(filter_context={}, obj=document, parent=None, path="$", parts=(), root=document)])
    for segment in path.segments:
        nodes = iter(segment.resolve(nodes))
    try:
        for node in nodes:
            budget.spend()
            line = _json(node.obj)
            left -= len(line) + 1
            if left < 0:
                raise NotSelected(f"the query selects more than {MAX_SELECTED_CHARS} characters")
            lines.append(line)
    except (RecursionError, JSONPathError):
        raise NotSelected("the query cannot be applied to this output") from None
    return Selected("".join(f"{line}\n" for line in lines), len(lines))


class _Budget:
    """How many steps are left."""

    __slots__ = ("left",)

    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int = 1) -> None:
        self.left -= steps
        if self.left < 0:
            raise NotSelected("the query needs too many steps on this output: be more specific than `..`")


class _Object(dict[str, Any]):
    __slots__ = ("budget", "size")
    budget: _Budget
    # How many values there are in it, at any depth.
    size: int

    def __getitem__(self, key: str) -> Any:
        self.budget.spend()
        return super().__getitem__(key)

    def items(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]  # only ever iterated
        for item in super().items():
            self.budget.spend()
            yield item

    def values(self) -> Iterator[Any]:  # type: ignore[override]
        yield from (value for _, value in self.items())


class _Array(list[Any]):
    __slots__ = ("budget", "size")
    budget: _Budget
    size: int

    def __getitem__(self, key: Any) -> Any:
        self.budget.spend(len(self) if isinstance(key, slice) else 1)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            self.budget.spend()
            yield item


def _counted(value: Any, budget: _Budget) -> Any:
    """The same document, whose containers count the steps into them."""
    if isinstance(value, dict):
        counted = _Object((name, _counted(inner, budget)) for name, inner in value.items())
        counted.budget, counted.size = budget, sum(map(_size, dict.values(counted)))
        return counted
    if isinstance(value, list):
        array = _Array([_counted(inner, budget) for inner in value])
        array.budget, array.size = budget, sum(map(_size, list.__iter__(array)))
        return array
    return value


def _size(value: object) -> int:
    return 1 + value.size if isinstance(value, _Object | _Array) else 1


def _plain(value: Any) -> Any:
    """Without counting: what is written out is bounded by its length."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in dict.items(value)}
    if isinstance(value, list):
        return [_plain(inner) for inner in list.__iter__(value)]
    return value


def _json(value: Any) -> str:
    plain = _plain(value)
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can say and UTF-8 cannot.
        return json.dumps(plain, separators=(",", ":"))
    return text


class _Node(JSONPathMatch):
    """A node that does not keep those it led to: nobody asks, and they would all stay in memory."""

    __slots__ = ()

    def add_child(self, *children: JSONPathMatch) -> None:
        pass


class _Environment(JSONPathEnvironment):
    """The RFC's functions and operators, which pay for what they do."""

    def __init__(self, budget: _Budget) -> None:
        super().__init__(strict=True)
        self._budget = budget
        self.function_extensions["match"] = _Matching(budget, whole=True)
        self.function_extensions["search"] = _Matching(budget, whole=False)

    def compare(self, left: object, operator: str, right: object) -> bool:
        # Two equal values are compared to their ends.
        self._budget.spend(min(_operand_size(left), _operand_size(right)))
        return super().compare(left, operator, right)


def _operand_size(value: object) -> int:
    if isinstance(value, NodeList):
        return sum(_operand_size(node.obj) for node in value) or 1
    return 1 + len(value) // 256 if isinstance(value, str) else _size(value)


class _Matching(FilterFunction):
    """RFC 9535's `match` and `search`, by an engine that does not backtrack."""

    arg_types = [ExpressionType.VALUE, ExpressionType.VALUE]  # noqa: RUF012  (as its base has it)
    return_type = ExpressionType.LOGICAL

    def __init__(self, budget: _Budget, *, whole: bool) -> None:
        self._budget = budget
        self._whole = whole
        self._patterns: dict[str, Pattern | None] = {}

    def __call__(self, value: object, pattern: object) -> bool:
        if not isinstance(value, str) or not isinstance(pattern, str):
            return False
        # A long text is as much work as many short ones, and compiling is more.
        self._budget.spend(1 + len(value) // 256)
        if pattern not in self._patterns:
            self._budget.spend(100)
            try:
                self._patterns[pattern] = Pattern(pattern)
            except BadPattern:
                # As the RFC has it: what is not a pattern matches nothing.
                self._patterns[pattern] = None
        compiled = self._patterns[pattern]
        if compiled is None:
            return False
        try:
            return compiled.fullmatch(value) if self._whole else compiled.search(value)
        except UnicodeEncodeError:
            return False


def _compile(query: str, budget: _Budget) -> Any:
    if len(query) > MAX_QUERY_CHARS:
        raise BadQuery(f"the query has more than {MAX_QUERY_CHARS} characters")
    try:
        return _Environment(budget).compile(_standard(query))
    except RecursionError:
        raise BadQuery("the query is nested too deeply") from None
    except (JSONPathError, ValueError) as wrong:
        # Not str(): the library's own looks for the place in the query, and fails where there is none.
        told = wrong.args[0] if wrong.args else "malformed"
        raise BadQuery(f"not a query of RFC 9535 such as $.items[*].metadata.name: {told}") from None


def _standard(query: str) -> str:
    """kubectl's way to write a path, `{.items[*].metadata.name}`, as the RFC's."""
    query = query.strip()
    if query.startswith("{") and query.endswith("}"):
        query = query[1:-1].strip()
    return f"${query}" if query.startswith((".", "[")) else query
