"""Makes what StatefulSets and DaemonSets make: their pods, their volumes and the record of their revisions."""

from demo.kubernetes.controllers import Controllers, replica_counts, runs
from demo.kubernetes.manifest import Manifest
from demo.kubernetes.objects import Obj, dig, labels_of, name_of, namespace_of, owner, suffix, uid
from demo.kubernetes.pods import pod as make_pod


def stateful_set(controllers: Controllers, manifest: Manifest) -> None:
    """The StatefulSet, with numbered pods, and a claim and a volume for each."""
    obj, demo = manifest.obj, manifest.demo
    namespace, name, replicas = namespace_of(obj), name_of(obj), dig(obj, "spec.replicas", 1)
    revision = f"{name}-{suffix(f'{namespace}/{name}', 10)}"
    ready = replicas if runs(demo) else 0
    stateful = controllers.world.put(
        {
            **obj,
            "metadata": {**obj["metadata"], "generation": 1},
            "spec": {
                "podManagementPolicy": "OrderedReady",
                "revisionHistoryLimit": 10,
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                **obj["spec"],
                "replicas": replicas,
            },
            "status": {
                "observedGeneration": 1,
                **replica_counts(replicas, ready),
                "currentReplicas": replicas,
                "updatedReplicas": replicas,
                "currentRevision": revision,
                "updateRevision": revision,
                "collisionCount": 0,
            },
        }
    )
    _controller_revision(controllers, stateful, revision)
    for index in range(replicas):
        pod_name = f"{name}-{index}"
        template = obj["spec"]["template"]
        volumes = [
            {
                "name": claim["metadata"]["name"],
                "persistentVolumeClaim": {"claimName": _claim(controllers, claim, pod_name, obj)},
            }
            for claim in obj["spec"].get("volumeClaimTemplates", [])
        ]
        spec = {**template["spec"], "volumes": [*template["spec"].get("volumes", []), *volumes]}
        pod = make_pod(
            pod_name,
            namespace=namespace,
            template={
                **template,
                "spec": {**spec, "hostname": pod_name, "subdomain": obj["spec"]["serviceName"]},
            },
            created=controllers.now - demo.age_s,
            made_by=stateful,
            labels={
                "apps.kubernetes.io/pod-index": str(index),
                "controller-revision-hash": revision,
                "statefulset.kubernetes.io/pod-name": pod_name,
            },
        )
        controllers.start(pod, demo, at=controllers.now - demo.age_s + 20 * index)


def _claim(controllers: Controllers, template: Obj, pod_name: str, made_for: Obj) -> str:
    """A claim that is bound, and the volume that it is bound to."""
    namespace, name = namespace_of(made_for), f"{template['metadata']['name']}-{pod_name}"
    volume = f"pvc-{uid('PersistentVolumeClaim', namespace, name)}"
    created = made_for["metadata"]["creationTimestamp"]
    spec = {**template["spec"], "volumeMode": "Filesystem"}
    size = {"storage": dig(spec, "resources.requests.storage")}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid("PersistentVolumeClaim", namespace, name),
            "creationTimestamp": created,
            "labels": labels_of(made_for),
            "finalizers": ["kubernetes.io/pvc-protection"],
        },
        "spec": {**spec, "volumeName": volume},
        "status": {"phase": "Bound", "accessModes": spec["accessModes"], "capacity": size},
    }
    controllers.world.put(claim)
    controllers.world.put(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": volume,
                "uid": uid("PersistentVolume", "", volume),
                "creationTimestamp": created,
            },
            "spec": {
                "accessModes": spec["accessModes"],
                "capacity": size,
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "name": name,
                    "namespace": namespace,
                },
                "hostPath": {
                    "path": f"/var/local-path-provisioner/{volume}",
                    "type": "DirectoryOrCreate",
                },
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": spec["storageClassName"],
                "volumeMode": "Filesystem",
            },
            "status": {"phase": "Bound"},
        }
    )
    return name


def daemon_set(controllers: Controllers, manifest: Manifest) -> None:
    """The DaemonSet, with a pod on each node."""
    obj, demo = manifest.obj, manifest.demo
    namespace, name = namespace_of(obj), name_of(obj)
    nodes = [name_of(node) for node in controllers.world.store.list("nodes")]
    total = len(nodes)
    daemons = controllers.world.put(
        {
            **obj,
            "metadata": {
                **obj["metadata"],
                "generation": 1,
                "annotations": {"deprecated.daemonset.template.generation": "1"},
            },
            "spec": {
                "revisionHistoryLimit": 10,
                "updateStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
                },
                **obj["spec"],
            },
            "status": {
                "observedGeneration": 1,
                "currentNumberScheduled": total,
                "desiredNumberScheduled": total,
                "numberAvailable": total,
                "numberMisscheduled": 0,
                "numberReady": total,
                "updatedNumberScheduled": total,
            },
        }
    )
    digest = suffix(f"{namespace}/{name}", 10)
    _controller_revision(controllers, daemons, f"{name}-{digest}")
    template = obj["spec"]["template"]
    for node in nodes:
        pod = make_pod(
            f"{name}-{suffix(f'{namespace}/{name}/{node}', 5)}",
            namespace=namespace,
            template={**template, "spec": {**template["spec"], "nodeName": node}},
            created=controllers.now - demo.age_s,
            made_by=daemons,
            labels={"controller-revision-hash": digest, "pod-template-generation": "1"},
        )
        controllers.start(pod, demo, at=controllers.now - demo.age_s)


def _controller_revision(controllers: Controllers, made_by: Obj, name: str) -> None:
    namespace = namespace_of(made_by)
    controllers.world.put(
        {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": uid("ControllerRevision", namespace, name),
                "creationTimestamp": made_by["metadata"]["creationTimestamp"],
                "labels": dig(made_by, "spec.template.metadata.labels"),
                "ownerReferences": [owner(made_by)],
            },
            "data": {"spec": {"template": {**made_by["spec"]["template"], "$patch": "replace"}}},
            "revision": 1,
        }
    )
