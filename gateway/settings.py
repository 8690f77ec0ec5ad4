"""The gateway's flags and variables."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from openline.settings import Address, Addresses, ProgramSettings


def _readable(file: Path) -> Path:
    try:
        file.read_bytes()
    except OSError as failure:
        raise ValueError(f"cannot read {file}: {failure.strerror}") from None
    return file


PemFile = Annotated[Path, AfterValidator(_readable)]


class GatewaySettings(ProgramSettings):
    """Serves REST and passes it on to the brokers."""

    listen: Address = Address("127.0.0.1:8080")
    """Where to serve HTTP, HOST:PORT. Port 0 takes any free one and logs it."""
    broker: Addresses = (Address("127.0.0.1:50051"),)
    """Broker replicas, HOST:PORT[,HOST:PORT…]; the first is preferred while it is healthy."""
    tls_ca: PemFile | None = None
    """Who must have signed the brokers' certificates (PEM). Without a TLS file, brokers are spoken to in plain."""
    tls_cert: PemFile | None = None
    """The gateway's own certificate (PEM), where brokers ask for one."""
    tls_key: PemFile | None = None
    """Its key (PEM)."""

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together")
        return self
