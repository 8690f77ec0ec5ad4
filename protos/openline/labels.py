"""The labels of a cluster, by which commands for many clusters choose: the syntax of Kubernetes' own. Pure."""

import re

# As much as fits into what a broker takes of an executor's capabilities (16 KiB), with room for the rest.
MAX_LABELS = 32
MAX_PREFIX_CHARACTERS = 253

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_KEY = re.compile(rf"(?:({_DNS_LABEL}(?:\.{_DNS_LABEL})*)/)?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")


def is_key(text: str) -> bool:
    """Such as region or example.com/region."""
    match = _KEY.fullmatch(text)
    return match is not None and len(match[1] or "") <= MAX_PREFIX_CHARACTERS


def is_value(text: str) -> bool:
    return _VALUE.fullmatch(text) is not None
