"""Types of objects: how kubectl may be told one, and which of them a policy lets be named.

A type is known by its plural. For the built-in ones every other name is in ALIASES; for others singular and plural are
guessed as Kubernetes does, and their short names are unknown here, but for those of types that are denied by default.
A category, which stands for several types, cannot be told from such a name: so a policy should rather list what it
allows.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from openline.policy.denial import Refused, Rule, nearest, shown
from openline.policy.instead import IN_A_SHELL, TYPES_INSTEAD
from openline.policy.selection import Selection

TYPE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}(\.[A-Za-z0-9.-]{0,190})?")
# RBAC allows any character but / and % in names; these are what people use.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@~+-]{0,252}")

# Each type is a request or more, and with names one for every pair.
MAX_TYPES = 20

# No policy file can allow these.
ALWAYS_DENIED = ("secrets",)
# Custom types whose names or contents are credentials: of OpenShift, of Rancher, of Dex. A policy file may allow them.
DENIED_BY_DEFAULT = (
    "authcodes", "authrequests", "clusterregistrationtokens", "controllerconfigs", "devicerequests", "devicetokens",
    "machineconfigs", "oauth2clients", "oauthaccesstokens", "oauthauthorizetokens", "oauthclients", "offlinesessionses",
    "passwords", "refreshtokens", "signingkeies", "tokens", "useroauthaccesstokens",
)  # fmt: skip

_SHORT = {
    "certificatesigningrequests": "csr", "componentstatuses": "cs", "configmaps": "cm", "cronjobs": "cj",
    "customresourcedefinitions": "crd crds", "daemonsets": "ds", "deployments": "deploy", "endpoints": "ep",
    "events": "ev", "horizontalpodautoscalers": "hpa", "ingresses": "ing", "ipaddresses": "ip",
    "limitranges": "limits", "machineconfigs": "mc", "namespaces": "ns", "networkpolicies": "netpol", "nodes": "no",
    "persistentvolumeclaims": "pvc", "persistentvolumes": "pv", "poddisruptionbudgets": "pdb", "pods": "po",
    "priorityclasses": "pc", "replicasets": "rs", "replicationcontrollers": "rc", "resourcequotas": "quota",
    "serviceaccounts": "sa", "services": "svc", "statefulsets": "sts", "storageclasses": "sc",
    "volumeattributesclasses": "vac",
}  # fmt: skip
ALIASES = {short: plural for plural, shorts in _SHORT.items() for short in shorts.split()}
# What the API server's own types have joined; custom types may join as well.
ALL = (
    "cronjobs", "daemonsets", "deployments", "horizontalpodautoscalers", "jobs", "pods", "replicasets",
    "replicationcontrollers", "services", "statefulsets",
)  # fmt: skip
# Built-in types whose objects are in no namespace, by the names that mean them wherever they are asked for.
CLUSTER_SCOPED = (
    "apiservices", "certificatesigningrequests", "clusterrolebindings", "clusterroles", "clustertrustbundles",
    "componentstatuses", "csidrivers", "csinodes", "customresourcedefinitions", "deviceclasses", "flowschemas",
    "ingressclasses", "ipaddresses", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations", "namespaces", "nodes", "persistentvolumes", "priorityclasses",
    "prioritylevelconfigurations", "resourceslices", "runtimeclasses", "servicecidrs", "storageclasses",
    "validatingadmissionpolicies", "validatingadmissionpolicybindings", "validatingwebhookconfigurations",
    "volumeattachments", "volumeattributesclasses",
)  # fmt: skip


def types_named(arguments: Sequence[str]) -> Iterator[str]:
    """The types in `TYPE[,TYPE…] [NAME…]` or `TYPE/NAME…`, as they were written. Raises Refused for anything else."""
    if any("/" in argument for argument in arguments):
        for argument in arguments:
            yield check_pair(argument)
        return
    types = arguments[0].split(",") if arguments else []
    if len(types) > MAX_TYPES:
        raise Refused(Rule.ARGUMENTS, f"{len(types)} types are named", allowed=f"at most {MAX_TYPES}")
    for each in types:
        if TYPE.fullmatch(each) is None:
            message = f"{shown(each)} is no type of objects{_without_shell(each)}"
            raise Refused(Rule.ARGUMENTS, message, allowed="pods, deployments.apps, …")
        yield each
    for name in arguments[1:]:
        check_name(name)


def check_pair(argument: str) -> str:
    """The type in TYPE/NAME; raises Refused for what is none."""
    kind, _, name = argument.partition("/")
    if TYPE.fullmatch(kind) is None:
        message = f"{shown(argument)} is not TYPE/NAME; one slash, one type, and then in every argument"
        raise Refused(Rule.ARGUMENTS, message, allowed="TYPE NAME… or TYPE/NAME…")
    check_name(name)
    return kind


def check_name(name: str) -> None:
    """Raises Refused for what is no name of an object."""
    if NAME.fullmatch(name) is None or ".." in name:
        message = f"{shown(name)} is no name of an object: no wildcards, paths or lists{_without_shell(name)}"
        raise Refused(Rule.ARGUMENTS, message, allowed="letters, digits and -._:@~+")


def check_type(written: str, types: Selection) -> None:
    """Raises Refused for a type that the policy does not let be named, in any spelling."""
    base = written.partition(".")[0].lower()
    denied = (*ALWAYS_DENIED, *types.deny)
    named = [base, *ALL] if base == "all" else [base]
    is_listed = types.allow is None or is_among(base, types.allow)
    if not is_listed or any(is_among(name, denied) for name in named):
        allowed, guess = f"every type but {', '.join(denied)}", ""
        if types.allow is not None:
            left = [name for name in types.allow if not is_among(name, denied)]
            allowed, guess = ", ".join(left) or "no type", nearest(base, left)
        better = next((why for name, why in TYPES_INSTEAD.items() if is_among(base, (name,))), "")
        message = f"{shown(written)} may not be read here"
        raise Refused(Rule.RESOURCE, message, allowed=allowed, nearest="" if better else guess, next_step=better)


def _without_shell(word: str) -> str:
    return "; and there is no shell here" if IN_A_SHELL.search(word) else ""


def is_cluster_scoped(written: str) -> bool:
    """Whether it is a built-in type without namespaces. With a group it may be somebody's own of the same name."""
    return "." not in written and is_among(written.lower(), CLUSTER_SCOPED)


def is_among(name: str, names: tuple[str, ...]) -> bool:
    """Whether a type, in lower case and without its group, may be one of these, however each is spelled."""
    return not _spellings(name).isdisjoint(_all_spellings(names))


@lru_cache(maxsize=64)
def _all_spellings(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset().union(*map(_spellings, names))


def _spellings(name: str) -> set[str]:
    """What the plural of a name in lower case may be; more than one where that is a guess."""
    if name in ALIASES:
        return {ALIASES[name]}
    return {name, f"{name}s", f"{name}es", f"{name[:-1]}ies" if name.endswith("y") else name}
