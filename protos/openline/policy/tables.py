"""What kubectl may be asked: every verb, every flag, every kind of value that is allowed. Data, and nothing else.

What is not here is denied, so that tomorrow's new flag is denied on the day it appears. `DENIED` is no part of that
rule: it says why, for the flags that somebody will ask for. docs/policy.md shows these tables to people.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Kind:
    """What a flag's value looks like. `shape` matches the whole of it; `expected` says so to people."""

    shape: re.Pattern[str]
    expected: str
    # May be given several times, and then means all of them together; of any other flag the last one counts.
    adds_up: bool = False


class Takes(Enum):
    """What a verb's arguments are, beside its flags."""

    NOTHING = "nothing"
    OBJECTS = "TYPE[,TYPE…] [NAME…] or TYPE/NAME…"
    POD = "[TYPE/]NAME [CONTAINER]"
    NAME = "[NAME]"
    FIELD = "TYPE[.FIELD…]"
    QUESTION = "VERB TYPE[/NAME] or VERB /URL"


class Clamp(Enum):
    """What bounds a number from above, where the caller's own is larger or none."""

    REMAINING = auto()  # the time that is left until the deadline
    WAITING = auto()  # a little less, so that kubectl ends by itself and says that it has waited in vain
    LOG_LINES = auto()  # the policy's `output.max_log_lines`
    LOG_BYTES = auto()  # the policy's `output.max_log_bytes`
    CHUNK = auto()
    REQUESTS = auto()


def _kind(shape: str, expected: str, *, adds_up: bool = False) -> Kind:
    return Kind(re.compile(shape), expected, adds_up)


BOOL = _kind(r"1|t|T|TRUE|true|True|0|f|F|FALSE|false|False", "true or false")
NAMESPACE = _kind(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "the name of a namespace: a-z, 0-9 and -")
CONTAINER = _kind(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "the name of a container: a-z, 0-9 and -")
SELECTOR = _kind(r"[A-Za-z0-9!][A-Za-z0-9._/,=!()<> -]{0,1023}", "a label selector such as app=web,tier!=cache")
FIELDS = _kind(r"[A-Za-z][A-Za-z0-9._/,=!:@\\ -]{0,1023}", "a field selector such as status.phase=Running")
NUMBER = _kind(r"0|[1-9][0-9]{0,9}", "a number")
LINES = _kind(r"-1|0|[1-9][0-9]{0,14}", "a number of lines, or -1 for all")
DURATION = _kind(r"0|([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h)){1,4}", "a duration such as 30s, 5m or 1h30m")
TIMEOUT = _kind(r"[0-9]{1,9}|([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h)){1,4}", "a duration such as 30s, 5m or 1h30m")
INSTANT = _kind(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})",
    "an instant such as 2026-01-31T12:00:00Z",
)
OUTPUT = _kind(r"[^-].*", "an output format")
PATH = _kind(r"[.{A-Za-z$\[].{0,255}", "a JSONPath such as .metadata.name")
USAGE_KEY = _kind(r"cpu|memory", "cpu or memory")
TYPE_KEY = _kind(r"name|kind", "name or kind")
SUBRESOURCE = _kind(r"status|scale", "status or scale")
WORD = _kind(r"[A-Za-z][A-Za-z0-9-]{0,62}", "a word")
WORDS = _kind(r"[A-Za-z][A-Za-z0-9-]{0,62}(,[A-Za-z][A-Za-z0-9-]{0,62}){0,31}", "words with commas", adds_up=True)
LABELS = _kind(r"[A-Za-z0-9][A-Za-z0-9._/,-]{0,1023}", "keys of labels with commas", adds_up=True)
GROUP = _kind(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?", "the name of an API group; empty for the core group")
GROUP_VERSION = _kind(r"([a-z0-9][a-z0-9.-]{0,251}/)?v[a-z0-9]{1,31}", "an API version such as apps/v1")
ABOUT = _kind(r"[A-Za-z][A-Za-z0-9.-]{0,252}/[A-Za-z0-9_][A-Za-z0-9_.:@~+-]{0,252}", "TYPE/NAME, such as pod/web-0")

SHORT = {
    "A": "all-namespaces", "L": "label-columns", "R": "recursive", "c": "container", "f": "filename", "h": "help",
    "k": "kustomize", "l": "selector", "n": "namespace", "o": "output", "p": "previous", "q": "quiet", "s": "server",
    "v": "v", "w": "watch",
}  # fmt: skip
# `logs` is the only verb in which a letter means something else.
SHORT_IN = {"logs": {"f": "follow"}}

# These may stand before the verb as well: kubectl knows them before it knows the verb.
BEFORE = {"namespace": NAMESPACE, "request-timeout": TIMEOUT, "warnings-as-errors": BOOL}
# Every verb takes these. Before it, `--help` would take the verb for its value.
GLOBAL = {**BEFORE, "help": BOOL}

# Output formats; those that end in "=" carry a template. Every format that reads a file is missing.
PLAIN = ("json", "kyaml", "yaml")
TEMPLATES = ("go-template=", "jsonpath-as-json=", "jsonpath=", "template=")
OBJECTS = (*PLAIN, "name", *TEMPLATES)

_PRINTED = {"output": OUTPUT, "allow-missing-template-keys": BOOL, "show-managed-fields": BOOL}


@dataclass(frozen=True, slots=True)
class Verb:
    """One command of kubectl: what may be said to it, beside GLOBAL."""

    takes: Takes
    flags: Mapping[str, Kind] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    # Types of objects that it reads whatever its arguments are.
    reads: tuple[str, ...] = ()
    # Whether what it reads is in a namespace.
    is_namespaced: bool = False


VERBS = {
    "api-resources": Verb(Takes.NOTHING, {
        "api-group": GROUP, "cached": BOOL, "categories": WORDS, "namespaced": BOOL, "no-headers": BOOL,
        "output": OUTPUT, "show-managed-fields": BOOL, "sort-by": TYPE_KEY, "verbs": WORDS,
    }, outputs=(*PLAIN, "name", "wide")),
    "api-versions": Verb(Takes.NOTHING),
    "auth can-i": Verb(Takes.QUESTION, {
        "all-namespaces": BOOL, "list": BOOL, "no-headers": BOOL, "quiet": BOOL, "subresource": WORD,
    }),
    "auth whoami": Verb(Takes.NOTHING, {**_PRINTED}, outputs=OBJECTS),
    "cluster-info": Verb(Takes.NOTHING, reads=("services",), is_namespaced=True),
    "describe": Verb(Takes.OBJECTS, {
        "all-namespaces": BOOL, "chunk-size": NUMBER, "selector": SELECTOR, "show-events": BOOL,
    }, is_namespaced=True),
    "events": Verb(Takes.NOTHING, {
        **_PRINTED, "all-namespaces": BOOL, "chunk-size": NUMBER, "for": ABOUT, "no-headers": BOOL, "types": WORDS,
        "watch": BOOL,
    }, outputs=OBJECTS, reads=("events",), is_namespaced=True),
    "explain": Verb(Takes.FIELD, {
        "api-version": GROUP_VERSION, "max-depth": NUMBER, "output": OUTPUT, "recursive": BOOL,
    }, outputs=("plaintext", "plaintext-openapiv2")),
    "get": Verb(Takes.OBJECTS, {
        **_PRINTED, "all-namespaces": BOOL, "chunk-size": NUMBER, "field-selector": FIELDS, "ignore-not-found": BOOL,
        "label-columns": LABELS, "no-headers": BOOL, "output-watch-events": BOOL, "selector": SELECTOR,
        "server-print": BOOL, "show-kind": BOOL, "show-labels": BOOL, "sort-by": PATH, "subresource": SUBRESOURCE,
        "watch": BOOL, "watch-only": BOOL,
    }, outputs=(*OBJECTS, "custom-columns=", "wide"), is_namespaced=True),
    "logs": Verb(Takes.POD, {
        "all-containers": BOOL, "all-pods": BOOL, "container": CONTAINER, "follow": BOOL, "ignore-errors": BOOL,
        "limit-bytes": NUMBER, "max-log-requests": NUMBER, "pod-running-timeout": DURATION, "prefix": BOOL,
        "previous": BOOL, "selector": SELECTOR, "since": DURATION, "since-time": INSTANT, "tail": LINES,
        "timestamps": BOOL,
    }, reads=("pods",), is_namespaced=True),
    "rollout history": Verb(Takes.OBJECTS, {
        **_PRINTED, "revision": NUMBER, "selector": SELECTOR,
    }, outputs=OBJECTS, is_namespaced=True),
    "rollout status": Verb(Takes.OBJECTS, {
        "revision": NUMBER, "selector": SELECTOR, "timeout": DURATION, "watch": BOOL,
    }, is_namespaced=True),
    "top nodes": Verb(Takes.NAME, {
        "no-headers": BOOL, "selector": SELECTOR, "show-capacity": BOOL, "show-swap": BOOL, "sort-by": USAGE_KEY,
        "use-protocol-buffers": BOOL,
    }, reads=("nodes",)),
    "top pods": Verb(Takes.NAME, {
        "all-namespaces": BOOL, "containers": BOOL, "field-selector": FIELDS, "no-headers": BOOL,
        "selector": SELECTOR, "show-swap": BOOL, "sort-by": USAGE_KEY, "sum": BOOL, "use-protocol-buffers": BOOL,
    }, reads=("pods",), is_namespaced=True),
    "version": Verb(Takes.NOTHING, {"client": BOOL, "output": OUTPUT}, outputs=("json", "yaml")),
}  # fmt: skip
# Other names of sub-verbs.
SUB_VERB_ALIASES = {"top": {"pod": "pods", "po": "pods", "node": "nodes", "no": "nodes"}}

# These make a command go on until somebody stops it: only for callers who read along. `rollout status` is no such
# command, although it watches: it has a --timeout, and without watching it would call an unfinished rollout a success.
STREAMING = frozenset({"follow", "watch", "watch-only"})
# Flags whose value is bounded from above; `judge` adds those that make a command end where they were not given.
CLAMPS = {
    "chunk-size": Clamp.CHUNK, "limit-bytes": Clamp.LOG_BYTES, "max-log-requests": Clamp.REQUESTS,
    "pod-running-timeout": Clamp.REMAINING, "request-timeout": Clamp.REMAINING, "tail": Clamp.LOG_LINES,
    "timeout": Clamp.WAITING,
}  # fmt: skip
MAX_CHUNK = 500
MAX_LOG_REQUESTS = 20

_FILE, _ENDPOINT = "it names a file", "it names an endpoint, and the executor has one"
_IDENTITY = "it names an identity or a credential, and the executor has one"
_NOISE = "it prints requests and their headers"
_USELESS = "nothing that is asked here needs it"
DENIED = {
    "as": _IDENTITY, "as-group": _IDENTITY, "as-uid": _IDENTITY, "as-user-extra": _IDENTITY, "token": _IDENTITY,
    "username": _IDENTITY, "password": _IDENTITY, "user": _IDENTITY, "context": _IDENTITY, "cluster": _IDENTITY,
    "server": _ENDPOINT, "proxy-url": _ENDPOINT, "tls-server-name": _ENDPOINT,
    "cache-dir": _FILE, "certificate-authority": _FILE, "client-certificate": _FILE, "client-key": _FILE,
    "filename": _FILE, "kubeconfig": _FILE, "kuberc": _FILE, "kustomize": _FILE, "log-dir": _FILE, "log-file": _FILE,
    "profile": "it writes a file", "profile-output": "it writes a file", "recursive": "it belongs to --filename",
    "insecure-skip-tls-verify": "it trusts anybody", "insecure-skip-tls-verify-backend": "it trusts anybody",
    "raw": "it asks any path of the API, which no table describes",
    "template": "it may name a file; -o go-template=… says the same",
    "alsologtostderr": _NOISE, "logtostderr": _NOISE, "v": _NOISE, "vmodule": _NOISE,
    "disable-compression": _USELESS, "log-flush-frequency": _USELESS, "match-server-version": _USELESS,
}  # fmt: skip
