"""What the commands of `openline-broker token`, `… key`, `… log-level` and `… top` are given."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from broker.views import MAX_INTERVAL_S, MIN_INTERVAL_S
from openline.loudness import MAX_S, USUAL_S, LogLevel
from openline.settings import (
    Address,
    CertificateFile,
    NetworkSettings,
    ReadableFile,
    check_tls_pair,
    read_key,
    split_commas,
)

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]


class AskSettings(NetworkSettings):
    """Whom to ask, and how to say it."""

    # `json` is a method of the class below, so the field has another name than the flag.
    model_config = SettingsConfigDict(env_prefix_target="all")

    log_level: LogLevel = "warning"
    """Lines below this level are left out."""
    broker: Address = Address("127.0.0.1:50051")
    """HOST:PORT of a broker replica that runs; what one is told, all know within a second."""
    admin_key: SecretStr | None = None
    """An API key with the scope admin. Other users of the machine can see flags: prefer the file or the variable."""
    admin_key_file: ReadableFile | None = None
    """A file with the key."""
    tls_ca: CertificateFile | None = None
    """PEM file with the authorities that the broker's certificate is checked against; without any TLS file the
    connection is not encrypted."""
    tls_cert: CertificateFile | None = None
    """PEM file with a certificate of one's own, for mutual TLS."""
    tls_key: ReadableFile | None = None
    """PEM file with the key of --tls-cert."""
    as_json: bool = Field(False, validation_alias="json")
    """Write JSON, for programs."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_tls_pair(self.tls_cert, self.tls_key)
        self.read_key()
        return self

    @property
    def plaintext(self) -> list[tuple[str, str]]:
        is_plain = not (self.tls_ca or self.tls_cert or self.broker.is_loopback)
        return [("--broker", self.broker)] if is_plain else []

    def read_key(self) -> str:
        """Raises ValueError, which does not show it."""
        return read_key("--admin-key", self.admin_key, self.admin_key_file)


class TokenCreateSettings(AskSettings):
    """Makes another executor token for a cluster, and so registers it. The token goes to stdout, once."""

    cluster_id: str
    """The cluster whose executors may come with it."""
    ttl: float = Field(0.0, ge=0, allow_inf_nan=False)
    """After how long it expires, seconds; 0 is never."""


class TokenListSettings(AskSettings):
    """Lists the executor tokens that are good, and never the tokens themselves."""

    cluster_id: str = ""
    """Only those of this cluster."""


class TokenRevokeSettings(AskSettings):
    """Revokes an executor token, or all of a cluster; the streams that were opened with them close within a second."""

    cluster_id: str
    """The cluster whose token it is."""
    token_id: str = ""
    """Which one, as `list` has it."""
    all_tokens: bool = Field(False, validation_alias="all")
    """All of them, with which the cluster is registered no more."""

    @model_validator(mode="after")
    def _check_which(self) -> Self:
        if bool(self.token_id) == self.all_tokens:
            raise ValueError("--token-id: give one, or --all")
        return self


class KeyCreateSettings(AskSettings):
    """Makes an API key. The key goes to stdout, once. It may do no more than the admin's own."""

    owner: str
    """Whose its commands and sessions are; an owner may have several keys."""
    scopes: Names
    """execute, session, read, admin, audit: one or more."""
    clusters: Names = ()
    """Which clusters it sees: names in which * stands for anything, such as prod-*,staging. Without it, all."""
    ttl: float = Field(0.0, ge=0, allow_inf_nan=False)
    """After how long it expires, seconds; 0 is never."""
    commands_per_minute: int | None = Field(None, ge=0, lt=1 << 32)
    """How many commands it may ask for in a minute, of all replicas together; 0 is no limit. Without this and
    --in-flight it has what the broker has for everybody."""
    in_flight: int | None = Field(None, ge=0, lt=1 << 32)
    """How many commands it may have running or waiting at one time; 0 is no limit."""


class KeyListSettings(AskSettings):
    """Lists the API keys that are good, and never the keys themselves."""

    owner: str = ""
    """Only those of this owner."""


class KeyRevokeSettings(AskSettings):
    """Revokes an API key: it is refused within a second, and what it watches ends. Its commands run on."""

    key_id: str
    """Which one, as `list` has it."""


class LogLevelSettings(AskSettings):
    """Changes for a while how much replicas log; each says so in a line of its log, and there is an audit entry."""

    for_s: float = Field(USUAL_S, gt=0, le=MAX_S, allow_inf_nan=False, validation_alias="for")
    """After how long it is again as at the start, seconds."""
    replica_id: str = ""
    """Only on this replica. Without it, on all of them."""


class TopSettings(AskSettings):
    """Shows replicas, the busiest clusters and what runs, with rates and latency, until Ctrl-C; once where there is no
    terminal."""

    interval: float = Field(1.0, ge=MIN_INTERVAL_S, le=MAX_INTERVAL_S, allow_inf_nan=False)
    """Seconds between two looks."""
    clusters: Names = ()
    """Only these: names in which * stands for anything. Rates and latency are those of all, and left out then."""
    once: bool = False
    """Show it once; rates are those of one interval. With --json there are totals, and no rates."""
