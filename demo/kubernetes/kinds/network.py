"""How pods are reached: services, endpoints, ingresses and what policies let through."""

from demo.kubernetes.kinds.kind import AGE, NAME, Column, Kind, Subresource, joined, selector
from demo.kubernetes.objects import Obj, dig


def _ports(service: Obj, _: float) -> str:
    def show(port: Obj) -> str:
        outside = f":{port['nodePort']}" if "nodePort" in port else ""
        return f"{port['port']}{outside}/{port.get('protocol', 'TCP')}"

    return joined([show(port) for port in dig(service, "spec.ports", [])])


def _external_ip(service: Obj, _: float) -> str:
    if dig(service, "spec.type") != "LoadBalancer":
        return "<none>"
    return ",".join(point["ip"] for point in dig(service, "status.loadBalancer.ingress", [])) or "<pending>"


def _endpoints(obj: Obj, _: float) -> str:
    found = [
        f"{address['ip']}:{port['port']}"
        for subset in obj.get("subsets") or []
        for address in subset.get("addresses", [])
        for port in subset.get("ports", [])
    ]
    return joined(found, at_most=3)


def _slice_ports(obj: Obj, _: float) -> str:
    return joined([str(port["port"]) for port in obj.get("ports") or []], at_most=3)


def _slice_endpoints(obj: Obj, _: float) -> str:
    return joined([ip for endpoint in obj.get("endpoints") or [] for ip in endpoint["addresses"]], at_most=3)


def _hosts(ingress: Obj, _: float) -> str:
    return joined([rule.get("host", "*") for rule in dig(ingress, "spec.rules", [])]).replace("<none>", "*")


def _ingress_address(ingress: Obj, _: float) -> str:
    return ",".join(point["ip"] for point in dig(ingress, "status.loadBalancer.ingress", []))


def _ingress_ports(ingress: Obj, _: float) -> str:
    return "80, 443" if dig(ingress, "spec.tls") else "80"


_SERVICE = Kind(
    "",
    "v1",
    "Service",
    "services",
    (
        NAME,
        Column("Type", "spec.type"),
        Column("Cluster-IP", "spec.clusterIP"),
        Column("External-IP", _external_ip),
        Column("Port(s)", _ports),
        AGE,
        Column("Selector", selector("spec.selector"), priority=1),
    ),
    short=("svc",),
    categories=("all",),
    fields=("spec.clusterIP", "spec.type"),
    subresources=(Subresource("status", "Service"), Subresource("proxy", "ServiceProxyOptions", ())),
)

_ENDPOINTS = Kind("", "v1", "Endpoints", "endpoints", (NAME, Column("Endpoints", _endpoints), AGE), short=("ep",))

_ENDPOINT_SLICE = Kind(
    "discovery.k8s.io",
    "v1",
    "EndpointSlice",
    "endpointslices",
    (
        NAME,
        Column("AddressType", "addressType"),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        AGE,
    ),
)

_INGRESS = Kind(
    "networking.k8s.io",
    "v1",
    "Ingress",
    "ingresses",
    (
        NAME,
        Column("Class", "spec.ingressClassName"),
        Column("Hosts", _hosts),
        Column("Address", _ingress_address),
        Column("Ports", _ingress_ports),
        AGE,
    ),
    short=("ing",),
    subresources=(Subresource("status", "Ingress"),),
)

_INGRESS_CLASS = Kind(
    "networking.k8s.io",
    "v1",
    "IngressClass",
    "ingressclasses",
    (NAME, Column("Controller", "spec.controller"), Column("Parameters", "spec.parameters.name"), AGE),
    namespaced=False,
)

_NETWORK_POLICY = Kind(
    "networking.k8s.io",
    "v1",
    "NetworkPolicy",
    "networkpolicies",
    (NAME, Column("Pod-Selector", selector("spec.podSelector")), AGE),
    short=("netpol",),
)

KINDS: tuple[Kind, ...] = (_SERVICE, _ENDPOINTS, _ENDPOINT_SLICE, _INGRESS, _INGRESS_CLASS, _NETWORK_POLICY)
