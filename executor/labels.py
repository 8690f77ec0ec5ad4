"""The labels that an executor is given for its cluster. Pure."""

from collections.abc import Sequence

from openline.labels import MAX_LABELS, is_key, is_value


def check_labels(labels: Sequence[str]) -> Sequence[str]:
    """Labels as `key=value`. Raises ValueError for what Kubernetes would not take, and for a key that comes twice."""
    if len(labels) > MAX_LABELS:
        raise ValueError(f"at most {MAX_LABELS} labels")
    keys = set()
    for label in labels:
        key, equals, value = label.partition("=")
        if not equals or not is_key(key):
            raise ValueError(f"expected KEY=VALUE with a key such as region or example.com/region, got {label[:80]!r}")
        if not is_value(value):
            raise ValueError(f"not a label's value, which has up to 63 of a-z, A-Z, 0-9, -, _ and .: {value[:80]!r}")
        if key in keys:
            raise ValueError(f"{key!r} is given twice")
        keys.add(key)
    return labels
