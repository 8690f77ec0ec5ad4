"""What `openline-gateway mcp` is given."""

import ssl
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr, field_validator, model_validator

from gateway.urls import read_http_url
from openline.loudness import LogLevel
from openline.settings import (
    CertificateFile,
    NetworkSettings,
    ReadableFile,
    check_tls_pair,
    is_loopback,
    read_key,
)


class StdioSettings(NetworkSettings):
    """Speaks MCP on stdin and stdout, and passes everything on to a gateway: for programs that start their servers."""

    log_level: LogLevel = "warning"
    """Lines below this level are left out. They go to stderr."""
    stdio: bool = False
    """Speak on stdin and stdout. Has to be given, since there is no other way yet."""
    url: str = "http://127.0.0.1:8080/mcp"
    """The gateway. Without a path it is /mcp."""
    api_key: SecretStr | None = None
    """An API key. Other users of the machine can see flags: prefer the file or the variable."""
    api_key_file: ReadableFile | None = None
    """A file with the key."""
    tls_ca: CertificateFile | None = None
    """Who must have signed the gateway's certificate (PEM). Without it, the authorities that this machine trusts."""
    tls_cert: CertificateFile | None = None
    """A certificate of one's own (PEM), where the gateway asks for one."""
    tls_key: ReadableFile | None = None
    """Its key (PEM)."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = read_http_url(url, credentials="give a key with --api-key-file")
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") or "/mcp", query="", fragment=""))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.stdio:
            raise ValueError("--stdio: has to be given, since there is no other way yet")
        check_tls_pair(self.tls_cert, self.tls_key)
        if self.is_plain and (self.tls_ca or self.tls_cert):
            raise ValueError("--tls-ca, --tls-cert: have no effect with http://")
        self.read_key()
        return self

    @property
    def is_plain(self) -> bool:
        return urlsplit(self.url).scheme == "http"

    @property
    def is_on_this_machine(self) -> bool:
        return is_loopback(urlsplit(self.url).hostname or "")

    @property
    def plaintext(self) -> list[tuple[str, str]]:
        return [("--url", self.url)] if self.is_plain and not self.is_on_this_machine else []

    def read_key(self) -> str:
        """Raises ValueError, which does not show it."""
        return read_key("--api-key", self.api_key, self.api_key_file)

    def tls(self) -> ssl.SSLContext:
        """Raises OSError for a file that was there a moment ago."""
        context = ssl.create_default_context(cafile=self.tls_ca)
        if self.tls_cert is not None:
            context.load_cert_chain(self.tls_cert, self.tls_key)
        return context
