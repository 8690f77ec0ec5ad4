"""Connections to Redis over TLS whose certificates are read again when the files change."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection

from openline.fresh import Fresh

# Options of a URL that name files.
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
# Options that make the connections of several clients share what is read.
SHARED = ("connection_class", "certificates")


class _Fresh:
    """redis-py reads the files once for each connection of its pool, and these are opened again and again."""

    ssl_context: Any
    is_connected: bool

    def __init__(self, *, certificates: Fresh[ssl.SSLContext], **options: Any) -> None:
        super().__init__(**options)
        self._certificates = certificates

    async def connect(self) -> None:
        """Asked for before each use, also of an open one: what becomes of the files is told while none is made.

        A broker asks Redis for something every second.
        """
        self._certificates.current()
        await super().connect()  # type: ignore[misc]  # it is the connection's

    async def connect_check_health(self, *how: Any, **named: Any) -> None:
        """By which all ways to connect go, also where a connection has broken between two commands."""
        if not self.is_connected:
            self.ssl_context.context = self._certificates.current()
        await super().connect_check_health(*how, **named)  # type: ignore[misc]  # it is the connection's


class FreshConnection(_Fresh, SSLConnection):
    """To one server."""


class FreshPrimaryConnection(_Fresh, SentinelManagedSSLConnection):
    """To the primary that sentinels know."""


def with_fresh_certificates(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a client, whose connections share what is read. Those without TLS are as they were.

    Raises OSError for files that cannot be used.
    """
    if options.get("connection_class") is not SSLConnection:
        return dict(options)
    files = [Path(options[name]) for name in FILES if name in options]
    shown = Path(options["ssl_certfile"]) if "ssl_certfile" in options else None
    own = {name: value for name, value in options.items() if name != "connection_class"}

    def make() -> ssl.SSLContext:
        for file in files:
            file.open("rb").close()  # ssl does not say which one it cannot read
        return SSLConnection(**own).ssl_context.get()

    return own | {"connection_class": FreshConnection, "certificates": Fresh(files, make, use="redis", shown=shown)}
