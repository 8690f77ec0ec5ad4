"""The gateway's flags and variables."""

from pathlib import Path

from pydantic import model_validator

from openline.settings import Address, Addresses, ProgramSettings


class GatewaySettings(ProgramSettings):
    """Serves REST and passes it on to the brokers."""

    listen: Address = Address("127.0.0.1:8080")
    """Where to serve HTTP, HOST:PORT. Port 0 takes any free one and logs it."""
    broker: Addresses = (Address("127.0.0.1:50051"),)
    """Broker replicas, HOST:PORT[,HOST:PORT…]; the first is preferred while it is healthy."""
    tls_ca: Path | None = None
    """Certificates that the brokers' must be signed by (PEM). Without any TLS file the brokers are spoken to in plain."""
    tls_cert: Path | None = None
    """The gateway's own certificate (PEM), where brokers ask for one."""
    tls_key: Path | None = None
    """Its key (PEM)."""

    @model_validator(mode="after")
    def _check_pair(self) -> "GatewaySettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together")
        return self
