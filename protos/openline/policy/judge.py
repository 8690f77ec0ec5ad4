"""Decides whether kubectl may be run with some arguments, and with which ones it then is. Pure.

    lex ──▶ values ──▶ arguments ──▶ types, namespaces ──▶ clamps ──▶ argv

What runs is written anew from what was checked: the verb, then its arguments, then its flags as `--name=value`. No
argument begins with `-` and every flag has its `=`, so that nothing is left to read in two ways.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from openline.limits import MAX_ARGUMENT_BYTES, MAX_ARGUMENTS, MAX_ARGV_BYTES
from openline.policy import resources
from openline.policy.denial import Denied, Refused, Rule, shown
from openline.policy.instead import OF_A_SHELL, WITHOUT_A_SHELL
from openline.policy.lexer import Lexed, kinds, lex
from openline.policy.policy import Policy
from openline.policy.questions import check_field, check_question
from openline.policy.tables import CLAMPS, STREAMING, VERBS, Takes, Verb
from openline.policy.values import check_value, clamp


@dataclass(frozen=True, slots=True)
class Allowed:
    """It may run, with these arguments instead of those that were given; the program's name is not among them.

    `policy` is the one that allowed it, and says what holds for its output. `bounded` are those of the flags that make
    it smaller than it was asked for; the time that a request has is only among them where the caller gave one.
    """

    argv: tuple[str, ...]
    policy: Policy
    bounded: tuple[str, ...] = field(default=(), compare=False)


class Reading(NamedTuple):
    """What arguments say, however they are spelled."""

    verb: str
    arguments: tuple[str, ...]
    # By name, each as it is written from here on.
    flags: tuple[tuple[str, str], ...]


def read(argv: Sequence[str]) -> Reading | None:
    """How kubectl reads these arguments; None for what no policy allows to be read. Never raises.

    `judge` looks at nothing else, so arguments with the same reading run as the same.
    """
    try:
        _check_form(argv)
        lexed = lex(argv)
        return Reading(lexed.verb, lexed.positionals, tuple(sorted(_read(lexed).items())))
    except Refused:
        return None


def judge(argv: Sequence[str], policy: Policy, *, streamed: bool, remaining_s: float) -> Allowed | Denied:
    """Whether these arguments may be given to kubectl. For any list of strings; never raises.

    `streamed`: the caller reads the output as it comes, so it may never end. `remaining_s`: until the deadline.
    """
    try:
        _check_form(argv)
        lexed = lex(argv)
        if lexed.verb not in policy.verbs:
            message = f"{lexed.verb} is not allowed in this cluster"
            raise Refused(Rule.VERB, message, allowed=", ".join(policy.verbs))
        verb = VERBS[lexed.verb]
        flags = _read(lexed)
        types = list(_types(verb, lexed, flags))
        for named in types:
            resources.check_type(named, policy.types)
        if verb.is_namespaced and not (types and all(map(resources.is_cluster_scoped, types))):
            _check_namespace(flags, policy)
        _check_streaming(lexed.verb, flags, streamed=streamed)
    except Refused as refused:
        return refused.denied
    runs = {
        name: clamp(name, value, output=policy.output, streamed=streamed, remaining_s=remaining_s)
        for name, value in sorted(_complete(lexed.verb, flags, streamed=streamed).items())
    }
    written = {name: f"--{name}={value}" for name, value in runs.items()}
    asked = {"request-timeout": runs["request-timeout"], **flags}
    bounded = tuple(written[name] for name in runs if name in CLAMPS and asked.get(name) != runs[name])
    return Allowed((*lexed.verb.split(), *lexed.positionals, *written.values()), policy, bounded)


def _check_form(argv: Sequence[str]) -> None:
    if len(argv) > MAX_ARGUMENTS:
        raise Refused(Rule.FORM, f"there are {len(argv)} arguments", allowed=f"at most {MAX_ARGUMENTS}")
    whole = 0
    for index, argument in enumerate(argv):
        if not argument:
            raise Refused(Rule.FORM, f"argument {index} is empty", allowed="leave it out")
        # Surrogates, NUL, newlines, and characters that show as nothing or turn the text around.
        if not argument.isprintable():
            message = f"argument {index} has a character that cannot be printed: {shown(argument)}"
            raise Refused(Rule.FORM, message, allowed='printable characters; in a template write {"\\n"}')
        if OF_A_SHELL.fullmatch(argument):
            message = f"there is no shell here, and {shown(argument)} is nothing to kubectl"
            raise Refused(Rule.SHELL, message, allowed=WITHOUT_A_SHELL, next_step=f"Ask for {WITHOUT_A_SHELL}.")
        size = len(argument.encode())
        whole += size
        if size > MAX_ARGUMENT_BYTES or whole > MAX_ARGV_BYTES:
            allowed = f"{MAX_ARGUMENT_BYTES} bytes an argument, {MAX_ARGV_BYTES} together"
            raise Refused(Rule.FORM, f"argument {index} is too long", allowed=allowed)


def _read(lexed: Lexed) -> dict[str, str]:
    """The flags by name, each value checked, in the one way it is written from here on."""
    known = kinds(lexed.verb)
    flags: dict[str, str] = {}
    for name, given in lexed.flags:
        kind = known[name]
        value = check_value(lexed.verb, name, kind, given)
        if kind.adds_up and name in flags:
            value = check_value(lexed.verb, name, kind, f"{flags[name]},{value}")
        flags[name] = value
    return flags


def _types(verb: Verb, lexed: Lexed, flags: Mapping[str, str]) -> Iterator[str]:
    """The types of objects that are read or asked about; raises Refused for arguments that the verb does not take."""
    arguments = lexed.positionals
    yield from verb.reads
    if "for" in flags:
        yield resources.check_pair(flags["for"])
    match verb.takes:
        case Takes.OBJECTS:
            yield from resources.types_named(arguments)
        case Takes.POD:
            names = arguments
            if arguments and "/" in arguments[0]:
                yield resources.check_pair(arguments[0])
                names = arguments[1:]
            for name in names:
                resources.check_name(name)
        case Takes.NAME:
            for name in arguments:
                resources.check_name(name)
        case Takes.FIELD:
            check_field(arguments)
        case Takes.QUESTION:
            check_question(arguments)
        case Takes.NOTHING if arguments:
            message = f"{lexed.verb} takes no arguments, but {shown(arguments[0])} was given"
            raise Refused(Rule.ARGUMENTS, message, allowed=f"{lexed.verb} and flags")


def _check_namespace(flags: Mapping[str, str], policy: Policy) -> None:
    """Where a policy knows namespaces, every command must name one: nobody here knows what kubectl's default is."""
    if policy.namespaces.is_everything:
        return
    allow, deny = policy.namespaces.allow, policy.namespaces.deny
    allowed = f"-n with one of {', '.join(allow)}" if allow is not None else f"-n with any but {', '.join(deny)}"
    if flags.get("all-namespaces") == "true":
        raise Refused(Rule.NAMESPACE, "not all namespaces may be read here", allowed=allowed)
    if "namespace" not in flags:
        raise Refused(Rule.NAMESPACE, "a namespace must be named here", allowed=allowed)
    if not policy.allows_namespace(flags["namespace"]):
        message = f"the namespace {shown(flags['namespace'])} may not be read here"
        raise Refused(Rule.NAMESPACE, message, allowed=allowed)


def _check_streaming(verb: str, flags: Mapping[str, str], *, streamed: bool) -> None:
    for name in STREAMING & flags.keys():
        if flags[name] == "true" and not streamed and verb != "rollout status":
            message = f"--{name} makes a command that goes on until it is stopped: streaming calls only"
            raise Refused(Rule.STREAMING, message, allowed=f"the same without --{name}, or a streaming call")


def _complete(verb: str, flags: Mapping[str, str], *, streamed: bool) -> dict[str, str]:
    """The flags, and where they were not given those that make a command end. Zero stands for the most there may be."""
    added = {"request-timeout": "0"}
    if verb == "rollout status":
        added["timeout"] = "0"
    if verb == "logs" and not streamed:
        added["limit-bytes"] = "0"
        # With a selector kubectl takes ten lines of each pod.
        if "selector" not in flags:
            added["tail"] = "-1"
    return added | dict(flags)
