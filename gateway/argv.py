"""What kubectl is asked: argv from the fields of a request, and which namespace wins. Pure.

`-n` is a global flag of kubectl: every verb takes it, also those for which it means nothing (version, api-resources,
api-versions, explain), so a defaulted namespace harms none of them. The policy, not this module, says what may run.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from openline.limits import MAX_ARGUMENT_BYTES, MAX_ARGUMENTS, MAX_ARGV_BYTES

DEFAULT_NAMESPACE = "default"


class Verb(StrEnum):
    """What `command_type` may be."""

    GET = "get"
    DESCRIBE = "describe"
    LOGS = "logs"
    TOP = "top"
    EVENTS = "events"
    VERSION = "version"
    API_RESOURCES = "api-resources"
    API_VERSIONS = "api-versions"
    EXPLAIN = "explain"
    ROLLOUT = "rollout"
    # Not among the old API's; kubectl's way to ask what one may do.
    AUTH = "auth"


VERBS = frozenset(Verb)

# One-letter flags that take a value, which may be glued to them: what follows one of these in its word is not a flag.
_WITH_VALUE = frozenset("cfklLosv")
# `logs -f` is the exception: it means follow, and takes none.
_WITH_VALUE_IN_LOGS = _WITH_VALUE - {"f"}


class Unacceptable(ValueError):
    """The fields do not make a request; `field` is the one to blame, and `where` it stands."""

    def __init__(self, field: str, why: str, *, where: str = "body") -> None:
        super().__init__(why)
        self.field = field
        self.where = where


@dataclass(frozen=True, slots=True)
class Scope:
    """What the arguments themselves say about namespaces."""

    namespaces: frozenset[str]
    everywhere: bool

    @property
    def is_said(self) -> bool:
        return self.everywhere or bool(self.namespaces)


def build_argv(
    verb: Verb, args: Sequence[str], *, namespace: str | None, is_explicit: bool, extra_args: Sequence[str]
) -> list[str]:
    """`[verb, *args, "-n", namespace, *extra_args]`, without `-n` where the arguments say it themselves.

    `is_explicit` tells a namespace that the caller gave from the default. Arguments win over the default; `-A` over
    any namespace, as in kubectl. Raises Unacceptable for two different explicit namespaces, or too much.
    """
    said = read_scope(verb, [*args, *extra_args])
    wanted = said.namespaces | ({namespace} if namespace and is_explicit else set())
    if len(wanted) > 1:
        raise Unacceptable("namespace", f"different namespaces were given: {', '.join(sorted(wanted))}")
    scope = ["-n", namespace] if namespace and not said.is_said else []
    # After `--` everything is a name, so the flag goes before it.
    end = args.index("--") if "--" in args else len(args)
    argv = [verb.value, *args[:end], *scope, *args[end:], *extra_args]
    check_size(argv, "args")
    return argv


def split_command(command: str) -> list[str]:
    """The words of a command as it would be typed, split as a shell splits them and nothing more; without `kubectl`."""
    try:
        words = shlex.split(command)
    except ValueError as wrong:
        raise Unacceptable("command", f"cannot be split into words: {wrong}") from None
    words = words[1:] if words[:1] == ["kubectl"] else words
    if not words:
        raise Unacceptable("command", "there is no command in it")
    if "\0" in command:
        raise Unacceptable("command", "must not contain NUL")
    check_size(words, "command")
    return words


def check_size(argv: Sequence[str], field: str) -> None:
    """Raises Unacceptable for more than any executor takes."""
    if len(argv) > MAX_ARGUMENTS:
        raise Unacceptable(field, f"the command has {len(argv)} words; at most {MAX_ARGUMENTS} are taken")
    sizes = [len(word.encode()) for word in argv]
    if max(sizes) > MAX_ARGUMENT_BYTES:
        raise Unacceptable(field, f"a word has more than {MAX_ARGUMENT_BYTES} bytes")
    if sum(sizes) > MAX_ARGV_BYTES:
        raise Unacceptable(field, f"the command has more than {MAX_ARGV_BYTES} bytes")


def read_scope(verb: Verb, words: Sequence[str]) -> Scope:
    """What the words say about namespaces, in every spelling that kubectl's flag library (pflag) takes."""
    namespaces: set[str] = set()
    everywhere = False
    for flag, value in _namespace_flags(verb, iter(words)):
        if flag == "namespace":
            namespaces.add(value)
        else:
            everywhere = value.lower() in {"true", "t", "1"}
    return Scope(frozenset(namespaces), everywhere)


def _namespace_flags(verb: Verb, words: Iterator[str]) -> Iterator[tuple[str, str]]:
    """The flags `namespace` and `all-namespaces` among the words, each with its value."""
    with_value = _WITH_VALUE_IN_LOGS if verb is Verb.LOGS else _WITH_VALUE
    for word in words:
        if word == "--":
            return
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            # kubectl takes _ for - in the names of flags.
            match name.replace("_", "-"):
                case "namespace":
                    yield "namespace", value if equals else _value_after(word, words)
                case "all-namespaces":
                    yield "all-namespaces", value if equals else "true"
        elif word.startswith("-"):
            yield from _namespace_letters(word, words, with_value)


def _namespace_letters(word: str, words: Iterator[str], with_value: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The same for a word of one-letter flags: `-A`, `-nshop`, `-n=shop`, `-Aowide`, `-An shop`."""
    for index, letter in enumerate(word[1:], start=1):
        after = word[index + 1 :]
        glued = after[1:] if after.startswith("=") else after
        if letter == "n":
            yield "namespace", glued or _value_after(word, words)
            return
        if letter in with_value:
            if not glued:
                next(words, None)
            return
        if letter == "A":
            yield "all-namespaces", glued if after.startswith("=") else "true"
        if after.startswith("="):
            return


def _value_after(word: str, words: Iterator[str]) -> str:
    value = next(words, None)
    if value is None:
        raise Unacceptable("args", f"{word} has no value")
    return value
