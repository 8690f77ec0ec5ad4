"""What makes pods, keeps them and scales them."""

from demo.kubernetes.kinds.kind import AGE, NAME, Column, Kind, Subresource, containers, number, selector
from demo.kubernetes.objects import Obj, dig
from demo.kubernetes.times import ago, human, instant


def _of(wanted: str, ready: str) -> Column:
    return Column("Ready", lambda obj, _: f"{dig(obj, ready, 0)}/{dig(obj, wanted, 0)}")


def _subresources(kind: str) -> tuple[Subresource, ...]:
    return (Subresource("status", kind), Subresource("scale", "Scale", ()))


def _condition(finished: Obj, kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in dig(finished, "status.conditions", []))


def _run_status(run: Obj, _: float) -> str:
    return next((kind for kind in ("Complete", "Failed", "Suspended") if _condition(run, kind)), "Running")


def _run_duration(run: Obj, now: float) -> str:
    started, completed = dig(run, "status.startTime"), dig(run, "status.completionTime")
    if not started:
        return ""
    return human((instant(completed) if completed else now) - instant(started))


def _last_schedule(cron: Obj, now: float) -> str:
    last = dig(cron, "status.lastScheduleTime")
    return ago(last, now) if last else "<none>"


def _controller(revision: Obj, _: float) -> str:
    owners = revision["metadata"].get("ownerReferences", [])
    return next((f"{o['kind'].lower()}.apps/{o['name']}" for o in owners), "<none>")


def _scaled(autoscaler: Obj, _: float) -> str:
    target = dig(autoscaler, "spec.scaleTargetRef", {})
    return f"{target['kind']}/{target['name']}"


def _targets(autoscaler: Obj, _: float) -> str:
    current = {
        metric["resource"]["name"]: dig(metric, "resource.current.averageUtilization")
        for metric in dig(autoscaler, "status.currentMetrics", [])
    }
    shown = []
    for metric in dig(autoscaler, "spec.metrics", []):
        name, wanted = metric["resource"]["name"], dig(metric, "resource.target.averageUtilization")
        measured = f"{current[name]}%" if name in current else "<unknown>"
        shown.append(f"{name}: {measured}/{wanted}%")
    return ", ".join(shown)


_SELECTOR = Column("Selector", selector("spec.selector"), priority=1)
_READY_OF_DESIRED = _of("spec.replicas", "status.readyReplicas")

KINDS: tuple[Kind, ...] = (
    Kind(
        "apps",
        "v1",
        "Deployment",
        "deployments",
        (
            NAME,
            _READY_OF_DESIRED,
            Column("Up-to-date", number("status.updatedReplicas"), "integer"),
            Column("Available", number("status.availableReplicas"), "integer"),
            AGE,
            *containers(),
            _SELECTOR,
        ),
        short=("deploy",),
        categories=("all",),
        subresources=_subresources("Deployment"),
    ),
    Kind(
        "apps",
        "v1",
        "ReplicaSet",
        "replicasets",
        (
            NAME,
            Column("Desired", number("spec.replicas"), "integer"),
            Column("Current", number("status.replicas"), "integer"),
            Column("Ready", number("status.readyReplicas"), "integer"),
            AGE,
            *containers(),
            _SELECTOR,
        ),
        short=("rs",),
        categories=("all",),
        fields=("status.replicas",),
        subresources=_subresources("ReplicaSet"),
    ),
    Kind(
        "apps",
        "v1",
        "StatefulSet",
        "statefulsets",
        (NAME, _READY_OF_DESIRED, AGE, *containers()),
        short=("sts",),
        categories=("all",),
        subresources=_subresources("StatefulSet"),
    ),
    Kind(
        "apps",
        "v1",
        "DaemonSet",
        "daemonsets",
        (
            NAME,
            Column("Desired", number("status.desiredNumberScheduled"), "integer"),
            Column("Current", number("status.currentNumberScheduled"), "integer"),
            Column("Ready", number("status.numberReady"), "integer"),
            Column("Up-to-date", number("status.updatedNumberScheduled"), "integer"),
            Column("Available", number("status.numberAvailable"), "integer"),
            Column("Node Selector", selector("spec.template.spec.nodeSelector")),
            AGE,
            *containers(),
            _SELECTOR,
        ),
        short=("ds",),
        categories=("all",),
        subresources=(Subresource("status", "DaemonSet"),),
    ),
    Kind(
        "apps",
        "v1",
        "ControllerRevision",
        "controllerrevisions",
        (NAME, Column("Controller", _controller), Column("Revision", "revision", "integer"), AGE),
    ),
    Kind(
        "batch",
        "v1",
        "Job",
        "jobs",
        (
            NAME,
            Column("Status", _run_status),
            Column(
                "Completions",
                lambda run, _: f"{dig(run, 'status.succeeded', 0)}/{dig(run, 'spec.completions', 1)}",
            ),
            Column("Duration", _run_duration),
            AGE,
            *containers(),
            _SELECTOR,
        ),
        categories=("all",),
        fields=("status.successful",),
        subresources=(Subresource("status", "Job"),),
    ),
    Kind(
        "batch",
        "v1",
        "CronJob",
        "cronjobs",
        (
            NAME,
            Column("Schedule", "spec.schedule"),
            Column("Timezone", "spec.timeZone"),
            Column("Suspend", lambda cron, _: str(bool(dig(cron, "spec.suspend")))),
            Column("Active", lambda cron, _: len(dig(cron, "status.active", [])), "integer"),
            Column("Last Schedule", _last_schedule),
            AGE,
            *containers("spec.jobTemplate.spec.template.spec.containers"),
            Column("Selector", selector("spec.jobTemplate.spec.selector"), priority=1),
        ),
        short=("cj",),
        categories=("all",),
        subresources=(Subresource("status", "CronJob"),),
    ),
    Kind(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        (
            NAME,
            Column("Reference", _scaled),
            Column("Targets", _targets),
            Column("MinPods", "spec.minReplicas"),
            Column("MaxPods", "spec.maxReplicas", "integer"),
            Column("Replicas", number("status.currentReplicas"), "integer"),
            AGE,
        ),
        short=("hpa",),
        categories=("all",),
        subresources=(Subresource("status", "HorizontalPodAutoscaler"),),
    ),
    Kind(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        (
            NAME,
            Column("Min Available", lambda pdb, _: str(dig(pdb, "spec.minAvailable", "N/A"))),
            Column("Max Unavailable", lambda pdb, _: str(dig(pdb, "spec.maxUnavailable", "N/A"))),
            Column("Allowed Disruptions", number("status.disruptionsAllowed"), "integer"),
            AGE,
        ),
        short=("pdb",),
        subresources=(Subresource("status", "PodDisruptionBudget"),),
    ),
)
