"""Certificates made by the test, and the real broker, executor's link and gateway in one process, on loopback.

Only what runs in a cluster is left out: the load test's commands answer for it.
"""

import asyncio
import contextlib
import datetime
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.asyncio import Redis

from broker.core.credentials import Credentials
from broker.server import serve
from broker.settings import BrokerSettings
from broker.store.client import open_redis
from broker.store.embedded import embedded_valkey
from broker.store.store import Store, open_store
from executor.link import Link
from executor.pace import Pace
from executor.settings import ExecutorSettings
from gateway.app import build_app
from gateway.securing import certificates_of, make_tls_server
from gateway.serving import listen, make_server
from gateway.traffic import Traffic
from loadtest.answering import Answering
from openline import ids, limits
from openline.client import AsyncClient
from openline.pipes import Pipes
from openline.settings import Address
from openline.tls import TlsFiles
from openline.v1 import executor_service_pb2 as wire
from tests.programs import free_port

PATIENCE_S = 20.0
PLAIN = TlsFiles()
KEY, TOKEN = "the-key-of-alice", "the-token-of-prod"
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """The programs run on uvloop, so their tests do."""
    return {"uvloop": uvloop.new_event_loop}


async def waiting(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Awaitable[None]]:
    return waiting


@pytest.fixture
def log_lines() -> Iterator[list[dict[str, Any]]]:
    """Every structlog line, as its fields, whatever other tests have set up."""
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        yield lines


class Authority:
    """Signs certificates, and puts them in files as tools do that replace them: each by another one, at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ca = trustme.CA(key_type=trustme.KeyType.ECDSA)

    def issue(self, name: str, *identities: str, expired: bool = False) -> TlsFiles:
        """The files called `name`, whoever they were from before: this authority, a certificate for the identities."""
        dates = {"not_before": LONG_AGO, "not_after": LONG_AGO + datetime.timedelta(days=1)} if expired else {}
        made = self._ca.issue_cert(*identities, key_type=trustme.KeyType.ECDSA, **dates)
        return self.put(name, made.cert_chain_pems[0].bytes(), made.private_key_pem.bytes())

    def issue_for_uri(self, name: str, uri: str) -> TlsFiles:
        """The same for a name that trustme cannot give."""
        signer = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        issuer = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes()).subject
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        certificate = (
            x509.CertificateBuilder(issuer, x509.Name([]), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(names, critical=True)
            .sign(signer, hashes.SHA256())
        )
        form = serialization.Encoding.PEM
        plain = serialization.NoEncryption()
        return self.put(
            name,
            certificate.public_bytes(form),
            key.private_bytes(form, serialization.PrivateFormat.PKCS8, plain),
        )

    def put(self, name: str, cert: bytes, key: bytes) -> TlsFiles:
        files = TlsFiles(*(self._directory / f"{name}.{part}" for part in ("ca", "cert", "key")))
        for file, pem in zip(files.paths, (self._ca.cert_pem.bytes(), cert, key), strict=True):
            replace(file, pem)
        return files


def replace(file: Path, content: bytes) -> None:
    """Another file takes its place."""
    beside = file.with_suffix(f"{file.suffix}.new")
    beside.write_bytes(content)
    os.replace(beside, file)


@pytest.fixture
def authorities(tmp_path: Path) -> tuple[Authority, Authority]:
    """The one that is believed, and another one; both write into the same directory."""
    return Authority(tmp_path), Authority(tmp_path)


@pytest.fixture
def spoil() -> Callable[[Path, str], None]:
    """Makes of a PEM file what goes wrong with them: `empty`, `garbage`, or `gone`."""

    def spoil(file: Path, how: str) -> None:
        if how == "gone":
            file.unlink()
        else:
            replace(file, b"" if how == "empty" else b"-----BEGIN CERTIFICATE-----\nhello\n")

    return spoil


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of one embedded Valkey for all tests, each of which finds it empty."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = contextlib.AsyncExitStack()
        yield runner.run(stack.enter_async_context(embedded_valkey(None)))
        runner.run(stack.aclose())


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    client = open_redis(valkey)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def store(valkey: str, redis: Redis) -> AsyncIterator[Store]:
    async with open_store(valkey, result_ttl_s=600) as opened:
        yield opened


def free_address() -> Address:
    return Address(f"127.0.0.1:{free_port()}")


@pytest.fixture
def address() -> Address:
    """Where nobody listens yet."""
    return free_address()


Start = Callable[..., AbstractAsyncContextManager[Address]]


@pytest.fixture
def start_broker(store: Store) -> Start:
    """`async with start_broker(tls=files, **settings) as address`; with `mutual` it asks for certificates."""

    @contextlib.asynccontextmanager
    async def start(
        tls: TlsFiles = PLAIN, *, mutual: bool = True, certified: tuple[str, ...] = (), **fields: Any
    ) -> AsyncIterator[Address]:
        shown = {"tls_cert": tls.cert, "tls_key": tls.key, "tls_client_ca": tls.ca if mutual else None}
        usual = {"listen": "127.0.0.1:0", "replica_id": "r1", "rebalance": 0, "executor_certificates": certified}
        settings = BrokerSettings(**(usual | shown | fields))
        credentials = Credentials(
            api_keys=[f"alice:{KEY}:execute+session+read+admin"],
            executor_tokens=[f"prod:{TOKEN}"],
            executor_certificates=settings.executor_certificates,
        )
        async with serve(settings, store, credentials) as address:
            yield address

    return start


@dataclass(slots=True)
class Executor:
    """An executor's line, whose commands are answered at once."""

    link: Link
    commands: Answering

    async def connected(self) -> None:
        await waiting(lambda: self.link.connected)


@pytest.fixture
def dial() -> Callable[..., AbstractAsyncContextManager[Executor]]:
    """`async with dial(address, files) as executor`: dials again every tenth of a second."""

    @contextlib.asynccontextmanager
    async def dialing(
        address: Address,
        tls: TlsFiles = PLAIN,
        *,
        cluster_id: str = "prod",
        executor_id: str = "one",
        token: str | None = TOKEN,
    ) -> AsyncIterator[Executor]:
        settings = ExecutorSettings(
            broker=(address,), cluster_id=cluster_id, token=token, kubectl=shutil.which("true"),
            tls_ca=tls.ca, tls_cert=tls.cert, tls_key=tls.key,
        )  # fmt: skip
        who = wire.Hello(
            protocol_version=limits.PROTOCOL_VERSION, cluster_id=cluster_id, executor_id=executor_id,
            instance_id=ids.new_id(), max_concurrency=8,
        )  # fmt: skip
        commands = Answering(output_bytes=3, mixed=False)
        pace = Pace(refused_s=0.1)
        pace.follow(wire.ReconnectPolicy(min_s=0.05, max_s=0.1))
        link = Link(settings, who, commands, pace=pace)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(link.run())
            watching = tasks.create_task(link.watch_certificates())
            try:
                yield Executor(link, commands)
            finally:
                watching.cancel()
                link.close()

    return dialing


@pytest.fixture
def start_gateway() -> Callable[..., AbstractAsyncContextManager[str]]:
    """`async with start_gateway(broker, tls=files, shown=files) as url`: HTTPS if something is shown."""

    @contextlib.asynccontextmanager
    async def start(
        *brokers: Address, tls: TlsFiles = PLAIN, shown: TlsFiles = PLAIN, mutual: bool = False
    ) -> AsyncIterator[str]:
        with listen("127.0.0.1", 0) as listener:
            async with Pipes(brokers, client="test", ca=tls.ca, cert=tls.cert, key=tls.key) as pipes:
                traffic = Traffic()
                app = build_app(pipes, traffic=traffic)
                if shown:
                    files = certificates_of(shown.cert, shown.key, shown.ca if mutual else None)
                    server = make_tls_server(app, files, traffic)
                else:
                    server = make_server(app, traffic)
                serving = asyncio.create_task(server.serve(sockets=[listener]))
                try:
                    await waiting(lambda: server.started)
                    yield f"http{'s' if shown else ''}://127.0.0.1:{listener.getsockname()[1]}"
                finally:
                    server.should_exit = True
                    await serving

    return start


@pytest.fixture
def caller() -> Callable[..., httpx.AsyncClient]:
    """A caller of the gateway, with a key; speaks TLS as its files say."""

    def make(url: str, tls: TlsFiles = PLAIN, **options: Any) -> httpx.AsyncClient:
        verify: Any = True
        if tls:
            verify = ssl.create_default_context(cafile=tls.ca)
            if tls.cert is not None:
                verify.load_cert_chain(tls.cert, tls.key)
        return httpx.AsyncClient(
            base_url=url, verify=verify, headers={"X-API-Key": KEY}, timeout=PATIENCE_S, trust_env=False, **options
        )

    return make


@pytest.fixture
def client() -> Callable[..., AsyncClient]:
    """A client of ours for brokers, with a key."""

    def make(address: Address, tls: TlsFiles = PLAIN, **options: Any) -> AsyncClient:
        return AsyncClient(address, KEY, ca=tls.ca, cert=tls.cert, key=tls.key, **options)

    return make
