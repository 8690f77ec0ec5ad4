"""A small HTTP/1.1 client for load: one request at a time on a connection that is kept, and little CPU of its own.

A full client costs several times what the gateway spends on a request, and would be what is measured.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httptools

CONNECT_TIMEOUT_S = 10.0
CHUNK_BYTES = 64 << 10


class HttpFailed(Exception):
    """No answer came, or none that is HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


class _Reading:
    """One answer while it is read, by what the parser calls."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body = bytearray()
        self.is_complete = False
        self.is_kept = False  # the connection, as the parser knows only at this moment

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True
        self.is_kept = self.parser.should_keep_alive()


class Connection:
    """One connection, dialled when it is needed, and dialled again after it broke."""

    def __init__(self, url: str, *, ca: Path | None = None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._authority = parts.netloc
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._is_idle = True

    async def post(self, path: str, body: bytes, headers: str = "", *, timeout_s: float) -> Answer:
        """Sends a body of JSON; `headers` are whole lines. Raises HttpFailed, also when the time is up."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._authority}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{headers}\r\n"
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(head.encode("latin-1") + body)
        except (OSError, TimeoutError, httptools.HttpParserError) as failure:
            raise HttpFailed(type(failure).__name__) from failure
        finally:
            # An answer that was not read to its end must not become the next one's.
            if self._streams is not None and not self._is_idle:
                self.close()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, request: bytes) -> Answer:
        self._is_idle = False
        if self._streams is None:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        reader, writer = self._streams
        writer.write(request)
        reading = _Reading()
        while not reading.is_complete:
            data = await reader.read(CHUNK_BYTES)
            if not data:
                raise ConnectionResetError("closed before the end of the answer")
            reading.parser.feed_data(data)
        self._is_idle = reading.is_kept
        return Answer(reading.parser.get_status_code(), bytes(reading.body))


class Connections:
    """As many connections as there are requests at a time."""

    def __init__(self, url: str, *, ca: Path | None = None) -> None:
        self._url, self._ca = url, ca
        self._idle: list[Connection] = []

    async def post(self, path: str, body: bytes, headers: str = "", *, timeout_s: float) -> Answer:
        """As `Connection.post`, on one that is idle."""
        connection = self._idle.pop() if self._idle else Connection(self._url, ca=self._ca)
        try:
            return await connection.post(path, body, headers, timeout_s=timeout_s)
        finally:
            self._idle.append(connection)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()


@contextlib.asynccontextmanager
async def open_connections(url: str, *, ca: Path | None = None) -> AsyncIterator[Connections]:
    """Raises OSError for a certificate file that cannot be read."""
    connections = Connections(url, ca=ca)
    try:
        yield connections
    finally:
        connections.close()
