"""Secrets and certificates of the manifests: each has a maker, none is in a file, names are those that are dialed."""

import re
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
README = (DEPLOY / "README.md").read_text()
CERTIFICATE_KEYS = {"ca.crt", "tls.crt", "tls.key"}


def wanted(rendered: Any) -> set[tuple[str, str]]:
    """Secret and key of everything that a pod needs."""
    found: set[tuple[str, str]] = set()
    for pod, container in rendered.containers():
        for variable in container.get("env", ()):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                found.add((reference["name"], reference["key"]))
        for volume in pod.get("volumes", ()):
            if secret := volume.get("secret"):
                keys = [item["key"] for item in secret.get("items", ())] or CERTIFICATE_KEYS
                found |= {(secret["secretName"], key) for key in keys}
    return found


def made_by_hand(text: str) -> set[tuple[str, str]]:
    """What `kubectl create secret` in a text makes."""
    commands = re.findall(r"create secret generic (\S+)((?:[^\n]*\\\n(?:#\s*)?)*[^\n]*)", text)
    return {(name, key) for name, rest in commands for key in re.findall(r"--from-(?:literal|file)=([\w.-]+)", rest)}


def made_by_cert_manager(rendered: Any) -> set[tuple[str, str]]:
    names = {each["spec"]["secretName"] for each in rendered.of("Certificate")}
    return {(name, key) for name in names for key in CERTIFICATE_KEYS}


def section(title: str) -> str:
    """The part of the README below this heading."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


TRIAL, FOR_GOOD = "In Kubernetes, in five minutes", "In Kubernetes, for good"


def test_each_secret_is_made_by_a_command_beside_which_it_is_used_or_by_cert_manager(overlay: Any) -> None:
    by_hand = made_by_hand(section(TRIAL if overlay.name == "overlays/trial" else FOR_GOOD))
    assert wanted(overlay) - by_hand - made_by_cert_manager(overlay) == set()


def test_no_command_makes_what_nobody_needs(overlays: Any) -> None:
    needed = {overlay.name: wanted(overlay) for overlay in overlays}
    assert made_by_hand(section(TRIAL)) == needed.pop("overlays/trial")
    assert made_by_hand(section(FOR_GOOD)) <= set().union(*needed.values())


def test_no_credential_is_in_a_file(rendered: Any) -> None:
    assert rendered.of("Secret") == []
    for each in rendered.of("ConfigMap"):
        assert not [name for name in each["data"] if re.search("KEYS|TOKEN(S|$)|SECRET|PASSWORD|REDIS_URL", name)]


@pytest.mark.parametrize("title", [TRIAL, FOR_GOOD, "On one machine, with Compose"])
def test_a_command_uses_no_variable_that_nobody_has_set(title: str) -> None:
    """An empty one would be a credential that anybody has."""
    text = "\n".join(re.findall(r"^```\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE))
    used = set(re.findall(r"\$([A-Z_]+)", text))
    assert used
    assert used - set(re.findall(r"\b([A-Z_]+)=", text)) - set(re.findall(r"read -rs ([A-Z_]+)", text)) == set()


def covers(pattern: str, host: str) -> bool:
    """RFC 6125: a star stands for one label."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[^.]+"), host) is not None


def test_a_certificate_has_every_name_that_it_is_asked_for(production: Any, kubelet: Any) -> None:
    """By gateways, by the other replicas, and by executors elsewhere."""
    names = production.one("Certificate", "openline-broker")["spec"]["dnsNames"]
    dialed = {"brokers.example.com"}
    for program in kubelet.start(production):
        if program.name == "openline-broker":
            dialed.add(program.settings.advertise.host)
        else:
            dialed |= {address.host for address in program.settings.broker}
    assert len(dialed) == 5
    assert {host for host in dialed if not any(covers(name, host) for name in names)} == set()


def test_the_gateways_certificate_has_the_names_that_it_is_called_by(production: Any) -> None:
    names = production.one("Certificate", "openline-gateway-listen")["spec"]["dnsNames"]
    monitor = production.one("PodMonitor", "openline-gateway")["spec"]["podMetricsEndpoints"][0]
    assert monitor["tlsConfig"]["serverName"] in names
    [ingress] = production.of("Ingress")
    assert {rule["host"] for rule in ingress["spec"]["rules"]} <= set(names)
    [rule] = ingress["spec"]["rules"]
    for path in rule["http"]["paths"]:
        backend = path["backend"]["service"]
        service = production.one("Service", backend["name"])["spec"]
        assert [port["name"] for port in service["ports"]] == [backend["port"]["name"]]


@pytest.mark.parametrize(
    ("name", "usages"),
    [
        ("openline-broker", {"server auth", "client auth"}),  # replicas are each other's clients
        ("openline-gateway", {"client auth"}),
        ("openline-gateway-listen", {"server auth"}),
        ("openline-redis", {"client auth"}),
        ("openline-executor-prod-east", {"client auth"}),
    ],
)
def test_a_certificate_is_good_for_what_it_is_shown_for(production: Any, name: str, usages: set[str]) -> None:
    spec = production.one("Certificate", name)["spec"]
    assert set(spec["usages"]) == usages | {"digital signature"}
    issuer = production.one(spec["issuerRef"]["kind"], spec["issuerRef"]["name"])["spec"]
    authority = production.one("Certificate", "openline-ca")["spec"]
    assert issuer["ca"]["secretName"] == authority["secretName"]
    assert authority["isCA"] is True
    assert production.one("Issuer", authority["issuerRef"]["name"])["spec"] == {"selfSigned": {}}


def test_tls_is_mutual_between_programs_of_ours(production: Any, kubelet: Any) -> None:
    for program in kubelet.start(production):
        settings = program.settings
        assert None not in (settings.tls_cert, settings.tls_key)
        assert (settings.tls_client_ca if program.name == "openline-broker" else settings.tls_ca) is not None
        if program.name == "openline-broker":
            assert settings.redis_url.startswith("rediss://")


def test_a_service_says_plaintext_only_where_there_is_plaintext(trial: Any, production: Any) -> None:
    """A mesh or a proxy that is told h2c of a port with TLS speaks plaintext to it."""
    said = [
        {port.get("appProtocol") for service in each.of("Service") for port in service["spec"]["ports"]}
        for each in (trial, production)
    ]
    assert said == [{None, "kubernetes.io/h2c"}, {None}]
