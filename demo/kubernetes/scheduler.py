"""Spreads pods over nodes, and hands out their addresses."""

from itertools import count

from demo.kubernetes.objects import Obj, dig, name_of
from demo.kubernetes.pods import scheduled

# Addresses of a node's pod network that are handed out, again and again.
_ADDRESSES = range(2, 250)


class Scheduler:
    """Round robin over the nodes without taints; a pod that names its node gets it."""

    def __init__(self, nodes: list[Obj]) -> None:
        self._nodes = {name_of(node): node for node in nodes}
        self._open = [name for name, node in self._nodes.items() if not dig(node, "spec.taints")]
        self._turns = count()
        self._hosts = {name: count() for name in self._nodes}

    def schedule(self, pod: Obj, *, at: float) -> Obj:
        name = dig(pod, "spec.nodeName") or self._open[next(self._turns) % len(self._open)]
        node = self._nodes[name]
        network = str(dig(node, "spec.podCIDR")).rsplit(".", 1)[0]
        host = _ADDRESSES[next(self._hosts[name]) % len(_ADDRESSES)]
        host_ip = next(a["address"] for a in dig(node, "status.addresses") if a["type"] == "InternalIP")
        return scheduled(pod, node=name, host_ip=host_ip, pod_ip=f"{network}.{host}", at=at)
