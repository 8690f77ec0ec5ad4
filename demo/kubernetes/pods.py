"""Pods as the scheduler and the kubelet would have made them: a template and an owner in, a pod with a status out."""

import hashlib
from typing import Any

from demo.kubernetes.objects import Obj, dig, name_of, namespace_of, owner, uid
from demo.kubernetes.times import stamp

State = dict[str, Any]

_TOKEN_VOLUME: Obj = {
    "name": "kube-api-access",
    "projected": {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {
                "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
            {
                "downwardAPI": {
                    "items": [
                        {
                            "path": "namespace",
                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                        }
                    ]
                }
            },
        ],
    },
}
_TOKEN_MOUNT: Obj = {
    "name": "kube-api-access",
    "readOnly": True,
    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
}
_TOLERATIONS: list[Obj] = [
    {
        "key": f"node.kubernetes.io/{trouble}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 300,
    }
    for trouble in ("not-ready", "unreachable")
]


def _container(container: Obj) -> Obj:
    return {
        "imagePullPolicy": "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "resources": {},
        **container,
        "volumeMounts": [*container.get("volumeMounts", []), _TOKEN_MOUNT],
    }


def pod(
    name: str,
    *,
    namespace: str,
    template: Obj,
    created: float,
    made_by: Obj | None = None,
    labels: dict[str, str] | None = None,
    generated: bool = True,
) -> Obj:
    """A pod that nobody has scheduled yet: phase Pending, no conditions."""
    metadata = {
        "name": name,
        **({"generateName": name.rsplit("-", 1)[0] + "-"} if made_by and generated else {}),
        "namespace": namespace,
        "uid": uid("Pod", namespace, name),
        "creationTimestamp": stamp(created),
        "labels": {**dig(template, "metadata.labels", {}), **(labels or {})},
        **({"annotations": notes} if (notes := dig(template, "metadata.annotations")) else {}),
        **({"ownerReferences": [owner(made_by)]} if made_by else {}),
    }
    spec = template["spec"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
            "priority": 0,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30,
            "tolerations": _TOLERATIONS,
            **spec,
            "serviceAccount": spec.get("serviceAccountName", "default"),
            "containers": [_container(container) for container in spec["containers"]],
            "volumes": [*spec.get("volumes", []), _TOKEN_VOLUME],
        },
        "status": {"phase": "Pending", "qosClass": _qos(spec["containers"])},
    }


def _qos(containers: list[Obj]) -> str:
    resources = [container.get("resources", {}) for container in containers]
    if not any(resources):
        return "BestEffort"
    guaranteed = all(r.get("limits") and r["limits"] == r.get("requests", r["limits"]) for r in resources)
    return "Guaranteed" if guaranteed else "Burstable"


def scheduled(pod: Obj, *, node: str, host_ip: str, pod_ip: str, at: float) -> Obj:
    """The pod on its node; its containers are still being created."""
    own_network = not dig(pod, "spec.hostNetwork")
    ip = pod_ip if own_network else host_ip
    status = {
        **pod["status"],
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": stamp(at),
    }
    placed = {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": status}
    return with_states(placed, {}, at=at)


def running(at: float) -> State:
    return {"running": {"startedAt": stamp(at)}}


def waiting(reason: str, message: str = "") -> State:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def terminated(started: float, ended: float, *, reason: str = "Completed", exit_code: int = 0) -> State:
    times = {"startedAt": stamp(started), "finishedAt": stamp(ended)}
    return {"terminated": {"exitCode": exit_code, "reason": reason, **times}}


def with_states(
    pod: Obj,
    states: dict[str, State],
    *,
    at: float,
    phase: str = "Pending",
    restarts: dict[str, int] | None = None,
    last: dict[str, State] | None = None,
) -> Obj:
    """The pod with its containers in these states (by name; "" for all others), from that instant on."""
    statuses = []
    for container in pod["spec"]["containers"]:
        name = container["name"]
        state = states.get(name) or states.get("") or waiting("ContainerCreating")
        count = (restarts or {}).get(name, 0)
        started = "running" in state
        digest = hashlib.sha256(f"{pod['metadata']['uid']}{name}{count}".encode()).hexdigest()
        image_digest = hashlib.sha256(container["image"].encode()).hexdigest()
        known = "waiting" not in state or count
        statuses.append(
            {
                "name": name,
                "state": state,
                "lastState": (last or {}).get(name, {}),
                "ready": started,
                "started": started,
                "restartCount": count,
                "image": container["image"],
                "imageID": f"{container['image'].split(':')[0]}@sha256:{image_digest}" if known else "",
                **({"containerID": f"containerd://{digest}"} if known else {}),
            }
        )
    status = {**pod["status"], "phase": phase, "containerStatuses": statuses}
    return {**pod, "status": {**status, "conditions": _conditions(status, at=at)}}


def _conditions(status: Obj, *, at: float) -> list[Obj]:
    unready = [item["name"] for item in status["containerStatuses"] if not item["ready"]]
    ready: Obj = {"status": "True"}
    if status["phase"] == "Succeeded":
        ready = {"status": "False", "reason": "PodCompleted"}
    elif unready:
        names = " ".join(unready)
        ready = {
            "status": "False",
            "reason": "ContainersNotReady",
            "message": f"containers with unready status: [{names}]",
        }
    began, changed = status["startTime"], stamp(at)
    return [
        {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": began},
        {"type": "Initialized", "status": "True", "lastTransitionTime": began},
        {"type": "Ready", **ready, "lastTransitionTime": changed},
        {"type": "ContainersReady", **ready, "lastTransitionTime": changed},
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": began},
    ]


def unschedulable(pod: Obj, message: str, *, at: float) -> Obj:
    """The pod that fits on no node."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {
        **pod,
        "status": {**pod["status"], "conditions": [{**condition, "lastTransitionTime": stamp(at)}]},
    }


def where(pod: Obj) -> str:
    """`payments-api-5b7_payments(uid)`: how the kubelet's messages name a pod."""
    return f"{name_of(pod)}_{namespace_of(pod)}({pod['metadata']['uid']})"
