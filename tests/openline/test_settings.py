"""Flags and variables."""

from pathlib import Path
from typing import Self

import pytest
import structlog
import trustme
from pydantic import Field, SecretStr, model_validator
from structlog.testing import capture_logs

from openline.settings import (
    Address,
    Addresses,
    CertificateFile,
    NetworkSettings,
    ProgramSettings,
    ReadableFile,
    check_tls_pair,
    load,
)


class Settings(ProgramSettings):
    """A program for this test."""

    broker: Addresses = (Address("127.0.0.1:50051"),)
    """Brokers."""
    token: SecretStr | None = None
    """A secret."""
    ttl: float = Field(3600, gt=0)
    """How long, seconds."""
    tls_cert: CertificateFile | None = None
    """A certificate."""
    tls_key: ReadableFile | None = None
    """Its key."""

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        check_tls_pair(self.tls_cert, self.tls_key)
        return self


def read(*arguments: str) -> Settings:
    return load(Settings, program="openline-test", arguments=arguments)


def test_a_flag_wins_over_its_variable_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flag has an environment variable: OPENLINE_ and the flag in capitals."""
    assert read().ttl == 3600
    monkeypatch.setenv("OPENLINE_TTL", "5")
    assert read().ttl == 5
    assert read("--ttl", "6").ttl == 6


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the command line and in the environment alike."""
    assert read("--broker", "a:1, b:2").broker == ("a:1", "b:2")
    monkeypatch.setenv("OPENLINE_BROKER", "c:3,[::1]:4")
    assert read().broker == ("c:3", "[::1]:4")
    assert [(each.host, each.port) for each in read().broker] == [("c", 3), ("::1", 4)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--bogus"], "--bogus"),
        (["--ttl", "soon"], "--ttl"),
        (["--ttl", "-1"], "--ttl"),
        (["--broker", "nowhere"], "--broker"),
        (["--broker", ","], "--broker"),
        (["--broker", "a:99999"], "--broker"),
        (["--log-level", "loud"], "--log-level"),
        (["--broker"], "--broker"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_flag(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one line on stderr."""
    with pytest.raises(SystemExit) as ended:
        read(*arguments)
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("openline-test: ")
    assert named in line


def test_help_says_defaults_and_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """A person can find out without the documentation."""
    with pytest.raises(SystemExit) as ended:
        read("--help")
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "How long, seconds. (default: 3600) [env: OPENLINE_TTL]" in text


def test_secrets_do_not_show() -> None:
    """Neither in a repr nor in a message about a mistake."""
    assert "hunter2" not in repr(read("--token", "hunter2"))


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("0.0.0.0:1", False), ("db:1", False)],
)
def test_loopback_is_known(text: str, loopback: bool) -> None:
    """What may be plaintext."""
    assert Address.parse(text).is_loopback is loopback


class Networked(NetworkSettings):
    """A program that speaks plaintext."""

    broker: Address = Address("127.0.0.1:1")
    """A broker."""

    @property
    def plaintext(self) -> list[tuple[str, str]]:
        return [] if self.broker.is_loopback else [("--broker", self.broker), ("--other", "h:2")]


def test_plaintext_leaves_this_machine_only_when_it_is_allowed_to(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line that names the flag and what allows it; allowed, it is a warning each."""
    structlog.reset_defaults()
    with pytest.raises(SystemExit) as ended:
        load(Networked, program="openline-test", arguments=["--broker", "h:1"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "openline-test: --broker: plaintext at h:1 leaves this machine; use TLS, or allow it by --insecure\n"
    )
    for arguments, warned in (
        (["--broker", "h:1", "--insecure"], [("warning", "--broker", "h:1"), ("warning", "--other", "h:2")]),
        (["--insecure"], []),
        ([], []),
    ):
        with capture_logs() as lines:
            load(Networked, program="openline-test", arguments=arguments).warn_of_plaintext()
        assert [(line["log_level"], line["flag"], line["address"]) for line in lines] == warned


@pytest.fixture
def pems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, which is the current one, with a certificate, its key and another key."""
    authority = trustme.CA()
    own, other = authority.issue_cert("own.test"), authority.issue_cert("other.test")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    own.private_key_pem.write_to_path(tmp_path / "key")
    other.private_key_pem.write_to_path(tmp_path / "other")
    (tmp_path / "text").write_text("hello")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_certificate_and_its_key_are_taken(pems: Path) -> None:
    """As absolute paths, wherever the program goes from here."""
    settings = read("--tls-cert", "cert", "--tls-key", "key")
    assert (settings.tls_cert, settings.tls_key) == (pems / "cert", pems / "key")


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("missing", "key", "--tls-cert: cannot read missing: No such file or directory"),
        (".", "key", "--tls-cert: . is not a file"),
        ("text", "key", "--tls-cert: there is no PEM certificate in {}/text"),
        ("key", "key", "--tls-cert: there is no PEM certificate in {}/key"),
        ("cert", "missing", "--tls-key: cannot read missing: No such file or directory"),
        ("cert", "text", "--tls-key: there is no PEM key in {}/text that can be used with {}/cert"),
        ("cert", "other", "--tls-key: {}/other is not the key of {}/cert"),
        ("cert", None, "--tls-cert and --tls-key go together"),
        (None, "key", "--tls-cert and --tls-key go together"),
    ],
)
def test_tls_files_that_do_not_fit(
    pems: Path, cert: str | None, key: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, which names the flag once and says what is wrong with its file."""
    with pytest.raises(SystemExit) as ended:
        read(*(["--tls-cert", cert] if cert else []), *(["--tls-key", key] if key else []))
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"openline-test: {said.replace('{}', str(pems))}\n"
