"""The PEM files of one end of TLS: whether they can be used, and what is in them."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path


class Unusable(OSError):
    """A file cannot be read, or has nothing that TLS could use; the message is one line that names it."""


@dataclass(frozen=True, slots=True)
class Pems:
    """What was in the files when they could be used; None where there is none."""

    ca: bytes | None = field(default=None, repr=False)
    cert: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Whom this end believes, and what it shows itself. TLS is spoken if either is there."""

    # The authorities that must have signed what the other end shows.
    ca: Path | None = None
    # This end's certificate, with those between it and its authority, and its key; both or neither.
    cert: Path | None = None
    key: Path | None = None

    def __bool__(self) -> bool:
        return self.ca is not None or self.cert is not None

    @property
    def paths(self) -> list[Path]:
        return [file for file in (self.ca, self.cert, self.key) if file is not None]

    def read(self) -> Pems:
        """Raises Unusable, or OSError for a file that was there a moment ago."""
        if self.ca is not None:
            check_certificates(self.ca)
        if self.cert is not None and self.key is not None:
            server_context(self.cert, self.key)
        return Pems(*(None if file is None else file.read_bytes() for file in (self.ca, self.cert, self.key)))


def check_certificates(file: Path) -> None:
    """Raises Unusable for a file without a certificate."""
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        raise Unusable(f"there is no PEM certificate in {file}") from None
    except OSError as failure:
        raise Unusable(f"cannot read {file}: {failure.strerror}") from None


def server_context(cert: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """For a server, which asks for a certificate if there is an authority to check it by.

    Raises Unusable for files without what they should have, and unless the key is that of the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    check_certificates(cert)
    try:
        # The empty password keeps OpenSSL from asking for one; gRPC takes no encrypted keys.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as failure:
        if failure.reason == "KEY_VALUES_MISMATCH":
            raise Unusable(f"{key} is not the key of {cert}") from None
        raise Unusable(f"there is no PEM key in {key} that can be used with {cert}") from None
    except OSError as failure:
        raise Unusable(f"cannot read {key}: {failure.strerror}") from None
    if client_ca is not None:
        check_certificates(client_ca)
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
