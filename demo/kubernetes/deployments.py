"""Makes what a Deployment makes: a ReplicaSet for each revision, and the pods of the latest."""

from demo.kubernetes.controllers import Controllers, replica_counts, runs
from demo.kubernetes.life import RECENT_S
from demo.kubernetes.manifest import Demo, Manifest, Revision
from demo.kubernetes.objects import Obj, dig, name_of, namespace_of, owner, suffix, uid
from demo.kubernetes.pods import pod as make_pod
from demo.kubernetes.times import stamp

_REVISION = "deployment.kubernetes.io/revision"
_CAUSE = "kubernetes.io/change-cause"

# By whether all replicas are ready: type, reason and message of each condition.
_CONDITIONS: dict[bool, tuple[tuple[str, str, str], ...]] = {
    True: (
        ("Available", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        ("Progressing", "NewReplicaSetAvailable", 'ReplicaSet "{}" has successfully progressed.'),
    ),
    False: (
        ("Available", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
        ("Progressing", "ProgressDeadlineExceeded", 'ReplicaSet "{}" has timed out progressing.'),
    ),
}


def deployment(controllers: Controllers, manifest: Manifest) -> None:
    """The Deployment, with a ReplicaSet for each revision of its `demo` block."""
    obj, demo = manifest.obj, manifest.demo
    revisions = demo.revisions or (Revision(demo.age_s),)
    latest = len(revisions)
    replicas = dig(obj, "spec.replicas", 1)
    ready = replicas if runs(demo) else 0
    notes = {_REVISION: str(latest), **({_CAUSE: revisions[-1].cause} if revisions[-1].cause else {})}
    deployed = controllers.world.put(
        {
            **obj,
            "metadata": {**obj["metadata"], "generation": latest, "annotations": notes},
            "spec": {
                "progressDeadlineSeconds": 600,
                "revisionHistoryLimit": 10,
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
                },
                **obj["spec"],
                "replicas": replicas,
            },
            "status": {
                "observedGeneration": latest,
                **replica_counts(replicas, ready),
                "updatedReplicas": replicas,
                **({"unavailableReplicas": replicas - ready} if ready < replicas else {}),
                "conditions": _conditions(obj, latest, ok=ready == replicas, at=controllers.now - revisions[-1].age_s),
            },
        }
    )
    for number, revision in enumerate(revisions, start=1):
        _replica_set(controllers, deployed, number, revision, demo=demo, wanted=replicas if number == latest else 0)


def _replica_set(
    controllers: Controllers, deployed: Obj, number: int, revision: Revision, *, demo: Demo, wanted: int
) -> None:
    name = _replica_set_name(deployed, number)
    namespace, at = namespace_of(deployed), controllers.now - revision.age_s
    digest = {"pod-template-hash": name.rsplit("-", 1)[1]}
    template = _with_image(deployed["spec"]["template"], revision.image)
    template = {
        **template,
        "metadata": {**template["metadata"], "labels": {**template["metadata"]["labels"], **digest}},
    }
    notes = {
        "deployment.kubernetes.io/desired-replicas": str(deployed["spec"]["replicas"]),
        "deployment.kubernetes.io/max-replicas": str(deployed["spec"]["replicas"] + 1),
        _REVISION: str(number),
        **({_CAUSE: revision.cause} if revision.cause else {}),
    }
    replica_set = controllers.world.put(
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": uid("ReplicaSet", namespace, name),
                "creationTimestamp": stamp(at),
                "generation": 1,
                "labels": template["metadata"]["labels"],
                "annotations": notes,
                "ownerReferences": [owner(deployed)],
            },
            "spec": {
                "replicas": wanted,
                "selector": {"matchLabels": {**deployed["spec"]["selector"]["matchLabels"], **digest}},
                "template": template,
            },
            "status": {"observedGeneration": 1, **replica_counts(wanted, wanted if runs(demo) else 0)},
        }
    )
    if controllers.now - at < RECENT_S and wanted:
        scaled = f"Scaled up replica set {name} from 0 to {wanted}"
        controllers.world.event(deployed, "ScalingReplicaSet", message=scaled, now=at, source="deployment-controller")
    for index in range(wanted):
        pod_name = f"{name}-{suffix(f'{namespace}/{name}/{index}', 5)}"
        pod = make_pod(pod_name, namespace=namespace, template=template, created=at, made_by=replica_set)
        if controllers.now - at < RECENT_S:
            created = f"Created pod: {pod_name}"
            controllers.world.event(
                replica_set, "SuccessfulCreate", message=created, now=at, source="replicaset-controller"
            )
        controllers.start(pod, demo, at=at + index)


def _replica_set_name(deployed: Obj, number: int) -> str:
    return f"{name_of(deployed)}-{suffix(f'{namespace_of(deployed)}/{name_of(deployed)}/{number}', 10)}"


def _with_image(template: Obj, image: str) -> Obj:
    first, *others = template["spec"]["containers"]
    changed = {**first, "image": image or first["image"]}
    return {**template, "spec": {**template["spec"], "containers": [changed, *others]}}


def _conditions(obj: Obj, latest: int, *, ok: bool, at: float) -> list[Obj]:
    times = {"lastTransitionTime": stamp(at + 30), "lastUpdateTime": stamp(at + 30)}
    return [
        {
            "type": kind,
            "status": str(ok),
            "reason": reason,
            "message": message.format(_replica_set_name(obj, latest)),
            **times,
        }
        for kind, reason, message in _CONDITIONS[ok]
    ]
