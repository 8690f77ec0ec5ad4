"""What the commands of `openline-broker token` and `openline-broker key` are given."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from openline.logs import LogLevel
from openline.settings import Address, CertificateFile, NetworkSettings, ReadableFile, check_tls_pair, split_commas

MAX_KEY_CHARACTERS = 4096
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
        if (self.admin_key is None) == (self.admin_key_file is None):
            raise ValueError("--admin-key: give a key with --admin-key or --admin-key-file")
        self.read_key()
        return self

    @property
    def plaintext(self) -> list[tuple[str, str]]:
        is_plain = not (self.tls_ca or self.tls_cert or self.broker.is_loopback)
        return [("--broker", self.broker)] if is_plain else []

    def read_key(self) -> str:
        """Raises ValueError, which does not show it."""
        if self.admin_key_file is None:
            flag, key = "--admin-key", self.admin_key.get_secret_value() if self.admin_key else ""
        else:
            flag, key = "--admin-key-file", _text(self.admin_key_file).strip()
        if not 1 <= len(key) <= MAX_KEY_CHARACTERS or not all("!" <= character <= "~" for character in key):
            raise ValueError(f"{flag}: expected a key of 1 to {MAX_KEY_CHARACTERS} visible ASCII characters")
        return key


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


def _text(file: Path) -> str:
    """Raises ValueError, for a file that was there a moment ago as well."""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"--admin-key-file: cannot read {file}") from None
