"""The gateway's flags and variables."""

from typing import Self

from pydantic import model_validator

from openline.settings import Address, Addresses, CertificateFile, ProgramSettings, ReadableFile, check_tls_pair


class GatewaySettings(ProgramSettings):
    """Serves REST and passes it on to the brokers."""

    listen: Address = Address("127.0.0.1:8080")
    """Where to serve HTTP, HOST:PORT. Port 0 takes any free one and logs it."""
    broker: Addresses = (Address("127.0.0.1:50051"),)
    """Broker replicas, HOST:PORT[,HOST:PORT…]; the first is preferred while it is healthy."""
    tls_ca: CertificateFile | None = None
    """Who must have signed the brokers' certificates (PEM). Without a TLS file, brokers are spoken to in plain."""
    tls_cert: CertificateFile | None = None
    """The gateway's own certificate (PEM), where brokers ask for one."""
    tls_key: ReadableFile | None = None
    """Its key (PEM)."""

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        check_tls_pair(self.tls_cert, self.tls_key)
        return self
