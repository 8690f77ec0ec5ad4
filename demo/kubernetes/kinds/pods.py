"""Pods and what is measured of them."""

from demo.kubernetes.kinds.kind import AGE, NAME, Column, Kind, Subresource
from demo.kubernetes.objects import Obj, dig
from demo.kubernetes.times import ago


def _ready(pod: Obj, _: float) -> str:
    statuses = dig(pod, "status.containerStatuses", [])
    return f"{sum(status['ready'] for status in statuses)}/{len(pod['spec']['containers'])}"


def _status(pod: Obj, _: float) -> str:
    """The reason that tells most: of the first container that has one, or else the pod's phase."""
    shown = str(dig(pod, "status.reason") or dig(pod, "status.phase", "Unknown"))
    running = False
    for status in reversed(dig(pod, "status.containerStatuses", [])):
        state = status["state"]
        if "waiting" in state:
            shown = state["waiting"]["reason"]
        elif "terminated" in state:
            shown = state["terminated"]["reason"]
        else:
            running = running or status["ready"]
    return "Running" if shown == "Completed" and running else shown


def _restarts(pod: Obj, now: float) -> str:
    statuses = dig(pod, "status.containerStatuses", [])
    total = sum(status["restartCount"] for status in statuses)
    ended = [dig(status, "lastState.terminated.finishedAt") for status in statuses]
    latest = max(filter(None, ended), default=None)
    return f"{total} ({ago(latest, now)} ago)" if total and latest else str(total)


_POD = Kind(
    "",
    "v1",
    "Pod",
    "pods",
    (
        NAME,
        Column("Ready", _ready),
        Column("Status", _status),
        Column("Restarts", _restarts),
        AGE,
        Column("IP", "status.podIP", priority=1),
        Column("Node", "spec.nodeName", priority=1),
        Column("Nominated Node", "status.nominatedNodeName", priority=1),
        Column("Readiness Gates", "spec.readinessGates", priority=1),
    ),
    short=("po",),
    categories=("all",),
    fields=(
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    subresources=(
        Subresource("log", "Pod"),
        Subresource("status", "Pod"),
        Subresource("exec", "PodExecOptions", ()),
        Subresource("attach", "PodAttachOptions", ()),
        Subresource("portforward", "PodPortForwardOptions", ()),
        Subresource("proxy", "PodProxyOptions", ()),
        Subresource("eviction", "Eviction", ()),
    ),
)

_POD_METRICS = Kind(
    "metrics.k8s.io",
    "v1beta1",
    "PodMetrics",
    "pods",
    (
        NAME,
        Column("CPU", lambda metrics, _: _sum(metrics, "cpu", unit="n")),
        Column("Memory", lambda metrics, _: _sum(metrics, "memory", unit="Ki")),
        Column("Window", "window"),
    ),
    verbs=("get", "list"),
)


def _sum(metrics: Obj, resource: str, *, unit: str) -> str:
    return f"{sum(int(container['usage'][resource].removesuffix(unit)) for container in metrics['containers'])}{unit}"


KINDS: tuple[Kind, ...] = (_POD, _POD_METRICS)
