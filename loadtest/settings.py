"""Settings that several commands of the load test have; each command's own are beside it."""

import shlex
from pathlib import Path
from typing import Annotated, TypedDict

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from openline import ids, limits
from openline.loudness import LogLevel
from openline.settings import Addresses, CertificateFile, ProgramSettings, ReadableFile, split_commas


def _words(text: object) -> object:
    return tuple(shlex.split(text)) if isinstance(text, str) else text


def _cluster_ids(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or not all(map(ids.is_cluster_id, names)):
        raise ValueError("expected CLUSTER[,CLUSTER…], each of a-z, 0-9 and -, as in a DNS name")
    return names


def _writable(file: Path) -> Path:
    if not file.parent.is_dir():
        raise ValueError(f"there is no directory {file.parent}")
    return file


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]
ClusterIds = Annotated[Names, AfterValidator(_cluster_ids)]
OutputFile = Annotated[Path, AfterValidator(_writable)]
# Nothing here runs without an end.
Seconds = Annotated[float, Field(gt=0, le=3600)]
Callers = Annotated[int, Field(ge=1, le=4096)]


class Tls(TypedDict):
    """The files to dial a broker with, as `openline.channels` and `openline.pipes` take them."""

    ca: Path | None
    cert: Path | None
    key: Path | None


class ReportSettings(ProgramSettings):
    """Where the figures go; the table is always printed."""

    # `json` is a method of the class below, so the field has another name than the flag.
    model_config = SettingsConfigDict(env_prefix_target="all")

    log_level: LogLevel = "warning"
    """Lines below this level are left out."""
    json_file: OutputFile | None = Field(None, validation_alias="json")
    """Write all figures to this file, as JSON."""
    html_file: OutputFile | None = Field(None, validation_alias="html")
    """Write a page with pictures to this file; it needs no other."""


class TargetSettings(ReportSettings):
    """What is asked: an installation that is there, or one that is started on loopback and stopped at the end."""

    broker: Addresses | None = None
    """The brokers of an installation, HOST:PORT,… Without it, everything is started on loopback."""
    api_key: SecretStr = SecretStr("test-key")
    """The key to show there; the default is the demo's. It needs the scopes execute and read."""
    cluster_ids: ClusterIds = ("local",)
    """The clusters to ask there, in turn."""
    executor_token: SecretStr | None = None
    """A token of these clusters. With it, simulated executors connect to the installation and answer for them."""
    tls_ca: CertificateFile | None = None
    """Who must have signed the brokers' certificates (PEM). Without a TLS file, brokers are spoken to in plain."""
    tls_cert: CertificateFile | None = None
    """The load test's own certificate (PEM), where brokers ask for one."""
    tls_key: ReadableFile | None = None
    """Its key (PEM)."""
    clusters: int = Field(1, ge=1, le=1000)
    """How many clusters, when they are started here."""
    executors: int = Field(1, ge=1, le=100)
    """How many simulated executors in each cluster."""
    output_bytes: int = Field(256, ge=0, le=limits.MAX_FRAME_BYTES)
    """How much a simulated executor answers, bytes."""

    @property
    def tls(self) -> Tls:
        return {"ca": self.tls_ca, "cert": self.tls_cert, "key": self.tls_key}


class LoadSettings(TargetSettings):
    """How much is asked, and for how long."""

    command: Words = ("get", "pods", "-n", "shop")
    """What to run, without the program. Simulated executors answer anything."""
    callers: Callers = 64
    """How many ask at a time; each asks again when it has its answer."""
    seconds: Seconds = 5.0
    """How long, of each way of asking."""
    count: int = Field(1_000_000, ge=1, le=100_000_000)
    """How many commands of each way, at most."""
    timeout: float = Field(30.0, ge=1, le=300)
    """How long one may take, seconds."""
