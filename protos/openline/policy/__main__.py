"""Prints the tables for docs/policy.md: `python -m openline.policy`, or `python -m openline.policy FILE` to renew them.

In a file they stand between two lines of comment, and nothing else of it is touched.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from openline.policy.go_templates import (
    FUNCTIONS,
    LISTS,
    MAX_ACTIONS,
    MAX_DEPTH,
    MAX_PRINTED,
    MAX_RANGES_DEEP,
    PRINTING,
)
from openline.policy.resources import ALIASES, ALWAYS_DENIED, CLUSTER_SCOPED, DENIED_BY_DEFAULT, MAX_TYPES
from openline.policy.tables import BEFORE, CLAMPS, DENIED, GLOBAL, SHORT, SHORT_IN, STREAMING, VERBS, Kind, Takes
from openline.policy.templates import MAPS, MAX_CHARACTERS, MAX_COLUMNS, MAX_DESCENTS, MAX_PATHS, MAX_RANGES, MAX_UNIONS

BEGIN = "<!-- from here on: python -m openline.policy docs/policy.md -->"
END = "<!-- up to here -->"


def tables() -> str:
    """All tables as Markdown."""
    return "\n".join([*_verbs(), "", *_values(), "", *_denied(), "", *_numbers()])


def renewed(text: str) -> str:
    """A document with the tables of this version between the marks. Raises ValueError for one without marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} with {END} behind it")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def _verbs() -> Iterator[str]:
    yield "### Verbs and their flags"
    yield ""
    yield f"Every verb also takes {_flags('', GLOBAL)}; before the verb there may be {_flags('', BEFORE)}."
    yield ""
    yield "| verb | arguments | flags | output formats |"
    yield "|---|---|---|---|"
    for name, verb in VERBS.items():
        arguments = "none" if verb.takes is Takes.NOTHING else f"`{verb.takes.value}`".replace("|", r"\|")
        formats = " ".join(f"`{each}…`" if each.endswith("=") else f"`{each}`" for each in verb.outputs)
        yield f"| `{name}` | {arguments} | {_flags(name, verb.flags) or 'none'} | {formats or 'its own'} |"
    yield ""
    yield f"Only on streamed calls: {' '.join(f'`--{name}`' for name in sorted(STREAMING))}."
    yield f"Bounded from above: {' '.join(f'`--{name}`' for name in sorted(CLAMPS))}."


def _flags(verb: str, flags: Mapping[str, Kind]) -> str:
    letters = {name: letter for letter, name in {**SHORT, **SHORT_IN.get(verb, {})}.items()}
    return " ".join(f"`-{letters[name]}, --{name}`" if name in letters else f"`--{name}`" for name in flags)


def _values() -> Iterator[str]:
    yield "### Values"
    yield ""
    yield "| flags | a value is | and matches |"
    yield "|---|---|---|"
    by_kind: dict[Kind, set[str]] = {}
    for flags in (GLOBAL, *(verb.flags for verb in VERBS.values())):
        for name, kind in flags.items():
            by_kind.setdefault(kind, set()).add(name)
    for kind, names in by_kind.items():
        shape = kind.shape.pattern.replace("|", r"\|")
        yield f"| {' '.join(f'`--{name}`' for name in sorted(names))} | {kind.expected} | `{shape}` |"


def _denied() -> Iterator[str]:
    yield "### Flags that are denied, and why"
    yield ""
    yield "Every other flag is denied as well; of these it is known what for."
    yield ""
    yield "| because | flags |"
    yield "|---|---|"
    for why in dict.fromkeys(DENIED.values()):
        yield f"| {why} | {' '.join(f'`--{name}`' for name in DENIED if DENIED[name] == why)} |"


def _numbers() -> Iterator[str]:
    yield "### Types and templates"
    yield ""
    yield f"- Always denied: {', '.join(ALWAYS_DENIED)}."
    yield f"- Denied unless a policy file says otherwise: {', '.join(DENIED_BY_DEFAULT)}."
    yield f"- Without a namespace, so that none need be named: {', '.join(CLUSTER_SCOPED)}."
    yield f"- Short names that are known: {', '.join(f'`{short}` {plural}' for short, plural in ALIASES.items())}."
    yield f"- At most {MAX_TYPES} types in a list, and {MAX_COLUMNS} custom columns."
    yield f"- A template has at most {MAX_CHARACTERS} characters."
    yield f"- A JSONPath has at most {MAX_PATHS} paths in braces, {MAX_DESCENTS} times `..`, {MAX_UNIONS} commas in"
    yield f"  brackets and {MAX_RANGES} ranges."
    yield f"- Behind these fields it may have `.*`: {' '.join(f'`{name}`' for name in sorted(MAPS))}."
    yield f"- A Go template has at most {MAX_ACTIONS} actions with fields, {MAX_DEPTH} of `range`, `if` and `with` in"
    yield f"  each other, {MAX_RANGES_DEEP} of them `range`, and {MAX_PRINTED} values that are printed in one action."
    yield f"- Its functions: {' '.join(f'`{name}`' for name in sorted(FUNCTIONS | PRINTING))}."
    yield f"- Behind these fields `index` takes a number: {' '.join(f'`{name}`' for name in sorted(LISTS))}."


if __name__ == "__main__":
    if len(sys.argv) > 1:
        file = Path(sys.argv[1])
        file.write_text(renewed(file.read_text()))
    else:
        sys.stdout.write(tables() + "\n")
