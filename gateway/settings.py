"""The gateway's flags and variables."""

from typing import Self
from urllib.parse import urlunsplit

from pydantic import field_validator, model_validator

from gateway.urls import read_http_url
from openline.settings import Address, Addresses, CertificateFile, NetworkSettings, ReadableFile, check_tls_pair
from openline.tls import TlsFiles


class GatewaySettings(NetworkSettings):
    """Serves REST, MCP and A2A, and passes all on to the brokers. `openline-gateway mcp` is MCP by stdin."""

    listen: Address = Address("127.0.0.1:8080")
    """Where to serve HTTP, HOST:PORT. Port 0 takes any free one and logs it."""
    listen_cert: CertificateFile | None = None
    """The certificate chain that is shown to callers (PEM). Without it the gateway serves HTTP in plain. This file and
    the two below are read again when they change."""
    listen_key: ReadableFile | None = None
    """Its key (PEM)."""
    listen_client_ca: CertificateFile | None = None
    """Callers, and whoever probes for health, must show a certificate of this authority (PEM), beside their keys."""
    public_url: str = ""
    """Where agents reach this gateway, for the card that A2A shows them: http(s)://HOST[:PORT][/PATH]. Without it
    the card says what each request was sent to, which behind a proxy that ends TLS is plain HTTP."""
    broker: Addresses = (Address("127.0.0.1:50051"),)
    """Broker replicas, HOST:PORT[,HOST:PORT…]; the first is preferred while it is healthy."""
    tls_ca: CertificateFile | None = None
    """Who must have signed the brokers' certificates (PEM). Without a TLS file, brokers are spoken to in plain. The TLS
    files are read anew for every connection."""
    tls_cert: CertificateFile | None = None
    """The gateway's own certificate (PEM), where brokers ask for one."""
    tls_key: ReadableFile | None = None
    """Its key (PEM)."""

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, url: str) -> str:
        if not url:
            return url
        parts = read_http_url(url, credentials="each agent shows a key of its own")
        return urlunsplit(parts._replace(path=parts.path.rstrip("/"), query="", fragment=""))

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        check_tls_pair(self.tls_cert, self.tls_key)
        check_tls_pair(self.listen_cert, self.listen_key, side="--listen")
        if self.listen_client_ca is not None and self.listen_cert is None:
            raise ValueError("--listen-client-ca: has no effect without --listen-cert")
        return self

    @property
    def listen_tls(self) -> TlsFiles:
        """What callers are shown, and whom of them is believed."""
        return TlsFiles(self.listen_client_ca, self.listen_cert, self.listen_key)

    @property
    def plaintext(self) -> list[tuple[str, str]]:
        listening = [] if self.listen_tls or self.listen.is_loopback else [("--listen", self.listen)]
        dialing = self.broker if self.tls_ca is None and self.tls_cert is None else ()
        return [*listening, *(("--broker", address) for address in dialing if not address.is_loopback)]
