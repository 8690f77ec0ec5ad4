"""The table of kinds: every kind that the server knows, described once and as data."""

from demo.kubernetes.kinds import access, custom, events, network, nodes, pods, storage, workloads
from demo.kubernetes.kinds.kind import Column, Kind, Subresource

__all__ = ["BY_KIND", "BY_PLURAL", "KINDS", "Column", "Kind", "Subresource"]

# In the order in which clients prefer them: a short name such as `pods` means the first that matches.
KINDS: tuple[Kind, ...] = (
    *pods.KINDS,
    *nodes.KINDS,
    *network.KINDS,
    *storage.KINDS,
    *workloads.KINDS,
    *access.KINDS,
    *events.KINDS,
    *custom.KINDS,
)

BY_PLURAL: dict[tuple[str, str, str], Kind] = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
BY_KIND: dict[tuple[str, str], Kind] = {(kind.api_version, kind.kind): kind for kind in KINDS}
