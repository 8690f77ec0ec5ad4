"""How the bytes of a request are read: as httptools does, but for what clients ask an HTTP/1.1 server to become."""

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class PlainParser:
    """httptools' parser, but `Upgrade` is ignored, as RFC 9110 section 7.8 allows. Java's client always asks for h2c.

    The usual one drops the body of a request that asks for an upgrade. Here its head is read again without that header.
    """

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._renew()

    def _renew(self) -> None:
        self._parser: Any = httptools.HttpRequestParser(self._protocol)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)

    @property
    def is_head_to_read_again(self) -> bool:
        """CONNECT is an upgrade as well, and stays one: there is nothing that it could be read as."""
        return bool(self._parser.should_upgrade()) and self._parser.get_method() != b"CONNECT"

    def feed_data(self, data: bytes) -> None:
        rest = memoryview(data)
        while True:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                if not self.is_head_to_read_again:
                    raise
                head = self._head()
                rest = rest[upgrade.args[0] :]
                self._renew()
                self._parser.feed_data(head)
            else:
                return

    def _head(self) -> bytes:
        version = self._parser.get_http_version().encode("ascii")
        lines = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._protocol.url, version)]
        lines += [b"%b: %b" % header for header in self._protocol.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def should_upgrade(self) -> bool:
        return False

    def should_keep_alive(self) -> bool:
        return bool(self._parser.should_keep_alive())

    def get_method(self) -> bytes:
        return bytes(self._parser.get_method())

    def get_http_version(self) -> str:
        return str(self._parser.get_http_version())
