"""The cluster `local`: every manifest, and all that follows from it."""

from collections.abc import Callable, Iterable

from demo.kubernetes import cron, deployments, life, manifest, sets
from demo.kubernetes.controllers import Controllers
from demo.kubernetes.manifest import Manifest
from demo.kubernetes.objects import Obj, dig, labels_of, name_of, namespace_of, uid
from demo.kubernetes.scheduler import Scheduler
from demo.kubernetes.times import stamp
from demo.kubernetes.world import World

_ROOT_CA_NOTE = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc."
)

# What a healthy kubelet reports: condition, status, reason, message.
_NODE_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)

# The workloads, and what brings each to life; every other kind is put as it is written.
_MAKERS: dict[str, Callable[[Controllers, Manifest], None]] = {
    "Pod": Controllers.pod,
    "Deployment": deployments.deployment,
    "StatefulSet": sets.stateful_set,
    "DaemonSet": sets.daemon_set,
    "Job": cron.single,
    "CronJob": cron.schedule,
}


def local(now: float, *, manifests: Iterable[Manifest] | None = None) -> World:
    """The cluster as it stands at `now`; it goes on with `World.advance`."""
    world = World()
    documents = [_completed(each, now) for each in (manifest.load() if manifests is None else manifests)]
    for each in documents:
        if each.obj["kind"] == "Node":
            _node(world, each.obj, now)
    controllers = Controllers(world, Scheduler(world.store.list("nodes")), now)
    for each in documents:
        if each.obj["kind"] in _MAKERS:
            _MAKERS[each.obj["kind"]](controllers, each)
        elif each.obj["kind"] == "Namespace":
            _namespace(world, each)
        elif each.obj["kind"] != "Node":
            world.put(each.obj)
    for service in world.store.list("services"):
        _endpoints(world, service)
    world.begin(life.expiry(world), now)
    return world


def _completed(each: Manifest, now: float) -> Manifest:
    """The manifest with what the API server fills in: uid, age, and the labels that follow from other labels."""
    obj = each.obj
    metadata = {
        **obj["metadata"],
        "uid": uid(obj["kind"], namespace_of(obj), name_of(obj)),
        "creationTimestamp": stamp(now - each.demo.age_s),
    }
    obj = {**obj, "metadata": metadata}
    if "template" in obj.get("spec", {}):
        template = {
            **obj["spec"]["template"],
            "metadata": {"labels": labels_of(obj), **dig(obj, "spec.template.metadata", {})},
        }
        obj = {**obj, "spec": {**obj["spec"], "template": template}}
        if obj["kind"] != "Job":
            obj["spec"].setdefault("selector", {"matchLabels": {"app": labels_of(obj)["app"]}})
    return Manifest(obj, each.demo)


def _namespace(world: World, each: Manifest) -> None:
    """A namespace, and the two objects that every namespace has."""
    obj, name = each.obj, name_of(each.obj)
    metadata = {**obj["metadata"], "labels": {"kubernetes.io/metadata.name": name, **labels_of(obj)}}
    world.put({**obj, "metadata": metadata, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
    if each.demo.delay_s:
        world.delays_s[name] = each.demo.delay_s
    own = {"namespace": name, "creationTimestamp": metadata["creationTimestamp"]}
    account = {"name": "default", "uid": uid("ServiceAccount", name, "default"), **own}
    world.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    bundle = {
        "name": "kube-root-ca.crt",
        "uid": uid("ConfigMap", name, "kube-root-ca.crt"),
        **own,
        "annotations": {"kubernetes.io/description": _ROOT_CA_NOTE},
    }
    certificate = (
        "-----BEGIN CERTIFICATE-----\nthe certificate authority of the cluster local\n-----END CERTIFICATE-----\n"
    )
    world.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": bundle, "data": {"ca.crt": certificate}})


def _node(world: World, obj: Obj, now: float) -> None:
    """A node that is well, and the lease that proves it."""
    name, created = name_of(obj), obj["metadata"]["creationTimestamp"]
    conditions = [
        {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": created}
        for kind, status, reason, message in _NODE_CONDITIONS
    ]
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        **labels_of(obj),
    }
    node = {
        **obj,
        "metadata": {**obj["metadata"], "labels": labels},
        "status": {**obj["status"], "conditions": conditions},
    }
    world.begin(life.heartbeat(world, node), now)
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": "kube-node-lease",
            "uid": uid("Lease", "kube-node-lease", name),
            "creationTimestamp": created,
        },
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40},
    }
    world.begin(life.lease(world, lease), now)


def _endpoints(world: World, service: Obj) -> None:
    """The Endpoints and the EndpointSlice of a service, from the pods that its selector finds."""
    selector = dig(service, "spec.selector")
    if not selector:
        return
    pods = [
        pod
        for pod in world.store.list("pods", namespace_of(service))
        if selector.items() <= labels_of(pod).items() and dig(pod, "status.podIP")
    ]
    name, namespace = name_of(service), namespace_of(service)
    times = {"creationTimestamp": service["metadata"]["creationTimestamp"]}
    ports = [
        {"name": port.get("name", ""), "port": _target(port, pods), "protocol": port.get("protocol", "TCP")}
        for port in service["spec"]["ports"]
    ]
    addresses: dict[bool, list[Obj]] = {True: [], False: []}
    for pod in pods:
        target = {"kind": "Pod", "namespace": namespace, "name": name_of(pod), "uid": pod["metadata"]["uid"]}
        address = {"ip": dig(pod, "status.podIP"), "nodeName": dig(pod, "spec.nodeName"), "targetRef": target}
        addresses[_ready(pod)].append(address)
    subset = {
        **({"addresses": addresses[True]} if addresses[True] else {}),
        **({"notReadyAddresses": addresses[False]} if addresses[False] else {}),
        "ports": ports,
    }
    metadata = {"name": name, "namespace": namespace, "uid": uid("Endpoints", namespace, name), **times}
    world.put(
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {**metadata, "labels": labels_of(service)},
            "subsets": [subset] if pods else [],
        }
    )
    slice_name = f"{name}-{uid('EndpointSlice', namespace, name)[:5]}"
    world.put(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                **metadata,
                "name": slice_name,
                "uid": uid("EndpointSlice", namespace, slice_name),
                "labels": {**labels_of(service), "kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [
                {
                    "addresses": [address["ip"]],
                    "conditions": {"ready": ready, "serving": ready, "terminating": False},
                    "nodeName": address["nodeName"],
                    "targetRef": address["targetRef"],
                }
                for ready, group in addresses.items()
                for address in group
            ],
        }
    )


def _ready(pod: Obj) -> bool:
    return all(status["ready"] for status in dig(pod, "status.containerStatuses", []))


def _target(port: Obj, pods: list[Obj]) -> int:
    """The number of the container port that a service port leads to; it may be given by name."""
    wanted = port.get("targetPort", port["port"])
    if isinstance(wanted, int):
        return wanted
    exposed = (p for pod in pods for c in pod["spec"]["containers"] for p in c.get("ports", []))
    return next((int(p["containerPort"]) for p in exposed if p.get("name") == wanted), int(port["port"]))
