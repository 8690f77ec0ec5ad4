"""The client over TLS, to one server, behind sentinels and to a Redis Cluster, while certificates are replaced.

The bundled Valkey has no TLS, so something that has stands before it, as in many installations.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from broker.store import sentinels
from broker.store.client import Client, check_url, open_client, send
from broker.store.secured import FreshConnection, FreshPrimaryConnection
from openline.tls import server_context
from tests.programs import free_port

PATIENCE_S = 20.0
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Front:
    """Takes TLS, and asks for a certificate; passes on to a server that has not."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self._port = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = free_port()

    async def start(self) -> None:
        files = (self.directory / name for name in ("server.pem", "server.key", "ca.pem"))
        context = server_context(*files)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)

    async def stop(self) -> None:
        """And breaks what is open."""
        if self._server is not None:
            self._server.close()
            for writer in self._open:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, out = await asyncio.open_connection("127.0.0.1", self._port)
        self._open.add(writer)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass_on(reader, out))
                tasks.create_task(_pass_on(inner, writer))
        finally:
            self._open.discard(writer)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def issue(directory: Path, *, expired: str = "") -> None:
    """Certificates for both ends, by an authority that nobody has heard of before; each file is replaced at once."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    pems = {"ca.pem": authority.cert_pem.bytes()}
    for name in ("server", "client"):
        dates = {"not_before": LONG_AGO, "not_after": LONG_AGO + timedelta(days=1)} if name == expired else {}
        made = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA, **dates)
        pems |= {f"{name}.pem": made.cert_chain_pems[0].bytes(), f"{name}.key": made.private_key_pem.bytes()}
    for name, pem in pems.items():
        (directory / "new").write_bytes(pem)
        os.replace(directory / "new", directory / name)


@pytest.fixture
def pems(tmp_path: Path) -> Path:
    directory = tmp_path / "pems"
    directory.mkdir()
    issue(directory)
    return directory


@pytest.mark.parametrize("what", ["another authority", "server", "client", "none", "plaintext"])
async def test_who_has_not_what_it_takes_is_told_nothing(start_server: Any, pems: Path, what: str) -> None:
    """Another authority on either side, a certificate that has expired, none, or no TLS at all."""
    server = await start_server()
    front = Front(pems, server.port)
    if what in ("server", "client"):
        issue(pems, expired=what)
    await front.start()
    if what == "another authority":
        issue(pems)
    query = f"ssl_ca_certs={pems}/ca.pem&ssl_certfile={pems}/client.pem&ssl_keyfile={pems}/client.key"
    match what:
        case "none":
            query = query.partition("&")[0]
        case "plaintext":
            query = ""
    client = open_client(f"redis{'s' if query else ''}://127.0.0.1:{front.port}?{query}")
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert isinstance(await ask(client, "SET", "key", "1"), RedisError | OSError)
        assert await server.redis.get("key") is None
    finally:
        await client.aclose()
        await front.stop()


@pytest.fixture(params=["one server", "sentinels", "a Redis Cluster"])
async def fronted(
    request: pytest.FixtureRequest, start_server: Any, pems: Path, tmp_path: Path
) -> AsyncIterator[tuple[list[Front], str]]:
    """What stands before the servers, and the URL of it."""
    fronts: list[Front] = []

    async def front(port: int) -> Front:
        fronts.append(Front(pems, port))
        await fronts[-1].start()
        return fronts[-1]

    query = f"ssl_ca_certs={pems}/ca.pem&ssl_certfile={pems}/client.pem&ssl_keyfile={pems}/client.key"
    match request.param:
        case "one server":
            server = await front((await start_server()).port)
            url = f"rediss://127.0.0.1:{server.port}?{query}"
        case "sentinels":
            server = await front((await start_server()).port)
            config = tmp_path / "sentinel.conf"
            # It cannot speak to what it watches, and says all the same where that is.
            config.write_text(f"sentinel monitor the-primary 127.0.0.1 {server.port} 1\n")
            sentinel = await front((await start_server(str(config), "--sentinel")).port)
            url = f"rediss+sentinel://127.0.0.1:{sentinel.port}/the-primary?{query}"
        case _:
            node = await start_server("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            server = await front(node.port)
            await node.redis.config_set("cluster-announce-port", server.port)
            await node.redis.config_set("cluster-announce-ip", "127.0.0.1")
            await node.redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            url = f"rediss+cluster://127.0.0.1:{server.port}?{query}"
    yield fronts, url
    for each in fronts:
        await each.stop()


async def eventually(ask: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while isinstance(answer := await ask(), Exception):
            await asyncio.sleep(0.02)
        return answer


async def ask(client: Client, *command: str) -> Any:
    try:
        [answer] = await send(client, [command])
    except (RedisError, OSError) as failure:
        return failure
    return answer


async def test_certificates_are_read_again(fronted: tuple[list[Front], str], pems: Path) -> None:
    """What is open goes on; a connection after that needs what is in the files then, and has it."""
    fronts, url = fronted
    client = open_client(url)
    try:
        assert await eventually(lambda: ask(client, "SET", "key", "1")) in (b"OK", True)
        issue(pems)
        assert await ask(client, "GET", "key") == b"1"
        for front in fronts:
            await front.stop()
            await front.start()
        assert await eventually(lambda: ask(client, "GET", "key")) == b"1"
    finally:
        await client.aclose()


async def test_what_cannot_be_used_is_refused_and_the_old_files_stay_in_use(
    fronted: tuple[list[Front], str], pems: Path
) -> None:
    """With one line for all connections of the client."""
    fronts, url = fronted
    structlog.reset_defaults()
    client = open_client(url)
    try:
        assert await eventually(lambda: ask(client, "SET", "key", "1")) in (b"OK", True)
        (pems / "client.key").write_text("")
        with structlog.testing.capture_logs() as lines:
            for front in fronts:
                await front.stop()
                await front.start()
            assert await eventually(lambda: ask(client, "GET", "key")) == b"1"
        refused = [line for line in lines if line["event"] == "certificates.refused"]
        assert [line["use"] for line in refused] == ["redis"]
    finally:
        await client.aclose()


async def test_it_is_said_once_of_a_certificate_that_it_has_expired(
    fronted: tuple[list[Front], str], pems: Path
) -> None:
    """Also of one that is put there while no connection is made; and not by whoever only checks the URL."""
    _, url = fronted
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        client = open_client(url)
        try:
            assert await eventually(lambda: ask(client, "SET", "key", "1")) in (b"OK", True)
            issue(pems, expired="client")
            check_url(url)
            assert not lines
            for _ in range(2):
                assert await ask(client, "GET", "key") == b"1"
        finally:
            await client.aclose()
    expired = [(line["use"], line["file"]) for line in lines if line["event"] == "certificate.expired"]
    assert expired == [("redis", f"{pems}/client.pem")]


async def test_files_that_cannot_be_used_at_the_start(pems: Path) -> None:
    """Are a mistake in the URL, which names them, and nothing of the password."""
    for name, wrong in (("ssl_ca_certs", pems / "gone"), ("ssl_certfile", pems / "ca.pem")):
        for url in ("rediss://", "rediss+sentinel://", "rediss+cluster://"):
            path = "/name" if "sentinel" in url else ""
            with pytest.raises(ValueError, match=r"gone|PEM|SSL") as mistake:
                check_url(f"{url}:hunter2@127.0.0.1:1{path}?{name}={wrong}")
            assert "hunter2" not in str(mistake.value)


async def test_connections_without_tls_are_redis_pys_own() -> None:
    """Of a server and behind sentinels."""
    for url, kind in (("redis://h", Connection), ("redis+sentinel://h/name", sentinels.SentinelManagedConnection)):
        made = open_client(url).connection_pool.make_connection()
        assert type(made) is kind
        assert not isinstance(made, FreshConnection | FreshPrimaryConnection)
