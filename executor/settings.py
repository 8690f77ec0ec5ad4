"""The executor's flags and variables."""

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from executor.labels import check_labels
from openline import ids
from openline.settings import (
    Address,
    Addresses,
    CertificateFile,
    NetworkSettings,
    ReadableFile,
    check_tls_pair,
    fail,
    load,
    split_commas,
)
from openline.tls import TlsFiles

PROGRAM = "openline-executor"
MAX_TOKEN_CHARACTERS = 4096


def _cluster_id(text: str) -> str:
    if not ids.is_cluster_id(text):
        raise ValueError("expected 1 to 100 of a-z, 0-9 and -, as in a DNS name")
    return text


def _executor_id(text: str) -> str:
    if not ids.is_token(text):
        raise ValueError("expected 1 to 200 visible ASCII characters")
    return text


def _executable(path: Path) -> Path:
    """A path, or a name that is looked up on PATH, as an absolute path."""
    found = shutil.which(path)
    if found is None:
        raise ValueError(f"there is no program {path}; give its path with --kubectl PATH")
    return Path(found).absolute()


Labels = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas), AfterValidator(check_labels)]


class ExecutorSettings(NetworkSettings):
    """Holds the line from a cluster to a broker and runs kubectl for it."""

    broker: Addresses = (Address("127.0.0.1:50051"),)
    """HOST:PORT[,…] of the broker replicas, tried in turn. The default is where a broker listens by default."""
    cluster_id: Annotated[str, AfterValidator(_cluster_id)]
    """The cluster this is. No default: commands for one cluster must not end up in another."""
    executor_id: Annotated[str, AfterValidator(_executor_id)] = Field(default_factory=socket.gethostname)
    """Stable over restarts; the host name is, for a pod of a StatefulSet or with `hostname` set."""
    labels: Labels = ()
    """KEY=VALUE[,…] of this cluster, in the syntax of Kubernetes: a fan-out chooses clusters by them."""
    token: SecretStr | None = None
    """What the broker knows this cluster by. Other users of the machine can see flags: prefer the file or the
    variable. None is needed where the broker takes --tls-cert instead."""
    token_file: ReadableFile | None = None
    """A file with the token, read again when it changes: the broker is shown the new one on the open connection."""
    kubectl: Annotated[Path, AfterValidator(_executable)] = Field(default=Path("kubectl"), validate_default=True)
    """The kubectl to run: a path, or a name on PATH."""
    kubeconfig: ReadableFile | None = None
    """What kubectl gets as KUBECONFIG. Without it, kubectl uses the service account of the pod it runs in."""
    plugin_path: str = ""
    """DIR[:DIR…] where kubectl finds the credential plugins that the kubeconfig names. Empty by default: kubectl then
    runs only what has a whole path."""
    policy: ReadableFile | None = None
    """A YAML file that says what may run here, see docs/policy.md; read again when it changes. Without it, everything
    that the tables allow."""
    max_concurrency: int = Field(default=8, ge=1, le=256)
    """Commands at a time; four times as many wait. A kubectl takes 50 MB or so, so 8 fit in half a gigabyte."""
    spool_dir: Path | None = None
    """A directory for results until the broker has stored them, so that they outlive this process; for one executor
    alone, on a disk that outlives the pod. Without it they are kept in memory only."""
    tls_ca: CertificateFile | None = None
    """PEM file with the authorities that the broker's certificate is checked against; without any TLS file the
    connection is not encrypted. The TLS files are read anew for every connection."""
    tls_cert: CertificateFile | None = None
    """PEM file with this executor's own certificate, for mutual TLS."""
    tls_key: ReadableFile | None = None
    """PEM file with the key of --tls-cert."""
    health_listen: Address | None = None
    """HOST:PORT for `GET /healthz`, 200 while the line to a broker stands, and `GET /livez`, 200 while the process
    answers. Off by default: only an orchestrator needs it."""

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        check_tls_pair(self.tls_cert, self.tls_key)
        return self

    @property
    def tls(self) -> TlsFiles:
        return TlsFiles(self.tls_ca, self.tls_cert, self.tls_key)

    @property
    def plaintext(self) -> list[tuple[str, str]]:
        return [("--broker", address) for address in self.broker if not self.tls and not address.is_loopback]

    def read_token(self) -> str | None:
        """The token as it is now, None where there is only a certificate.

        Raises OSError for a file that cannot be read, ValueError for an unusable token.
        """
        if self.token is not None:
            text = self.token.get_secret_value()
        elif self.token_file is not None:
            text = self.token_file.read_text().strip()
        else:
            return None
        if not 1 <= len(text) <= MAX_TOKEN_CHARACTERS or not all("!" <= character <= "~" for character in text):
            raise ValueError(f"expected a token of 1 to {MAX_TOKEN_CHARACTERS} visible ASCII characters")
        return text


def load_settings(arguments: Sequence[str] | None = None) -> ExecutorSettings:
    """The settings of this process; ends it with one line and code 2 when they cannot be right."""
    settings = load(ExecutorSettings, program=PROGRAM, arguments=arguments)
    if settings.token is None and settings.token_file is None and settings.tls_cert is None:
        misused("--token: give a token with --token or --token-file, or a certificate with --tls-cert")
    if settings.token is not None and settings.token_file is not None:
        misused("--token-file: cannot be given together with --token")
    try:
        settings.read_token()
    except (OSError, ValueError) as problem:
        misused(f"{'--token' if settings.token else '--token-file'}: {problem}")
    return settings


def misused(message: str) -> NoReturn:
    fail(PROGRAM, message)
