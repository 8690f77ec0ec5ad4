"""What the files under deploy/ come to: kustomize's output by the real kubectl, and what a program takes of it.

A container's flags and variables are read by the program's own settings, with its Secrets and ConfigMaps as files and
variables, as a kubelet would make them.
"""

import functools
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from broker import draining, replica, server
from broker.settings import BrokerSettings
from broker.store import store
from demo.kubectl import kubectl_path
from executor import main, orphans
from executor.settings import ExecutorSettings, load_settings
from gateway import serving
from gateway.settings import GatewaySettings
from openline.settings import NetworkSettings, load

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
# What can be applied, and what such things are made of.
WHOLE = ("overlays/trial", "overlays/production", "overlays/executor", "overlays/sidecar")
BASES = ("base", "executor")
PROGRAMS: Mapping[str, type[NetworkSettings]] = {
    "openline-broker": BrokerSettings,
    "openline-executor": ExecutorSettings,
    "openline-gateway": GatewaySettings,
}
# OpenTelemetry's variables that a manifest may give: those that docs/operating.md tells of.
TRACING = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}
# What a person makes, as deploy/README.md and the overlays say, with values of the right shape.
SECRETS = {
    "openline-broker": {
        "api-keys": "me:key-of-the-manifests:execute+session+read",
        "executor-tokens": "here:token-of-the-manifests",
        "peer-secret": "secret-of-the-manifests",
    },
    "openline-executor": {"token": "token-of-the-manifests"},
    "openline-redis": {
        "password": "00ff00ff00ff00ff",
        "url": "rediss://:word@redis.example.com:6379/0?ssl_ca_certs=/etc/openline/redis/ca.crt"
        "&ssl_certfile=/etc/openline/redis/tls.crt&ssl_keyfile=/etc/openline/redis/tls.key",
    },
    "openline-executor-tls": {},
}
# How long each program's stop may take, seconds: the sum of what it waits for, one after the other.
STOP_S = {
    "openline-broker": draining.DRAIN_S + server.STOP_GRACE_S + replica.LEAVE_S + store.DRAIN_S,
    "openline-gateway": serving.GRACE_S,
    "openline-executor": main.DRAIN_S[signal.SIGTERM]
    + main.KILLED_S
    + main.ACKED_S
    + orphans.LAST_ROUNDS * orphans.ROUND_S,
}
# For what has no bound of its own: closing sockets on a busy machine.
MARGIN_S = 5.0
FIELDS = {"metadata.name": "openline-broker-1", "metadata.namespace": "openline"}


@functools.cache
def kustomize(path: Path) -> tuple[dict[str, Any], ...]:
    run = subprocess.run(
        [kubectl_path(), "kustomize", path], capture_output=True, text=True, timeout=60, check=False, env={}
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stderr
    return tuple(yaml.safe_load_all(run.stdout))


@dataclass(frozen=True)
class Rendered:
    """The objects that `kubectl apply -k` would send."""

    name: str
    objects: tuple[dict[str, Any], ...]

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [each for each in self.objects if each["kind"] in kinds]

    def one(self, kind: str, name: str) -> dict[str, Any]:
        [found] = [each for each in self.of(kind) if each["metadata"]["name"] == name]
        return found

    @property
    def workloads(self) -> list[dict[str, Any]]:
        return self.of("Deployment", "StatefulSet")

    def workload(self, name: str) -> dict[str, Any]:
        [found] = [each for each in self.workloads if each["metadata"]["name"] == name]
        return found

    def containers(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Each with the pod that it is in."""
        for workload in self.workloads:
            pod = workload["spec"]["template"]["spec"]
            for container in [*pod.get("initContainers", ()), *pod["containers"]]:
                yield pod, container

    def programs(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """The containers that are ours, by the name of their image."""
        for pod, container in self.containers():
            program = container["image"].rpartition(":")[0].rpartition("/")[2]
            if program in PROGRAMS:
                yield program, pod, container

    def selected(self, labels: Mapping[str, str]) -> list[str]:
        """The workloads whose pods have these labels."""
        return [
            each["metadata"]["name"]
            for each in self.workloads
            if labels.items() <= each["spec"]["template"]["metadata"]["labels"].items()
        ]


def render(name: str) -> Rendered:
    return Rendered(name, kustomize(KUBERNETES / name))


@pytest.fixture(params=WHOLE)
def overlay(request: pytest.FixtureRequest) -> Rendered:
    return render(request.param)


@pytest.fixture(scope="session")
def needed_to_stop_s() -> dict[str, float]:
    """How long each program must be let to stop."""
    return {name: stop_s + MARGIN_S for name, stop_s in STOP_S.items()}


@pytest.fixture(scope="session")
def stop_s() -> dict[str, float]:
    """How long each program's stop may take."""
    return STOP_S


@pytest.fixture(scope="session")
def overlays() -> list[Rendered]:
    return [render(name) for name in WHOLE]


@pytest.fixture(params=(*WHOLE, *BASES))
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(request.param)


@pytest.fixture(scope="session")
def trial() -> Rendered:
    return render("overlays/trial")


@pytest.fixture(scope="session")
def production() -> Rendered:
    return render("overlays/production")


@pytest.fixture(scope="session")
def pems() -> dict[str, bytes]:
    """What a Secret with a certificate has."""
    authority = trustme.CA()
    issued = authority.issue_cert("openline.test")
    return {
        "ca.crt": authority.cert_pem.bytes(),
        "tls.crt": issued.cert_chain_pems[0].bytes(),
        "tls.key": issued.private_key_pem.bytes(),
    }


@pytest.fixture(scope="session", params=("overlays/trial", "overlays/production", "overlays/executor"))
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """What can be applied, with the component that no overlay of ours has."""
    directory = tmp_path_factory.mktemp("traced").resolve()
    made_of = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(KUBERNETES / request.param, directory)],
        "components": [os.path.relpath(KUBERNETES / "components/tracing", directory)],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(made_of))
    return Rendered(request.param, kustomize(directory))


@dataclass(frozen=True)
class Program:
    """A container of ours, and what its program makes of what it is given."""

    name: str
    pod: dict[str, Any]
    container: dict[str, Any]
    variables: Mapping[str, str]
    settings: Any


class Kubelet:
    """Gives a container its arguments and variables, and has the program's own settings read them. What would be
    mounted are files in a directory of the test's."""

    def __init__(self, pems: Mapping[str, bytes], directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pems = pems
        self._directory = directory
        self._monkeypatch = monkeypatch

    def start(self, rendered: Rendered) -> list[Program]:
        """Every container of ours; SystemExit where a program would end."""
        programs = []
        for name, pod, container in rendered.programs():
            arguments, variables = self._given(rendered, pod, container)
            programs.append(Program(name, pod, container, variables, self.settle(name, arguments, variables)))
        return programs

    def settle(self, name: str, arguments: list[str], variables: Mapping[str, str]) -> NetworkSettings:
        settings = PROGRAMS[name]
        ours = {variable for variable in variables if variable.startswith("OPENLINE_")}
        known = {f"OPENLINE_{field.upper()}" for field in settings.model_fields}
        assert ours <= known, f"{name} has no {ours - known}"
        of_tracing = {variable for variable in variables if variable.startswith("OTEL_")}
        assert of_tracing <= TRACING, f"nobody knows {of_tracing - TRACING}"
        with self._monkeypatch.context() as environment:
            environment.setenv("PATH", str(kubectl_path().parent))
            for variable in ours:
                environment.setenv(variable, variables[variable])
            if settings is ExecutorSettings:
                return load_settings(arguments)
            return load(settings, program=name, arguments=arguments)

    def _given(
        self, rendered: Rendered, pod: dict[str, Any], container: dict[str, Any]
    ) -> tuple[list[str], dict[str, str]]:
        variables: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            variables |= rendered.one("ConfigMap", source["configMapRef"]["name"])["data"]
        for each in container.get("env", ()):
            assert each["name"] not in variables, f"{each['name']} is given twice"
            variables[each["name"]] = _value(each, variables)
        arguments = [_expand(argument, variables) for argument in container.get("args", ())]
        moved = self._mount(pod, container)

        mounted = "|".join(moved) or "(?!)"  # else nothing

        def move(value: str) -> str:
            return re.sub(rf"(?<![^=])({mounted})(?=/|$)", lambda found: str(moved[found[1]]), value)

        return [move(argument) for argument in arguments], {name: move(value) for name, value in variables.items()}

    def _mount(self, pod: dict[str, Any], container: dict[str, Any]) -> dict[str, Path]:
        """Where what would be mounted is instead."""
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        places: dict[str, Path] = {}
        for mount in container.get("volumeMounts", ()):
            place = places[mount["mountPath"]] = self._directory / mount["mountPath"].strip("/").replace("/", "-")
            place.mkdir(exist_ok=True)
            if (secret := volumes[mount["name"]].get("secret")) is not None:
                texts = SECRETS.get(secret["secretName"], {})
                contents = {key: text.encode() for key, text in texts.items()} or self._pems
                for item in secret.get("items", [{"key": key, "path": key} for key in contents]):
                    (place / item["path"]).write_bytes(contents[item["key"]])
        return places


def _value(variable: dict[str, Any], before: Mapping[str, str]) -> str:
    match variable:
        case {"value": str(value)}:
            return _expand(value, before)
        case {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}}:
            return SECRETS[name][key]
        case {"valueFrom": {"fieldRef": {"fieldPath": path}}}:
            return FIELDS[path]
    raise AssertionError(variable)


def _expand(value: str, before: Mapping[str, str]) -> str:
    """`$(NAME)`, as a kubelet does it: of what was given before."""
    return re.sub(r"\$\((\w+)\)", lambda found: before[found[1]], value)


@pytest.fixture
def kubelet(pems: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubelet:
    return Kubelet(pems, tmp_path, monkeypatch)
