"""The machines, and the namespaces that divide what runs on them."""

from demo.kubernetes.kinds.kind import AGE, CREATED_AT, NAME, Column, Kind, Subresource, joined
from demo.kubernetes.objects import Obj, dig, labels_of

_ROLE_LABEL = "node-role.kubernetes.io/"


def _status(node: Obj, _: float) -> str:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in dig(node, "status.conditions", []))
    cordoned = ",SchedulingDisabled" if dig(node, "spec.unschedulable") else ""
    return ("Ready" if ready else "NotReady") + cordoned


def _roles(node: Obj, _: float) -> str:
    return joined(sorted(label.removeprefix(_ROLE_LABEL) for label in labels_of(node) if label.startswith(_ROLE_LABEL)))


def _address(node: Obj, _: float) -> str:
    addresses = dig(node, "status.addresses", [])
    return next((address["address"] for address in addresses if address["type"] == "InternalIP"), "<none>")


def _quota(bound: str) -> Column:
    """Used against hard amounts of the resources whose name does, or does not, speak of limits."""

    def show(quota: Obj, _: float) -> str:
        hard, used = dig(quota, "status.hard", {}), dig(quota, "status.used", {})
        names = [name for name in sorted(hard) if name.startswith("limits.") is (bound == "Limit")]
        return ", ".join(f"{name}: {used.get(name, '0')}/{hard[name]}" for name in names)

    return Column(bound, show)


_NODE = Kind(
    "",
    "v1",
    "Node",
    "nodes",
    (
        NAME,
        Column("Status", _status),
        Column("Roles", _roles),
        AGE,
        Column("Version", "status.nodeInfo.kubeletVersion"),
        Column("Internal-IP", _address, priority=1),
        Column("External-IP", "status.externalIP", priority=1),
        Column("OS-Image", "status.nodeInfo.osImage", priority=1),
        Column("Kernel-Version", "status.nodeInfo.kernelVersion", priority=1),
        Column("Container-Runtime", "status.nodeInfo.containerRuntimeVersion", priority=1),
    ),
    namespaced=False,
    short=("no",),
    fields=("spec.unschedulable",),
    subresources=(Subresource("status", "Node"), Subresource("proxy", "NodeProxyOptions", ())),
)

_NAMESPACE = Kind(
    "",
    "v1",
    "Namespace",
    "namespaces",
    (NAME, Column("Status", "status.phase"), AGE),
    namespaced=False,
    short=("ns",),
    fields=("status.phase",),
    subresources=(Subresource("status", "Namespace"),),
)

_RESOURCE_QUOTA = Kind(
    "",
    "v1",
    "ResourceQuota",
    "resourcequotas",
    (NAME, AGE, _quota("Request"), _quota("Limit")),
    short=("quota",),
)

_LIMIT_RANGE = Kind("", "v1", "LimitRange", "limitranges", (NAME, CREATED_AT), short=("limits",))

_LEASE = Kind(
    "coordination.k8s.io",
    "v1",
    "Lease",
    "leases",
    (NAME, Column("Holder", "spec.holderIdentity"), AGE),
)

_NODE_METRICS = Kind(
    "metrics.k8s.io",
    "v1beta1",
    "NodeMetrics",
    "nodes",
    (NAME, Column("CPU", "usage.cpu"), Column("Memory", "usage.memory"), Column("Window", "window")),
    namespaced=False,
    verbs=("get", "list"),
)

KINDS: tuple[Kind, ...] = (_NODE, _NAMESPACE, _RESOURCE_QUOTA, _LIMIT_RANGE, _LEASE, _NODE_METRICS)
