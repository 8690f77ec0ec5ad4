"""What an executor says of itself, believed within bounds: whoever looks at clusters is shown it, callers or not."""

import re

from openline.labels import MAX_LABELS, is_key, is_value
from openline.v1 import executor_service_pb2

# What an executor says of itself is kept while it is connected, and written to Redis every few seconds.
MAX_DESCRIPTION_BYTES = 16 << 10
MAX_VERSION_CHARACTERS = 100

_VERSION = re.compile(rf"[!-~]{{1,{MAX_VERSION_CHARACTERS}}}")


def versions_of(said: executor_service_pb2.Versions, *, protocol: int) -> executor_service_pb2.Versions:
    """Without what can be no version; `protocol` is what is spoken, whatever the executor says."""
    return executor_service_pb2.Versions(
        executor=_version(said.executor),
        kubectl=_version(said.kubectl),
        kubernetes=_version(said.kubernetes),
        protocol=protocol,
    )


def leave_out_labels(said: executor_service_pb2.Capabilities) -> None:
    """Those that can be none, and more than there may be: they are shown to models, and are no place for sentences."""
    labels = [(key, value) for key, value in sorted(said.labels.items()) if is_key(key) and is_value(value)]
    if len(labels) < len(said.labels) or len(labels) > MAX_LABELS:
        said.labels.clear()
        said.labels.update(labels[:MAX_LABELS])


def _version(text: str) -> str:
    return text if _VERSION.fullmatch(text) else ""
