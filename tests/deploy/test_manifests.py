"""What kustomize renders: whether Kubernetes takes it, and whether its parts fit each other and the programs."""

import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from demo.kubectl import kubectl_path
from gateway.app import build_app
from openline import metrics
from openline.health import serve_health
from openline.pipes import Pipes
from openline.settings import Address
from openline.tracing.exporting import are_wanted

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
VERSION = "1.37"
# Of cert-manager and of the Prometheus operator: not Kubernetes' own, so no schema of it knows them.
CUSTOM = {"cert-manager.io/v1", "monitoring.coreos.com/v1"}


def test_kubernetes_takes_every_object(rendered: Any) -> None:
    """By its own schemas, with no field that they do not have."""
    for each in rendered.objects:
        if each["apiVersion"] not in CUSTOM:
            kubernetes_validate.validate(each, VERSION, strict=True)


def test_the_schemas_refuse_what_is_wrong(trial: Any) -> None:
    """A field that is misspelt, and a number that is a text."""
    workload = trial.workload("openline-broker")
    for wrong in ({"replica": 3}, {"replicas": "three"}):
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(workload | {"spec": workload["spec"] | wrong}, VERSION, strict=True)


def test_every_directory_is_rendered_by_some_test() -> None:
    """What no test looks at rots."""
    kustomizations = {path.parent for path in KUBERNETES.rglob("kustomization.yaml")}
    seen: set[Path] = set()

    def look(directory: Path) -> None:
        seen.add(directory)
        made_of = yaml.safe_load((directory / "kustomization.yaml").read_text())
        for part in [*made_of.get("resources", ()), *made_of.get("components", ())]:
            if (directory / part).is_dir():
                look((directory / part).resolve())

    for name in (
        "overlays/trial",
        "overlays/production",
        "overlays/executor",
        "overlays/sidecar",
        "components/tracing",
    ):
        look(KUBERNETES / name)
    assert seen == kustomizations


# Stopping


def test_a_pod_has_the_time_that_its_program_needs_to_stop(overlay: Any, needed_to_stop_s: Any) -> None:
    """preStop counts from the same moment."""
    for program, pod, container in overlay.programs():
        before_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        grace_s = pod.get("terminationGracePeriodSeconds", 30)
        # A sidecar is told when the others have ended, which the app of the example may take 30 s for.
        before_s += 30 if container["name"] not in [each["name"] for each in pod["containers"]] else 0
        assert before_s + needed_to_stop_s[program] <= grace_s, program


def test_the_documentation_says_how_long_a_stop_takes(stop_s: Any) -> None:
    """In whole seconds, so that nobody sets a grace of less."""
    broker_s, executor_s = (math.ceil(stop_s[name]) for name in ("openline-broker", "openline-executor"))
    operating, upgrading, readme, executor = (
        " ".join((ROOT / path).read_text().split())
        for path in (
            "docs/operating.md",
            "docs/upgrading.md",
            "deploy/README.md",
            "deploy/kubernetes/executor/executor.yaml",
        )
    )
    assert f"after 2 s when idle and within {broker_s} s" in operating
    assert f"callers to the others, and ends within {broker_s} s" in upgrading
    assert f"then come {broker_s} s at most" in readme
    assert f"exits within {broker_s} s" in readme
    assert f"it ends within {executor_s} s" in operating
    assert f"takes them up to {executor_s} s" in operating
    assert f"the stop takes {executor_s} s at most" in executor


def test_whoever_is_dialed_is_forgotten_before_it_stops(overlay: Any) -> None:
    for program, _, container in overlay.programs():
        has = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) >= 5
        assert has == (program != "openline-executor")


def test_one_replica_at_a_time_is_away(rendered: Any) -> None:
    """By an update, and by whoever drains nodes."""
    budgets = {name: each for each in rendered.of("PodDisruptionBudget") for name in targets(rendered, each)}
    for workload in rendered.workloads:
        name, spec = workload["metadata"]["name"], workload["spec"]
        if not name.startswith("openline-") or name == "openline-redis":
            continue
        assert budgets[name]["spec"]["maxUnavailable"] == 1
        assert spec.get("replicas", 2) >= 2
        if workload["kind"] == "Deployment":
            assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        else:
            assert spec["podManagementPolicy"] == "Parallel"
            assert "updateStrategy" not in spec  # one by one, by default
        for spread in spec["template"]["spec"]["topologySpreadConstraints"]:
            assert rendered.selected(spread["labelSelector"]["matchLabels"]) == [name]


# What refers to what


def targets(rendered: Any, selecting: dict[str, Any]) -> list[str]:
    return list(rendered.selected(selecting["spec"]["selector"]["matchLabels"]))


def test_every_selector_finds_the_workload_of_its_name(rendered: Any) -> None:
    for each in rendered.of("Deployment", "StatefulSet", "PodDisruptionBudget", "PodMonitor"):
        assert targets(rendered, each) == [each["metadata"]["name"]]
    for service in rendered.of("Service"):
        [found] = rendered.selected(service["spec"]["selector"])
        assert service["metadata"]["name"].startswith(found)
    for policy in rendered.of("NetworkPolicy"):
        if selector := policy["spec"]["podSelector"]:
            [found] = rendered.selected(selector["matchLabels"])
            assert policy["metadata"]["name"].startswith(found)


def ports(container: dict[str, Any]) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def test_a_container_has_the_ports_that_its_program_listens_on(overlay: Any, kubelet: Any) -> None:
    for program in kubelet.start(overlay):
        listening = {
            name: address
            for name in ("listen", "metrics_listen", "health_listen")
            if (address := getattr(program.settings, name, None)) is not None
        }
        assert sorted(ports(program.container).values()) == sorted(each.port for each in listening.values())
        assert {each.host for each in listening.values()} == {"0.0.0.0"}  # noqa: S104  (read, not bound to)


def test_a_service_leads_to_a_port_that_is_there(rendered: Any) -> None:
    for service in rendered.of("Service"):
        [found] = rendered.selected(service["spec"]["selector"])
        [container] = rendered.workload(found)["spec"]["template"]["spec"]["containers"]
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports(container)


def test_replicas_advertise_a_name_that_their_set_gives_them(overlay: Any, kubelet: Any) -> None:
    """With the port that they listen on; and the name is known while a replica is not ready."""
    for program in kubelet.start(overlay):
        if program.name == "openline-broker":
            governing = overlay.one("Service", overlay.workload("openline-broker")["spec"]["serviceName"])["spec"]
            assert (governing["clusterIP"], governing["publishNotReadyAddresses"]) == ("None", True)
            host, port = program.settings.advertise.host, program.settings.advertise.port
            assert host == "openline-broker-1.openline-brokers.openline.svc"
            assert port == program.settings.listen.port == governing["ports"][0]["port"]


def test_whoever_dials_brokers_dials_a_service_of_theirs(overlay: Any, kubelet: Any) -> None:
    """Of this installation, or one elsewhere; by a port that the Service has."""
    for program in kubelet.start(overlay):
        for address in getattr(program.settings, "broker", ()):
            if address.host == "brokers.example.com":
                assert overlay.name in ("overlays/executor", "overlays/sidecar")
                continue
            *pod, service = address.host.removesuffix(".openline.svc").split(".")
            spec = overlay.one("Service", service)["spec"]
            assert [port["port"] for port in spec["ports"]] == [address.port]
            assert bool(pod) == (spec.get("clusterIP") == "None")
            minimum = overlay.workload("openline-broker")["spec"].get("replicas", 3)
            assert all(re.fullmatch(r"openline-broker-\d", each) and int(each[-1]) < minimum for each in pod)


# Probes


def probes(container: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        if kind in container:
            yield kind, container[kind]["httpGet"]


async def test_probes_ask_what_the_programs_answer(overlay: Any, kubelet: Any) -> None:
    """And with TLS where the program speaks it."""
    async with serve_health(Address("127.0.0.1:0"), healthy=lambda: True, otherwise="") as port:
        app = build_app(Pipes([Address("127.0.0.1:9")], client="test"))
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")
        async with http, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as page:
            for program in kubelet.start(overlay):
                client = http if program.name == "openline-gateway" else page
                where = "listen" if program.name == "openline-gateway" else "health_listen"
                for kind, asked in probes(program.container):
                    answer = await client.get(asked["path"])
                    # The gateway here has no broker, which only /health minds.
                    assert answer.status_code == (503 if asked["path"] == "/health" else 200), asked
                    assert ports(program.container)[asked["port"]] == getattr(program.settings, where).port
                    speaks_tls = where == "listen" and bool(program.settings.listen_tls)
                    assert asked.get("scheme", "HTTP") == ("HTTPS" if speaks_tls else "HTTP"), kind


def test_nothing_is_restarted_because_something_else_is_away(overlay: Any) -> None:
    """Liveness asks whether the process answers, and readiness whether it is of use."""
    alive = {"openline-gateway": "/healthz"}
    ready = {"openline-gateway": "/health"}
    for program, _, container in overlay.programs():
        asked = {kind: probe["path"] for kind, probe in probes(container)}
        assert asked["livenessProbe"] == alive.get(program, "/livez")
        if "readinessProbe" in asked:
            assert asked["readinessProbe"] == ready.get(program, "/healthz")
        else:
            # A sidecar's would hold up the pod's own work.
            assert overlay.name == "overlays/sidecar"


# Security


def test_every_container_is_confined(rendered: Any) -> None:
    """As the Pod Security Standard `restricted` has it, and with a root that nobody writes to."""
    for pod, container in rendered.containers():
        of_pod, own = pod.get("securityContext", {}), container["securityContext"]
        both = of_pod | own
        assert both["runAsNonRoot"] is True
        assert both["runAsUser"] > 0
        assert both["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not [volume for volume in pod.get("volumes", ()) if "hostPath" in volume]


def test_the_namespace_takes_no_other_pods(overlay: Any) -> None:
    for namespace in overlay.of("Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert len(overlay.of("Namespace")) == (overlay.name != "overlays/sidecar")


def test_memory_is_bounded_and_what_is_written_too(rendered: Any) -> None:
    for pod, container in rendered.containers():
        if container["name"] != "app":
            assert {"cpu", "memory"} == container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
        for volume in pod.get("volumes", ()):
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": None})


def test_only_an_executors_container_has_a_service_accounts_token(rendered: Any) -> None:
    """Not even other containers of its pod."""
    for pod, container in rendered.containers():
        assert pod["automountServiceAccountToken"] is False
        projected = {volume["name"] for volume in pod.get("volumes", ()) if "projected" in volume}
        mounted = {mount["name"]: mount for mount in container.get("volumeMounts", ())}
        is_executor = container["image"].startswith("openline-executor:")
        assert bool(projected & mounted.keys()) == is_executor
        for name in projected & mounted.keys():
            assert mounted[name]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
            assert pod["serviceAccountName"] == "openline-executor"


def test_an_executors_account_is_bound_in_its_own_namespace(overlay: Any) -> None:
    """To the role of rbac.yaml and to no other."""
    bindings = overlay.of("ClusterRoleBinding", "RoleBinding")
    accounts = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in overlay.of("ServiceAccount")}
    assert [binding["roleRef"]["name"] for binding in bindings] == ["openline-executor"] * len(bindings)
    assert {(s["namespace"], s["name"]) for binding in bindings for s in binding["subjects"]} == accounts


def test_sidecars_of_two_namespaces_are_bound_by_two_bindings(tmp_path: Path) -> None:
    """A binding has no namespace: of two with the same name the later one would take the rights of the first."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/overlays/sidecar"
    bound = set()
    for namespace in ("shop", "bank"):
        text = (KUBERNETES / "overlays/sidecar/kustomization.yaml").read_text()
        (overlay.with_name(namespace)).mkdir()
        for each in ("app.yaml", "binding.yaml"):
            shutil.copy(overlay / each, overlay.with_name(namespace))
        (overlay.with_name(namespace) / "kustomization.yaml").write_text(
            text.replace("namespace: shop", f"namespace: {namespace}")
        )
        run = subprocess.run(
            [kubectl_path(), "kustomize", overlay.with_name(namespace)],
            capture_output=True, text=True, timeout=60, check=True, env={},
        )  # fmt: skip
        [binding] = [each for each in yaml.safe_load_all(run.stdout) if each["kind"] == "ClusterRoleBinding"]
        [subject] = binding["subjects"]
        bound.add((binding["metadata"]["name"], subject["name"], subject["namespace"]))
    assert bound == {
        ("openline-executor.shop", "openline-executor", "shop"),
        ("openline-executor.bank", "openline-executor", "bank"),
    }


def test_what_has_to_be_writable_is_a_volume(overlay: Any, kubelet: Any) -> None:
    for program in kubelet.start(overlay):
        mounts = {
            mount["mountPath"] for mount in program.container.get("volumeMounts", ()) if not mount.get("readOnly")
        }
        if program.name == "openline-executor":
            spool = program.settings.spool_dir is not None
            assert mounts == {"/tmp", *(["/var/spool/openline"] if spool else [])}  # noqa: S108  (kubectl's home is there)
        else:
            assert mounts == set()


# Scaling and watching


def test_autoscalers_scale_what_is_there_by_a_measure_that_is_there(production: Any) -> None:
    """And nobody else sets the number."""
    rule = yaml.safe_load((KUBERNETES / "components/autoscaling/prometheus-adapter.yaml").read_text())
    [custom] = rule["rules"]["custom"]
    scalers = production.of("HorizontalPodAutoscaler")
    assert {each["metadata"]["name"] for each in scalers} == {"openline-broker", "openline-gateway"}
    for scaler in scalers:
        spec = scaler["spec"]
        workload = production.one(spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
        assert workload["apiVersion"] == spec["scaleTargetRef"]["apiVersion"]
        assert "replicas" not in workload["spec"]
        assert spec["minReplicas"] >= 2
        [measure] = spec["metrics"]
        if measure["type"] == "Pods":
            assert measure["pods"]["metric"]["name"] == custom["name"]["as"] == metrics.IN_FLIGHT.name
            assert custom["seriesQuery"].partition("{")[0] == metrics.IN_FLIGHT.name
            # Over its states, but a command that was forwarded counts at one replica only.
            assert custom["metricsQuery"] == 'sum(<<.Series>>{<<.LabelMatchers>>,state!="forwarded"}) by (<<.GroupBy>>)'
        else:
            [container] = workload["spec"]["template"]["spec"]["containers"]
            assert measure["resource"]["name"] in container["resources"]["requests"]


def test_no_session_sticks_to_a_replica(rendered: Any) -> None:
    for service in rendered.of("Service"):
        assert service["spec"].get("sessionAffinity", "None") == "None"


def test_prometheus_finds_the_ports(production: Any, kubelet: Any) -> None:
    named = {each.name: ports(each.container) for each in kubelet.start(production)}
    tls = {each.name: bool(getattr(each.settings, "listen_tls", None)) for each in kubelet.start(production)}
    monitors = production.of("PodMonitor")
    assert {each["metadata"]["name"] for each in monitors} == named.keys()
    for monitor in monitors:
        name = monitor["metadata"]["name"]
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in named[name]
        assert endpoint["path"] == "/metrics"
        assert endpoint.get("scheme", "http") == ("https" if tls[name] else "http")


def test_traces_are_on_where_the_component_is_and_nowhere_else(traced: Any, overlay: Any, kubelet: Any) -> None:
    """At each program, by variables that docs/operating.md tells of."""
    assert not [each.name for each in kubelet.start(overlay) if are_wanted(each.variables)]
    documented = (ROOT / "docs/operating.md").read_text()
    for program in kubelet.start(traced):
        assert are_wanted(program.variables), program.name
        assert not [name for name in program.variables if name.startswith("OTEL_") and f"`{name}`" not in documented]
        assert 0 < float(program.variables["OTEL_TRACES_SAMPLER_ARG"]) <= 1
    for each in traced.objects:
        if each["apiVersion"] not in CUSTOM:
            kubernetes_validate.validate(each, VERSION, strict=True)
