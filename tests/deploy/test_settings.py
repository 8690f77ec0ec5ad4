"""The manifests against the programs: whatever a container is given, its program takes."""

import re
from pathlib import Path
from typing import Any

import pytest

from broker.core.credentials import Credentials
from broker.settings import BrokerSettings
from executor.settings import ExecutorSettings
from gateway.settings import GatewaySettings

README = Path(__file__).parents[2] / "deploy/README.md"
# Of docker, kubectl, pip and the rest.
FOREIGN = {
    "build", "build-arg", "flatten", "from-file", "from-literal", "help", "minify", "raw", "target", "wait",
}  # fmt: skip


def test_every_container_of_ours_is_given_what_its_program_takes(overlay: Any, kubelet: Any) -> None:
    """Every flag and variable exists, and every value is accepted: by the settings, and credentials by the broker."""
    programs = kubelet.start(overlay)
    assert programs
    for program in programs:
        if program.name == "openline-broker":
            settings = program.settings
            Credentials(
                api_keys=[entry.get_secret_value() for entry in settings.api_keys],
                executor_tokens=[entry.get_secret_value() for entry in settings.executor_tokens],
                executor_certificates=settings.executor_certificates,
            )
            assert settings.redis_url is not None
            assert settings.peer_secret is not None


def test_nothing_speaks_plaintext_but_the_trial(overlay: Any, kubelet: Any) -> None:
    for program in kubelet.start(overlay):
        settings = program.settings
        assert settings.insecure == bool(settings.plaintext) == (overlay.name == "overlays/trial"), program.name


@pytest.mark.parametrize("rendered", ["base", "executor"], indirect=True)
def test_a_base_alone_starts_nothing(rendered: Any, kubelet: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It has neither TLS nor the leave to speak plaintext, and whoever applies it is told so."""
    with pytest.raises(SystemExit):
        kubelet.start(rendered)
    assert re.search(r"plaintext at \S+ leaves this machine|cluster.id", capsys.readouterr().err)


def test_a_variable_that_a_program_has_not_would_be_noticed(kubelet: Any) -> None:
    """The programs themselves pass over it."""
    with pytest.raises(AssertionError, match="OPENLINE_QUOTAS"):
        kubelet.settle("openline-broker", [], {"OPENLINE_QUOTAS": "5"})


def test_no_service_can_become_a_setting(rendered: Any) -> None:
    """A Service `openline-broker` would be told to each pod as OPENLINE_BROKER_PORT and the like."""
    for pod, _ in rendered.containers():
        assert pod["enableServiceLinks"] is False


def test_the_readme_names_flags_that_there_are() -> None:
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*[a-z])(?![a-z-])", README.read_text())) - FOREIGN
    known = {
        field.replace("_", "-")
        for settings in (BrokerSettings, ExecutorSettings, GatewaySettings)
        for field in settings.model_fields
    }
    assert len(named) > 20
    assert named <= known
