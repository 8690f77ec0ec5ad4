"""Flags and variables of the executor."""

import sys
from pathlib import Path

import certifi
import pytest
import trustme

from executor.labels import check_labels
from executor.settings import ExecutorSettings, load_settings

KUBECTL = sys.executable  # any program that exists


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("OPENLINE_")]:
        monkeypatch.delenv(name)


def read(*flags: str) -> ExecutorSettings:
    return load_settings(["--cluster-id", "prod-east", "--kubectl", KUBECTL, *flags])


def test_only_the_cluster_and_a_token_are_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything else has a default; kubectl is found on PATH."""
    (tmp_path / "kubectl").write_text("#!/bin/sh\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = load_settings(["--cluster-id", "local", "--token", "t"])
    assert settings.kubectl == tmp_path / "kubectl"
    assert settings.broker == ("127.0.0.1:50051",)
    assert settings.max_concurrency == 8
    assert settings.executor_id
    assert settings.kubeconfig is settings.health_listen is None


def test_variables_stand_for_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINE_BROKER", "a:1,b:2")
    monkeypatch.setenv("OPENLINE_INSECURE", "true")
    monkeypatch.setenv("OPENLINE_TOKEN", "from-the-environment")
    settings = read("--max-concurrency", "3")
    assert settings.broker == ("a:1", "b:2")
    assert settings.read_token() == "from-the-environment"
    assert settings.max_concurrency == 3


def test_a_certificate_stands_for_a_token(tmp_path: Path) -> None:
    """If there is neither a token nor a file of one; and with TLS a broker may be anywhere."""
    own = trustme.CA().issue_cert("prod-east")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    own.private_key_pem.write_to_path(tmp_path / "key")
    pair = ("--tls-cert", str(tmp_path / "cert"), "--tls-key", str(tmp_path / "key"))
    settings = read(*pair, "--broker", "192.0.2.1:1")
    assert settings.read_token() is None
    assert settings.plaintext == []
    assert read(*pair, "--token", "t").read_token() == "t"


def test_a_token_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    settings = read("--token-file", str(file))
    assert settings.read_token() == "one"
    file.write_text("two")
    assert settings.read_token() == "two"


def test_a_token_is_not_shown() -> None:
    assert "hush" not in repr(read("--token", "hush"))


@pytest.mark.parametrize(
    "label",
    ["env=prod", "a=", "example.com/region=eu-west_1.b", "A.b-c_d=X", f"{'a' * 63}={'b' * 63}", f"{'a' * 61}.b/c=d"],
)
def test_labels_have_the_syntax_of_kubernetes(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By flag or variable, several between commas."""
    assert read("--token", "t", "--labels", f"x=y,{label}").labels == ("x=y", label)
    monkeypatch.setenv("OPENLINE_LABELS", label)
    assert read("--token", "t").labels == (label,)


@pytest.mark.parametrize(
    "label",
    [
        "env", "=prod", "-a=b", "a-=b", "a/b/c=d", "/a=b", "Example.com/a=b", "a..b/c=d", "a=b=c", "a=-b", "a=é", "é=a",
        f"{'a' * 64}=b", f"a={'b' * 64}", f"{'.'.join(['abcdefg'] * 32)}/a=b", "a\n=b",
    ],
)  # fmt: skip
def test_what_kubernetes_would_not_take_is_no_label(label: str) -> None:
    with pytest.raises(ValueError, match=r"label|KEY=VALUE"):
        check_labels([label])


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "--token"),
        (["--token", "t", "--kubectl", "/nowhere/kubectl"], "--kubectl"),
        (["--token", "t", "--broker", "nowhere"], "--broker"),
        (["--token", "t", "--broker", "127.0.0.1:1,192.0.2.1:1"], "--broker: plaintext at 192.0.2.1:1"),
        (["--tls-ca", certifi.where()], "--token"),
        (["--token", "t", "--max-concurrency", "0"], "--max-concurrency"),
        (["--token", "t", "--cluster-id", "UPPER"], "--cluster-id"),
        (["--token", "t", "--executor-id", "a b"], "--executor-id"),
        (["--token", "t", "--labels", "env"], "--labels: expected KEY=VALUE"),
        (["--token", "t", "--labels", "env=prod,env=dev"], "--labels: 'env' is given twice"),
        (["--token", "t", "--labels", "env=a b"], "--labels: not a label's value"),
        (["--token", "t", "--labels", ",".join(f"k{n}=v" for n in range(33))], "--labels: at most 32"),
        (["--token", "t", "--kubeconfig", "/nowhere"], "--kubeconfig"),
        (["--token", "t", "--tls-cert", KUBECTL], "--tls-cert"),
        (["--token", "t", "--health-listen", "8080"], "--health-listen"),
        (["--token", "t", "--no-such-flag"], "--no-such-flag"),
        (["--token", "two words"], "--token"),
        (["--token", ""], "--token"),
        (["--token-file", "/nowhere"], "--token-file"),
        (["--token", "t", "--token-file", KUBECTL], "--token-file"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_flag(
    flags: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read(*flags)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("openline-executor: ")
    assert named in error
    assert error.count("\n") == 1
