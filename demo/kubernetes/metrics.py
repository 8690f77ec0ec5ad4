"""What metrics.k8s.io answers: usage computed from requests and the time, for there is nothing to measure."""

import math
import zlib
from collections.abc import Callable

from demo.kubernetes.objects import Obj, dig, labels_of, name_of, namespace_of
from demo.kubernetes.store import Store
from demo.kubernetes.times import stamp

# As metrics-server scrapes; between two scrapes nothing changes.
_RESOLUTION_S = 15.0

_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 0.001}


def quantity(text: str | int) -> float:
    """`250m`, `64Mi` or `2` as a number."""
    text = str(text)
    unit = next((unit for unit in _UNITS if text.endswith(unit)), "")
    return float(text.removesuffix(unit)) * _UNITS.get(unit, 1)


def _wave(seed: str, now: float) -> float:
    """Between 0.3 and 0.9 of what was requested, slowly up and down."""
    phase = zlib.crc32(seed.encode()) % 628 / 100
    return 0.6 + 0.3 * math.sin(now / 240 + phase)


def _usage(pod: Obj, now: float) -> list[Obj]:
    measured = []
    for container in pod["spec"]["containers"]:
        requests = dig(container, "resources.requests", {})
        share = _wave(f"{name_of(pod)}/{container['name']}", now)
        cpu, memory = quantity(requests.get("cpu", "20m")), quantity(requests.get("memory", "48Mi"))
        usage = {"cpu": f"{int(cpu * share * 1e9)}n", "memory": f"{int(memory * (0.5 + share / 2) / 1024)}Ki"}
        measured.append({"name": container["name"], "usage": usage})
    return measured


def _measured(kind: str, source: Obj, now: float) -> Obj:
    metadata = {"name": name_of(source), "labels": labels_of(source), "creationTimestamp": stamp(now)}
    if namespace_of(source):
        metadata["namespace"] = namespace_of(source)
    return {
        "apiVersion": "metrics.k8s.io/v1beta1",
        "kind": kind,
        "metadata": metadata,
        "timestamp": stamp(now),
        "window": f"{_RESOLUTION_S:.0f}s",
    }


def pods(store: Store, now: float, namespace: str) -> list[Obj]:
    """PodMetrics of the pods that run."""
    scraped = now - now % _RESOLUTION_S
    running = [pod for pod in store.list("pods", namespace) if dig(pod, "status.phase") == "Running"]
    return [{**_measured("PodMetrics", pod, scraped), "containers": _usage(pod, scraped)} for pod in running]


def nodes(store: Store, now: float, _: str) -> list[Obj]:
    """NodeMetrics: the sum over the pods there, and what the system itself takes."""
    scraped = now - now % _RESOLUTION_S
    cpu_n: dict[str, int] = {}
    memory_ki: dict[str, int] = {}
    for pod in store.list("pods"):
        if dig(pod, "status.phase") == "Running":
            node = pod["spec"]["nodeName"]
            for container in _usage(pod, scraped):
                cpu_n[node] = cpu_n.get(node, 0) + int(container["usage"]["cpu"][:-1])
                memory_ki[node] = memory_ki.get(node, 0) + int(container["usage"]["memory"][:-2])
    return [
        {
            **_measured("NodeMetrics", node, scraped),
            "usage": {
                "cpu": f"{cpu_n.get(name_of(node), 0) + 140_000_000}n",
                "memory": f"{memory_ki.get(name_of(node), 0) + 700_000}Ki",
            },
        }
        for node in store.list("nodes")
    ]


MEASURED: dict[str, Callable[[Store, float, str], list[Obj]]] = {
    "pods.metrics.k8s.io": pods,
    "nodes.metrics.k8s.io": nodes,
}
