"""Which commands may run: a deny-by-default table of verbs and flags. Pure.

A stop-gap that refuses too much rather than too little, until a policy reads kubectl's own flag definitions. A flag
that is not in the table is denied, in any spelling; so no flag can name a file, an endpoint, a credential or another
identity.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openline import limits
from openline.errors import error
from openline.reasons import Reason
from openline.v1 import command_pb2

# Verb -> its sub-verbs; None: it has none, and what follows are its arguments.
VERBS: dict[str, frozenset[str] | None] = {
    "api-resources": None,
    "api-versions": None,
    "auth": frozenset({"can-i", "whoami"}),
    "cluster-info": frozenset(),  # not `dump`, which writes files and reads everything
    "describe": None,
    "events": None,
    "explain": None,
    "get": None,
    "logs": None,
    "rollout": frozenset({"history", "status"}),
    "top": None,
    "version": None,
}

# Flags that mean the same wherever kubectl has them; where it does not, kubectl refuses them itself. Not `subresource`:
# `get node x --subresource=proxy` is a request to a kubelet.
# fmt: off
VALUE_FLAGS = frozenset({
    "api-group", "api-version", "categories", "chunk-size", "container", "field-selector", "for", "label-columns",
    "limit-bytes", "max-log-requests", "namespace", "output", "pod-running-timeout", "request-timeout", "revision",
    "selector", "since", "since-time", "sort-by", "tail", "timeout", "types", "verbs",
})
BOOL_FLAGS = frozenset({
    "all-containers", "all-namespaces", "all-pods", "cached", "client", "containers", "ignore-errors",
    "ignore-not-found", "list", "namespaced", "no-headers", "prefix", "previous", "quiet", "recursive",
    "server-print", "show-capacity", "show-events", "show-kind", "show-labels", "show-managed-fields", "show-swap",
    "sum", "timestamps",
})
# fmt: on
# Flags that make a command go on until somebody stops it: for callers who read along. Anybody may switch them off.
# `rollout status` without the flag watches too, but it ends by itself.
STREAMING_FLAGS: dict[str, frozenset[str]] = {
    "events": frozenset({"watch"}),
    "get": frozenset({"watch", "watch-only"}),
    "logs": frozenset({"follow"}),
    "rollout": frozenset({"watch"}),
}
STREAMING_NAMES = frozenset().union(*STREAMING_FLAGS.values())
SHORT_VALUE_FLAGS = {"L": "label-columns", "c": "container", "l": "selector", "n": "namespace", "o": "output"}
SHORT_BOOL_FLAGS = {"A": "all-namespaces", "p": "previous", "q": "quiet"}
SHORT_STREAMING_FLAGS = {"f": "follow", "w": "watch"}

# Output formats that read no file; those that end in "=" carry their template inline.
OUTPUTS = frozenset({"json", "kyaml", "name", "plaintext", "plaintext-openapiv2", "wide", "yaml"})
TEMPLATES = ("custom-columns=", "go-template=", "jsonpath-as-json=", "jsonpath=")

_ALLOWED_FLAGS = " ".join(
    [
        *(f"--{name}" for name in sorted(VALUE_FLAGS | BOOL_FLAGS)),
        *(f"-{c}" for c in SHORT_VALUE_FLAGS | SHORT_BOOL_FLAGS),
    ]
)


class _Refused(Exception):
    """Carries the error out of the parser."""

    def __init__(self, why: command_pb2.Error) -> None:
        self.why = why


@dataclass(frozen=True, slots=True)
class _Streaming:
    """Which of a verb's flags only streaming calls may have, and whether this is one."""

    flags: frozenset[str]
    live: bool

    def check(self, name: str, flag: str) -> None:
        """Whether the flag `name`, written as `flag`, may be switched on."""
        if name not in self.flags:
            raise _denied_flag(flag)
        if not self.live:
            message = f"{flag} makes a command that goes on until it is stopped: streaming calls only"
            raise _denied("streaming", message, allowed=f"the same without {flag}, or a streaming call")


def check(argv: Sequence[str], *, live: bool = False) -> command_pb2.Error | None:
    """Why kubectl may not be run with these arguments (the program's name not among them); None when it may.

    `live`: the caller reads the output as it comes.
    """
    try:
        _check_form(argv)
        verb, arguments = argv[0], list(argv[1:])
        if verb not in VERBS:
            raise _denied("verb", f"the verb {verb[:40]!r} is not allowed", allowed=" ".join(VERBS))
        if (sub_verbs := VERBS[verb]) is not None:
            _check_sub_verb(verb, sub_verbs, arguments)
        names = list(_positional(iter(arguments), _Streaming(STREAMING_FLAGS.get(verb, frozenset()), live)))
        if verb in ("get", "describe"):
            _check_types(names)
    except _Refused as refused:
        return refused.why
    return None


def _check_form(argv: Sequence[str]) -> None:
    if not argv or not argv[0]:
        raise _malformed("argv", "expected a verb such as `get`")
    if len(argv) > limits.MAX_ARGUMENTS:
        raise _malformed("argv", f"more than {limits.MAX_ARGUMENTS} arguments")
    sizes = [len(argument.encode()) for argument in argv]
    if sum(sizes) > limits.MAX_ARGV_BYTES:
        raise _malformed("argv", f"more than {limits.MAX_ARGV_BYTES} bytes together")
    for index, argument in enumerate(argv):
        if sizes[index] > limits.MAX_ARGUMENT_BYTES:
            raise _malformed(f"argv[{index}]", f"more than {limits.MAX_ARGUMENT_BYTES} bytes")
        if "\0" in argument:
            raise _malformed(f"argv[{index}]", "has a NUL byte")


def _check_sub_verb(verb: str, sub_verbs: frozenset[str], arguments: list[str]) -> None:
    """The sub-verb must come first: kubectl skips flags and what it takes for their values to find it."""
    if sub_verbs and (not arguments or arguments[0] not in sub_verbs):
        allowed = " ".join(f"{verb} {sub_verb}" for sub_verb in sorted(sub_verbs))
        raise _denied("sub-verb", f"{verb} must be followed by one of: {', '.join(sorted(sub_verbs))}", allowed=allowed)
    if not sub_verbs and arguments:
        raise _denied("sub-verb", f"{verb} takes no arguments here", allowed=verb)


def _positional(arguments: Iterator[str], streaming: _Streaming) -> Iterator[str]:
    """The arguments that are not flags; refuses flags that are not in the table. Reads as kubectl's parser does."""
    for argument in arguments:
        if argument == "--":
            raise _denied_flag(argument)
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            if name in VALUE_FLAGS:
                _check_value(name, value if equals else _next(arguments, argument))
            elif name in BOOL_FLAGS and (not equals or value in ("true", "false")):
                continue
            elif not (name in STREAMING_NAMES and value == "false"):
                if equals and value != "true":
                    raise _denied_flag(f"--{name}")
                streaming.check(name, f"--{name}")
        elif argument.startswith("-") and argument != "-":
            _check_short(argument[1:], arguments, streaming)
        else:
            yield argument


def _check_short(letters: str, arguments: Iterator[str], streaming: _Streaming) -> None:
    """`-A`, `-Ap`, `-n shop`, `-nshop`, `-n=shop`, `-Aojson`: the first letter that takes a value takes the rest."""
    for index, letter in enumerate(letters):
        if letter in SHORT_VALUE_FLAGS:
            rest = letters[index + 1 :]
            value = rest.removeprefix("=") if rest else _next(arguments, f"-{letter}")
            return _check_value(SHORT_VALUE_FLAGS[letter], value)
        if letter not in SHORT_BOOL_FLAGS:
            streaming.check(SHORT_STREAMING_FLAGS.get(letter, ""), f"-{letter}")
    return None


def _check_value(name: str, value: str) -> None:
    if name == "output" and value not in OUTPUTS and not value.startswith(TEMPLATES):
        allowed = " ".join([*sorted(OUTPUTS), *TEMPLATES])
        raise _denied("output-format", "this output format is not allowed", allowed=allowed)


def _check_types(names: Sequence[str]) -> None:
    """Refuses secrets, as TYPE, TYPE/NAME, in a list, in any case, with a version or group behind a dot."""
    for index, name in enumerate(names):
        for part in name.split(","):
            kind, slash, _ = part.partition("/")
            # Without a slash only the first argument names types; the others are names of objects.
            if (index == 0 or slash) and kind.lower().partition(".")[0] in ("secret", "secrets"):
                raise _denied("secrets", "secrets may not be read", allowed="every other kind of object")


def _next(arguments: Iterator[str], flag: str) -> str:
    value = next(arguments, None)
    if value is None:
        raise _malformed("argv", f"{flag[:40]} needs a value")
    return value


def _malformed(field: str, description: str) -> _Refused:
    return _Refused(error(Reason.INVALID_COMMAND, f"{field}: {description}", violations=[(field, description)]))


def _denied(rule: str, message: str, *, allowed: str) -> _Refused:
    return _Refused(error(Reason.POLICY_DENIED, message, metadata={"rule": rule, "allowed": allowed}))


def _denied_flag(flag: str) -> _Refused:
    return _denied("flag", f"the flag {flag[:40]} is not allowed", allowed=_ALLOWED_FLAGS)
