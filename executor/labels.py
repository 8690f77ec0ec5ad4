"""The labels of a cluster, by which commands for many clusters choose: the syntax of Kubernetes' own. Pure."""

import re
from collections.abc import Sequence

# As much as fits into what a broker takes of an executor's capabilities (16 KiB), with room for the rest.
MAX_LABELS = 32
MAX_PREFIX_CHARACTERS = 253

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_KEY = re.compile(rf"(?:({_DNS_LABEL}(?:\.{_DNS_LABEL})*)/)?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")


def check_labels(labels: Sequence[str]) -> Sequence[str]:
    """Labels as `key=value`. Raises ValueError for what Kubernetes would not take, and for a key that comes twice."""
    if len(labels) > MAX_LABELS:
        raise ValueError(f"at most {MAX_LABELS} labels")
    keys = set()
    for label in labels:
        key, equals, value = label.partition("=")
        match = _KEY.fullmatch(key)
        if not equals or match is None or len(match[1] or "") > MAX_PREFIX_CHARACTERS:
            raise ValueError(f"expected KEY=VALUE with a key such as region or example.com/region, got {label[:80]!r}")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"not a label's value, which has up to 63 of a-z, A-Z, 0-9, -, _ and .: {value[:80]!r}")
        if key in keys:
            raise ValueError(f"{key!r} is given twice")
        keys.add(key)
    return labels
