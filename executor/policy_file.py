"""--policy FILE: a policy in YAML, and what no file can change.

Whatever it says: only verbs and flags of the tables run, secrets are never read, numbers stay below the bounds here.
"""

import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from openline.capture import MOST_OUTPUT_BYTES
from openline.policy import Masking, Output, Policy, Selection
from openline.policy.denial import nearest, shown
from openline.policy.resources import ALIASES, ALWAYS_DENIED, DENIED_BY_DEFAULT, is_among
from openline.policy.tables import VERBS
from openline.policy.wire import capabilities_of

MAX_FILE_BYTES = 64 << 10
# Of lists and mappings in each other; a policy has three.
MAX_NESTING = 8
# Brokers take capabilities of 16 KiB, labels included.
MAX_SUMMARY_BYTES = 12 << 10

# What PyYAML lets through for a tag that does not fit its text, such as `!!bool x` or the date 2026-13-45.
_GARBLED = (AttributeError, LookupError, RecursionError, TypeError, ValueError)

_MERGE = "tag:yaml.org,2002:merge"


class PolicyUnusable(Exception):
    """The file cannot be read, or does not say a policy; the message is one line."""


class _Loader(yaml.SafeLoader):
    """Refuses a name that is there twice: YAML would take the last one, and who signs the file may read the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = Counter(name.value for name, _ in node.value if isinstance(name.value, str))
        for name, count in names.items():
            if count > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{shown(name)} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuses `<<`: what it brings is overruled without a word, and may double with every use."""
        if any(name.tag == _MERGE for name, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "names are not taken over with <<", node.start_mark)


def read_policy(file: Path) -> Policy:
    """The policy that a file says; what it does not mention is as in the default. Raises PolicyUnusable.

    A file that says nothing at all is refused: it may have been emptied by mistake, or be about to be written.
    """
    text = _read(file)
    try:
        _check_nesting(text)
        said = yaml.load(text, Loader=_Loader)  # noqa: S506  (it is the safe one)
        if said is None:
            raise PolicyUnusable(f"{file} says nothing; for the default policy write {{}}")
        policy = _File.model_validate(said).policy()
    except ValidationError as mistakes:
        first = mistakes.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PolicyUnusable(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    except (yaml.YAMLError, *_GARBLED) as problem:
        raise PolicyUnusable(f"{file} is not YAML: {' '.join(str(problem).split())[:200]}") from None
    if capabilities_of(policy).ByteSize() > MAX_SUMMARY_BYTES:
        raise PolicyUnusable(f"its names have more than {MAX_SUMMARY_BYTES} bytes together")
    return policy


def _read(file: Path) -> str:
    """The text of a regular file. Never waits, not even for a named pipe."""
    try:
        with open(file, "rb", opener=_open_at_once) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise PolicyUnusable(f"{file} is not a regular file")
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as problem:
        raise PolicyUnusable(f"cannot read {file}: {problem.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise PolicyUnusable(f"{file} is longer than {MAX_FILE_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as problem:
        raise PolicyUnusable(f"{file} is not UTF-8 at byte {problem.start}") from None
    _check_looks(text)
    return text


def _check_looks(text: str) -> None:
    """Raises PolicyUnusable for what looks other than YAML reads it: U+2028 ends a comment that seems to go on."""
    for character in text.removeprefix("\ufeff").replace("\r\n", "\n"):
        if not character.isprintable() and character not in "\n\t":
            raise PolicyUnusable(f"a policy is plain text, without {shown(character)}")


def _open_at_once(file: str, flags: int) -> int:
    return os.open(file, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _check_nesting(text: str) -> None:
    """Before anything is built that calls itself for every level; raises PolicyUnusable, or what YAML raises."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_NESTING:
            raise PolicyUnusable(f"more than {MAX_NESTING} lists and mappings are in each other")


def _verbs(names: Sequence[str]) -> Sequence[str]:
    """Names of verbs, where the first of two words stands for all that begin with it."""
    found: set[str] = set()
    for name in names:
        meant = {verb for verb in VERBS if verb == name or verb.partition(" ")[0] == name}
        if not meant:
            guess = nearest(name, VERBS)
            raise ValueError(f"there is no verb {shown(name)}" + (f"; did you mean {guess}?" if guess else ""))
        found |= meant
    return sorted(found)


def _plural(name: str) -> str:
    return ALIASES.get(name, name)


def _not_always_denied(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name in ALWAYS_DENIED or f"{name}s" in ALWAYS_DENIED:
            raise ValueError(f"{name} can never be allowed")
    return names


_Type = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$"), AfterValidator(_plural)]
_Namespace = Annotated[str, Field(pattern=r"^[a-z0-9*][a-z0-9*-]{0,62}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def nothing_is_left_blank(cls, said: Any) -> Any:
        """`allow:` with nothing behind it would mean that all is allowed; it is rather a file that was cut."""
        for name, value in said.items() if isinstance(said, dict) else ():
            if value is None:
                raise ValueError(f"nothing is said after {shown(str(name))}")
        return said


class _Types(_Part):
    allow: Annotated[list[_Type], Field(min_length=1), AfterValidator(_not_always_denied)] | None = None
    deny: list[_Type] = []


class _Namespaces(_Part):
    allow: Annotated[list[_Namespace], Field(min_length=1)] | None = None
    deny: list[_Namespace] = []


class _Output(_Part):
    max_bytes: int = Field(default=Output().max_bytes, ge=1024, le=MOST_OUTPUT_BYTES)
    max_log_lines: int = Field(default=Output().max_log_lines, ge=1, le=1_000_000)
    max_log_bytes: int = Field(default=Output().max_log_bytes, ge=1024, le=64 << 20)


class _Masking(_Part):
    secrets: bool = True
    values: bool = True


class _File(_Part):
    verbs: Annotated[list[str], Field(min_length=1), AfterValidator(_verbs)] = sorted(VERBS)
    resources: _Types = _Types()
    namespaces: _Namespaces = _Namespaces()
    output: _Output = _Output()
    masking: _Masking = _Masking()

    def policy(self) -> Policy:
        return Policy(
            verbs=tuple(self.verbs),
            types=_selection(self.resources.allow, [*self.resources.deny, *self._denied_by_default()]),
            namespaces=_selection(self.namespaces.allow, self.namespaces.deny),
            output=Output(**self.output.model_dump()),
            masking=Masking(**self.masking.model_dump()),
        )

    def _denied_by_default(self) -> list[str]:
        """Whatever `deny` says, but for what `allow` names."""
        allow = tuple(self.resources.allow or ())
        return [name for name in DENIED_BY_DEFAULT if not is_among(name, allow)]


def _selection(allow: Sequence[str] | None, deny: Sequence[str]) -> Selection:
    return Selection(None if allow is None else tuple(sorted(set(allow))), tuple(sorted(set(deny))))
