"""What kubectl is asked: argv from the fields of a request, and which namespace wins. Pure.

`-n` is a global flag of kubectl: every verb takes it, also those for which it means nothing (version, api-resources,
api-versions, explain), so a defaulted namespace harms none of them. The policy, not this module, says what may run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from openline.errors import short
from openline.policy.denial import Refused, Rule
from openline.policy.lexer import lex
from openline.words import Unacceptable as Unacceptable
from openline.words import check_size as check_size
from openline.words import split_command as split_command

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


@dataclass(frozen=True, slots=True)
class Scope:
    """What the arguments themselves say about namespaces."""

    namespaces: frozenset[str]
    everywhere: bool

    @property
    def is_said(self) -> bool:
        return self.everywhere or bool(self.namespaces)


def build_argv(
    verb: str, args: Sequence[str], *, namespace: str | None, is_explicit: bool, extra_args: Sequence[str]
) -> list[str]:
    """`[verb, *args, "-n", namespace, *extra_args]`, without `-n` where the arguments say it themselves.

    `is_explicit` tells a namespace that the caller gave from the default. Arguments win over the default; `-A` over
    any namespace, as in kubectl. Raises Unacceptable for two different explicit namespaces, or too much.
    """
    said = read_scope(verb, [*args, *extra_args])
    wanted = said.namespaces | ({namespace} if namespace and is_explicit else set())
    if len(wanted) > 1:
        raise Unacceptable("namespace", f"different namespaces were given: {short(', '.join(sorted(wanted)))}")
    argv = [str(verb), *args]
    if namespace and not said.is_said:
        # After `--` everything is a name, so the flag goes before it.
        end = argv.index("--") if "--" in argv else len(argv)
        argv[end:end] = ["-n", namespace]
    argv += extra_args
    check_size(argv, "args")
    return argv


def read_scope(verb: str, words: Sequence[str]) -> Scope:
    """What the words say about namespaces, read as the policy reads them; nothing, where it will deny them anyway.

    Raises Unacceptable for a flag that ends without its value: it would swallow whatever is appended.
    """
    try:
        flags = lex([verb, *words]).flags
    except Refused as refused:
        if refused.denied.rule is Rule.VALUE:
            raise Unacceptable("args", refused.denied.message) from None
        return Scope(frozenset(), everywhere=False)
    # The last one counts, as in kubectl.
    everywhere = dict(flags).get("all-namespaces", "false").lower() in {"true", "t", "1"}
    return Scope(frozenset(value for name, value in flags if name == "namespace"), everywhere)
