"""The network policies: who reaches whom is exactly what is needed, by the rules of Kubernetes, worked out here."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.app import build_app
from openline.pipes import Pipes

BROKER, GATEWAY, EXECUTOR, REDIS = "openline-broker", "openline-gateway", "openline-executor", "openline-redis"
# Between pods of the installation: who, whom, port.
NEEDED = {
    (GATEWAY, BROKER, 50051),
    (EXECUTOR, BROKER, 50051),
    (BROKER, BROKER, 50051),
    (BROKER, REDIS, 6379),
}
# What the gateway serves for no caller outside: without a key, or to operators.
INSIDE = {"admin", "audit", "docs", "health", "healthz", "metrics", "openapi.json", "ui"}
MONITORING = {"kubernetes.io/metadata.name": "monitoring"}
CALLERS = {"kubernetes.io/metadata.name": "agents", "openline.dev/may-call": "true"}
ANYBODY = {"kubernetes.io/metadata.name": "elsewhere"}
DNS = ({"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"})
Labels = Mapping[str, str]
# A pod: its namespace's labels, None for the installation's own, and its labels; or an address outside of the cluster.
Peer = tuple[Labels | None, Labels] | str


def matches(selector: dict[str, Any], labels: Labels) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_meant(peer: Peer, rule: dict[str, Any]) -> bool:
    if isinstance(peer, str):
        block = rule.get("ipBlock", {"cidr": "0.0.0.0/32"})
        assert block.keys() == {"cidr"}
        return ipaddress.ip_address(peer) in ipaddress.ip_network(block["cidr"])
    namespace, labels = peer
    if "ipBlock" in rule:
        return False  # pods' addresses are the network's own business, which no policy here relies on
    if "namespaceSelector" in rule:
        in_namespace = namespace is not None and matches(rule["namespaceSelector"], namespace)
    else:
        in_namespace = namespace is None
    return in_namespace and matches(rule.get("podSelector", {}), labels)


def allows(rendered: Any, pod: Labels, direction: str, peer: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies of a pod let something through: what no policy is about is free, and what one allows is."""
    key = {"Ingress": "from", "Egress": "to"}[direction]
    policies = [
        each["spec"]
        for each in rendered.of("NetworkPolicy")
        if matches(each["spec"]["podSelector"], pod) and direction in each["spec"]["policyTypes"]
    ]
    return not policies or any(
        {"protocol": protocol, "port": port} in rule["ports"] and any(is_meant(peer, each) for each in rule[key])
        for policy in policies
        for rule in policy.get(direction.lower(), ())
    )


def pods(rendered: Any) -> dict[str, Labels]:
    return {each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"] for each in rendered.workloads}


def every_port(rendered: Any) -> set[int]:
    return {port["containerPort"] for _, container in rendered.containers() for port in container.get("ports", ())}


def test_pods_reach_each_other_by_the_hops_that_are_needed_and_no_other(trial: Any) -> None:
    """Each is let out by the one and let in by the other."""
    here = pods(trial)
    assert here.keys() == {BROKER, GATEWAY, EXECUTOR, REDIS}
    open_hops = {
        (one, other, port)
        for one in here
        for other in here
        for port in every_port(trial)
        if allows(trial, here[one], "Egress", (None, here[other]), port)
        and allows(trial, here[other], "Ingress", (None, here[one]), port)
    }
    assert open_hops == NEEDED


def test_everybody_can_look_up_names(trial: Any) -> None:
    for labels in pods(trial).values():
        for protocol in ("UDP", "TCP"):
            assert allows(trial, labels, "Egress", DNS, 53, protocol)


@pytest.mark.parametrize(
    ("namespace", "reached"),
    [
        (MONITORING, {(BROKER, 9464), (GATEWAY, 8080)}),
        (CALLERS, {(GATEWAY, 8080)}),
        (ANYBODY, set()),
    ],
    ids=["monitoring", "callers", "anybody"],
)
def test_what_other_namespaces_reach(trial: Any, production: Any, namespace: Labels, reached: set[Any]) -> None:
    """Metrics for Prometheus, REST for those who may call. Brokers are not for callers, nor is Redis for anybody."""
    for rendered in (trial, production):
        assert {
            (name, port)
            for name, labels in pods(rendered).items()
            for port in every_port(rendered)
            if allows(rendered, labels, "Ingress", (namespace, {}), port)
        } == reached


def test_from_outside_only_a_broker_of_production_is_reached(trial: Any, production: Any) -> None:
    """By executors of other clusters."""
    for rendered, expected in ((trial, set()), (production, {(BROKER, 50051)})):
        assert {
            (name, port)
            for name, labels in pods(rendered).items()
            for port in every_port(rendered)
            if allows(rendered, labels, "Ingress", "203.0.113.5", port)
        } == expected


def paths_of(routes: Iterable[Any]) -> Iterator[str]:
    for route in routes:
        if hasattr(route, "path"):
            yield route.path
        else:
            yield from paths_of(route.original_router.routes)


def test_the_ingress_lets_in_commands_and_nothing_else(production: Any) -> None:
    """Each route of the gateway is for callers outside, or is meant to stay inside; none is forgotten."""
    [ingress] = production.of("Ingress")
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]

    def gets_in(route: str) -> bool:
        return any(
            route == each["path"] or (each["pathType"] == "Prefix" and route.startswith(each["path"] + "/"))
            for each in paths
        )

    routes = set(paths_of(build_app(Pipes(["127.0.0.1:9"], client="test"))._app._usual.routes))  # type: ignore[attr-defined]
    assert {"/mcp", "/a2a", "/ui/", "/metrics", "/admin/keys", "/v1/commands"} <= routes
    inside = {route for route in routes if not gets_in(route)}
    assert {route.split("/")[1] for route in inside} == INSIDE
    assert not [
        each["path"] for each in paths if not any(gets_in(route) for route in routes if route.startswith(each["path"]))
    ]


def test_what_goes_out_of_the_cluster(trial: Any, production: Any) -> None:
    """kubectl to the API server, an executor to brokers elsewhere, and brokers to the Redis that is theirs."""
    ports = {443, 6443, 6379, 50051, 53, 80}
    leaving = {
        (rendered.name, name, port, to)
        for rendered in (trial, production)
        for name, labels in pods(rendered).items()
        for port in ports
        for to in ("203.0.113.5", "192.0.2.10")
        if allows(rendered, labels, "Egress", to, port)
    }
    assert leaving == {
        *(
            ("overlays/trial", EXECUTOR, port, to)
            for port in (443, 6443, 50051)
            for to in ("203.0.113.5", "192.0.2.10")
        ),
        ("overlays/production", BROKER, 6379, "192.0.2.10"),
    }


def test_spans_reach_the_collector_where_they_are_sent_and_nobody_else(traced: Any, kubelet: Any) -> None:
    labelled = {"app.kubernetes.io/name": "opentelemetry-collector"}
    collector: Peer = (MONITORING, labelled)
    elsewhere: list[Peer] = [(MONITORING, {}), (ANYBODY, labelled), (None, labelled), "203.0.113.5"]
    given = {urlsplit(each.variables["OTEL_EXPORTER_OTLP_ENDPOINT"]) for each in kubelet.start(traced)}
    [(host, port)] = {(endpoint.hostname, endpoint.port) for endpoint in given}
    assert host == "opentelemetry-collector.monitoring.svc"
    for name, labels in pods(traced).items():
        assert allows(traced, labels, "Egress", collector, port) == (name != REDIS)
        assert not [peer for peer in elsewhere if allows(traced, labels, "Egress", peer, port)]


def test_nothing_comes_in_to_an_executor(trial: Any) -> None:
    labels = pods(trial)[EXECUTOR]
    others: list[Peer] = [(None, each) for each in pods(trial).values()]
    others += [(MONITORING, {}), (CALLERS, {}), "203.0.113.5"]
    assert not [peer for peer in others for port in every_port(trial) if allows(trial, labels, "Ingress", peer, port)]


def test_a_pod_that_nobody_thought_of_is_closed(trial: Any, production: Any) -> None:
    for rendered in (trial, production):
        stranger = {"app.kubernetes.io/name": "stranger"}
        assert not allows(rendered, stranger, "Ingress", (None, stranger), 50051)
        assert not allows(rendered, stranger, "Egress", "203.0.113.5", 443)
