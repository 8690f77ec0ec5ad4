"""The broker's settings."""

import secrets
import socket
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from broker.store.audit import DEFAULT_MAX_ENTRIES
from broker.store.client import check_url
from broker.store.urls import in_plaintext
from openline import limits
from openline.ids import is_token
from openline.settings import (
    Address,
    CertificateFile,
    NetworkSettings,
    ReadableFile,
    check_tls_pair,
    is_loopback,
    split_commas,
)
from openline.tls import TlsFiles

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_commas)]


def _replica_id(text: str) -> str:
    if not is_token(text):
        raise ValueError("expected 1 to 200 visible ASCII characters")
    return text


def _usual_replica_id(given: dict[str, Any]) -> str:
    """Several replicas may run on one host, so its name alone will not do; nor will a port that is not known yet."""
    port = given.get("listen", "").rpartition(":")[2]
    return f"{socket.gethostname()}:{port if port != '0' else secrets.token_hex(4)}"


class BrokerSettings(NetworkSettings):
    """Holds executors' streams, takes commands from callers, and brings the two together. One that runs is asked for
    credentials by `openline-broker token create|list|revoke` and `openline-broker key create|list|revoke`, told to log
    more by `openline-broker log-level debug`, and watched by `openline-broker top`."""

    listen: Address = Address("127.0.0.1:50051")
    """Where executors and callers connect, HOST:PORT; port 0 takes a free one."""
    replica_id: Annotated[str, AfterValidator(_replica_id)] = Field(default_factory=_usual_replica_id)
    """The name of this replica; must be its own among those that share a Redis. Default: host name and port."""
    advertise: Address | None = None
    """Where the other replicas reach this one, HOST:PORT. Default: --listen, with the host name for a wildcard."""
    peer_secret: SecretStr | None = Field(None, min_length=16)
    """What the replicas know each other by. Default: they agree on one in Redis, which whoever reads Redis can read."""
    peer_ca: CertificateFile | None = None
    """The other replicas' certificates are checked against this authority, PEM. Default: --tls-client-ca."""
    redis_url: str | None = Field(None, repr=False)  # may hold a password
    """A Redis or Valkey: redis://HOST:PORT or unix://PATH; redis+sentinel://HOST:PORT,…/NAME behind sentinels, or
    redis+cluster://HOST:PORT,… for a Redis Cluster. rediss is redis with TLS; USER:PASSWORD@ goes before HOST.
    Without it the broker runs an embedded Valkey of its own."""
    metrics_listen: Address | None = None
    """Where Prometheus finds /metrics, HOST:PORT; no key is asked for. Without it there are none."""
    health_listen: Address | None = None
    """HOST:PORT for `GET /healthz`, 200 while gRPC health says SERVING, and `GET /livez`, 200 while the process
    answers. Always in plaintext, for probes that speak no TLS. Off by default."""
    data_dir: Path | None = None
    """Where the embedded Valkey keeps its data. Without it, nothing outlives the broker."""
    api_keys: Secrets = ()
    """Callers' keys: NAME:KEY:SCOPE+SCOPE,… with scopes of execute, session, read, admin, audit. @PATTERN|PATTERN
    behind them says which clusters the key sees, such as @prod-*|staging; without it, all."""
    executor_tokens: Secrets = ()
    """Executors' tokens: CLUSTER:TOKEN,… A cluster may have several."""
    executor_certificates: Names = ()
    """Clusters whose executors may show a certificate instead of a token: CLUSTER,… A DNS name or URI in its subject
    alternative name is the cluster id. Needs --tls-client-ca."""
    tls_cert: CertificateFile | None = None
    """The server's certificate chain, PEM; other replicas are shown it, too. Without it the broker speaks plaintext.
    This file and the two below are read again when they change."""
    tls_key: ReadableFile | None = None
    """The key of --tls-cert, PEM."""
    tls_client_ca: CertificateFile | None = None
    """Clients must show a certificate of this authority, PEM."""
    quota_commands_per_minute: int = Field(0, ge=0, le=10_000_000)
    """How many commands the owner of a key may ask for in a minute, of all replicas together; 0 is no limit."""
    quota_in_flight: int = Field(0, ge=0, le=1_000_000)
    """How many commands the owner of a key may have running or waiting at one time; 0 is no limit."""
    quota_conversation_commands_per_minute: int = Field(0, ge=0, le=10_000_000)
    """How many commands of those one session or correlation id may ask for in a minute; 0 is no limit."""
    quota_conversation_in_flight: int = Field(0, ge=0, le=1_000_000)
    """How many commands of those one session or correlation id may have running or waiting at one time; 0 is no
    limit."""
    share_within: float = Field(1.0, ge=0, le=limits.MAX_ANSWER_AGE_S)
    """Reads that are identical run once: a command joins one of the same caller that was sent to the executor less than
    so long ago and still runs, seconds. 0: each has a run of its own, whatever it asks for."""
    cache_for: float = Field(0.0, ge=0, le=limits.MAX_ANSWER_AGE_S)
    """And it has the result of one that was sent less than so long ago and has succeeded, seconds. A request may say
    both for itself."""
    result_ttl: int = Field(3600, ge=1, le=30 * 24 * 3600)
    """How long a result can be fetched by its id, seconds."""
    reconnect_grace: float = Field(10.0, ge=0, le=300)
    """How long a broken stream's commands wait for their executor to come back, seconds."""
    rebalance: float = Field(10.0, ge=0, le=3600)
    """How often a replica that has more than its share of executors asks some to move, seconds; 0 is never."""
    audit_max_entries: int = Field(DEFAULT_MAX_ENTRIES, ge=0, le=10_000_000)
    """How many entries the audit trail in Redis keeps, about; 0 writes none. Each is a line in the log all the same."""
    audit_log_argv: bool = False
    """Those lines have the words of commands as well, as the trail has them; for logs that not everybody reads."""
    max_output_bytes: int = Field(limits.DEFAULT_MAX_OUTPUT_BYTES, ge=1024, le=4 << 20)
    """How much output of one command is kept, bytes; must fit into one gRPC message."""

    @field_validator("redis_url")
    @classmethod
    def _usable_url(cls, url: str | None) -> str | None:
        if url is not None:
            check_url(url)
        return url

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        """Half of what TLS needs must not end in plaintext."""
        check_tls_pair(self.tls_cert, self.tls_key)
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("--tls-client-ca: has no effect without --tls-cert")
        if self.executor_certificates and self.tls_client_ca is None:
            raise ValueError("--executor-certificates: has no effect without --tls-client-ca")
        return self

    @model_validator(mode="after")
    def _check_sharing(self) -> Self:
        if self.cache_for and not self.share_within:
            raise ValueError("--cache-for: has no effect with --share-within 0")
        return self

    @property
    def tls(self) -> TlsFiles:
        """What the server shows, and whom it believes."""
        return TlsFiles(self.tls_client_ca, self.tls_cert, self.tls_key)

    @property
    def peer_tls(self) -> TlsFiles:
        """The same for the other replicas."""
        return TlsFiles(self.peer_ca or self.tls_client_ca, self.tls_cert, self.tls_key)

    @property
    def plaintext(self) -> list[tuple[str, str]]:
        spoken: list[tuple[str, str]] = []
        if not self.tls and not self.listen.is_loopback:
            spoken.append(("--listen", self.listen))
        if self.advertise is not None and not self.peer_tls and not self.advertise.is_loopback:
            spoken.append(("--advertise", self.advertise))
        redis = () if self.redis_url is None else in_plaintext(self.redis_url)
        return spoken + [("--redis-url", f"{host}:{port}") for host, port in redis if not is_loopback(host)]
