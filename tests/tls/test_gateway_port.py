"""Callers to gateway: its own port with TLS, what is shown there after a change, and bounds on handshakes."""

import asyncio
import contextlib
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import securing, serving
from gateway.securing import make_tls_server
from gateway.serving import listen
from openline.fresh import Fresh
from openline.settings import Address
from openline.tls import TlsFiles, server_context

NOWHERE = Address("127.0.0.1:9")
LIVES = "/healthz"


def port_of(url: str) -> tuple[str, int]:
    address = Address(url.partition("://")[2])
    return address.host, address.port


@contextlib.asynccontextmanager
async def connected(url: str, tls: TlsFiles | None = None) -> AsyncIterator[tuple[Any, Any]]:
    """A connection by itself, with TLS if there are files."""
    context = None if tls is None else ssl.create_default_context(cafile=tls.ca)
    host, port = port_of(url)
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(reader: Any, writer: Any) -> bytes:
    """The head of the answer to a health check."""
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        head: bytes = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
    return head


async def test_https(start_gateway: Any, caller: Any, authorities: Any) -> None:
    """And whoever speaks plaintext there is answered nothing."""
    own, _ = authorities
    shown = own.issue("gateway", "127.0.0.1")
    async with start_gateway(NOWHERE, shown=shown) as url:
        async with caller(url, TlsFiles(shown.ca)) as http:
            assert (await http.get(LIVES)).status_code == 200
        async with caller(url.replace("https", "http")) as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get(LIVES)


async def test_a_broker_is_asked_over_it(
    start_broker: Any, dial: Any, start_gateway: Any, caller: Any, authorities: Any
) -> None:
    """TLS to the gateway is none to the broker, and the other way round: each hop has its own."""
    own, _ = authorities
    shown = own.issue("gateway", "127.0.0.1")
    async with (
        start_broker() as broker,
        dial(broker) as executor,
        start_gateway(broker, shown=shown) as url,
        caller(url, TlsFiles(shown.ca)) as http,
    ):
        await executor.connected()
        answer = await http.post("/v1/clusters/prod/commands", json={"argv": ["get", "pods"]})
        assert (answer.status_code, answer.json()["stdout"]) == (200, "xxx")


@pytest.mark.parametrize("what", ["another authority", "expired"])
async def test_callers_refuse_what_they_cannot_trust(
    start_gateway: Any, caller: Any, authorities: Any, what: str
) -> None:
    own, other = authorities
    shown = own.issue("gateway", "127.0.0.1", expired=what == "expired")
    trusted = shown.ca if what == "expired" else other.issue("other", "x").ca
    async with start_gateway(NOWHERE, shown=shown) as url, caller(url, TlsFiles(trusted)) as http:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await http.get(LIVES)


async def test_callers_may_have_to_show_a_certificate(start_gateway: Any, caller: Any, authorities: Any) -> None:
    """Of the right authority, not expired; a key is needed as well."""
    own, other = authorities
    shown, mine = own.issue("gateway", "127.0.0.1"), own.issue("mine", "somebody")
    wrong = [
        TlsFiles(shown.ca),
        TlsFiles(shown.ca, *other.issue("other", "somebody").paths[1:]),
        own.issue("expired", "somebody", expired=True),
    ]
    async with start_gateway(NOWHERE, shown=shown, mutual=True) as url:
        async with caller(url, mine) as http:
            assert (await http.get(LIVES)).status_code == 200
            del http.headers["X-API-Key"]
            assert (await http.get("/v1/clusters")).status_code == 401
        for files in wrong:
            async with caller(url, files) as http:
                with pytest.raises(httpx.TransportError):
                    await http.get(LIVES)


async def test_connections_and_streams_outlive_their_certificates(
    start_broker: Any, dial: Any, start_gateway: Any, caller: Any, authorities: Any, until: Any, log_lines: Any
) -> None:
    """What is open goes on, and a new connection is shown, and must show, what the new authority has signed."""
    own, new = authorities
    shown, mine, old = own.issue("gateway", "127.0.0.1"), own.issue("mine", "x"), own.issue("old", "x")
    async with (
        start_broker() as broker,
        start_gateway(broker, shown=shown, mutual=True) as url,
        caller(url, mine) as http,
    ):
        # It waits for its cluster, so its stream is open all the while.
        body = {"argv": ["get", "pods"], "wait_for_cluster_s": 60}
        heads = {"Accept": "text/event-stream"}
        async with http.stream("POST", "/v1/clusters/prod/commands", json=body, headers=heads) as stream:
            assert stream.status_code == 200
            for files in ("gateway", "mine"):
                new.issue(files, "127.0.0.1")
            async with caller(url, mine) as later:
                assert (await later.get(LIVES)).status_code == 200
            async with caller(url, old) as late:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await late.get(LIVES)
            async with caller(url, TlsFiles(mine.ca, old.cert, old.key)) as late:
                with pytest.raises(httpx.TransportError):
                    await late.get(LIVES)
            async with dial(broker) as executor:
                await executor.connected()
                text = "".join([part async for part in stream.aiter_text()])
        assert "event: result" in text
    assert "certificates.taken" in [line["event"] for line in log_lines]


async def test_a_connection_that_is_kept_alive_goes_on(start_gateway: Any, caller: Any, authorities: Any) -> None:
    own, new = authorities
    shown = own.issue("gateway", "127.0.0.1")
    async with start_gateway(NOWHERE, shown=shown) as url, connected(url, shown) as (reader, writer):
        assert (await ask(reader, writer)).startswith(b"HTTP/1.1 200")
        new.issue("gateway", "127.0.0.1")
        async with caller(url, TlsFiles(shown.ca)) as http:
            assert (await http.get(LIVES)).status_code == 200
        assert (await ask(reader, writer)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("how", ["empty", "garbage", "gone"])
@pytest.mark.parametrize("part", ["ca", "cert", "key"])
async def test_what_cannot_be_used_is_refused_and_the_old_files_stay_in_use(
    start_gateway: Any, caller: Any, authorities: Any, spoil: Any, until: Any, log_lines: Any, part: str, how: str
) -> None:
    own, _ = authorities
    shown, mine = own.issue("gateway", "127.0.0.1"), own.issue("mine", "somebody")
    async with start_gateway(NOWHERE, shown=shown, mutual=True) as url:
        spoil(getattr(shown, part), how)
        await until(lambda: [line for line in log_lines if line["event"] == "certificates.refused"])
        async with caller(url, mine) as http:
            assert (await http.get(LIVES)).status_code == 200
        [line] = [line for line in log_lines if line["event"] == "certificates.refused"]
        assert str(getattr(shown, part)) in line["why"]


async def test_a_handshake_takes_no_longer_than_its_time(
    start_gateway: Any, caller: Any, authorities: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody waits for those that take it."""
    own, _ = authorities
    shown = own.issue("gateway", "127.0.0.1")
    async with start_gateway(NOWHERE, shown=shown) as url, connected(url):
        async with caller(url, TlsFiles(shown.ca)) as http:
            assert (await http.get(LIVES)).status_code == 200
        # From the next connection on.
        monkeypatch.setattr(securing, "HANDSHAKE_TIMEOUT_S", 0.3)
        async with connected(url) as (silent, _), asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert await silent.read() == b""


async def test_a_goodbye_is_not_waited_for_without_end(
    start_gateway: Any, authorities: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS would have the other end say that it closes, too."""
    monkeypatch.setattr(securing, "GOODBYE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(serving, "KEEP_ALIVE_S", 0.2)
    own, _ = authorities
    shown = own.issue("gateway", "127.0.0.1")

    def say_nothing(where: tuple[str, int]) -> None:
        """Shakes hands, and from then on takes what comes for bytes."""
        context = ssl.create_default_context(cafile=shown.ca)
        secured = context.wrap_socket(socket.create_connection(where, timeout=10), server_hostname=where[0])
        with socket.socket(fileno=secured.detach()) as plain:
            plain.settimeout(10)
            with contextlib.suppress(ConnectionError):
                while plain.recv(4096):
                    pass

    async with start_gateway(NOWHERE, shown=shown) as url:
        await asyncio.to_thread(say_nothing, port_of(url))


async def test_handshakes_beyond_the_bound_are_closed_unheard(
    start_gateway: Any, caller: Any, authorities: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until one of those before has ended; who stands already is not counted."""
    monkeypatch.setattr(securing, "MAX_HANDSHAKES", 2)
    own, _ = authorities
    shown = own.issue("gateway", "127.0.0.1")
    async with start_gateway(NOWHERE, shown=shown) as url, connected(url, shown) as standing:
        assert (await ask(*standing)).startswith(b"HTTP/1.1 200")
        async with connected(url), connected(url) as (_, second), connected(url) as (third, _):
            async with asyncio.timeout(10):
                assert await third.read() == b""
            assert (await ask(*standing)).startswith(b"HTTP/1.1 200")
            second.write(b"GET / HTTP/1.1\r\n\r\n")  # no handshake, so it is over
            async with caller(url, TlsFiles(shown.ca)) as http, asyncio.timeout(10):
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        assert (await http.get(LIVES)).status_code == 200
                        break


async def test_it_stops_at_once_when_somebody_has_not_shaken_hands(start_gateway: Any, authorities: Any) -> None:
    """Nor does anybody come in any more."""
    own, _ = authorities
    shown = own.issue("gateway", "127.0.0.1")
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(10), start_gateway(NOWHERE, shown=shown) as url:
            await stack.enter_async_context(connected(url))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(port_of(url), timeout=5)


async def test_no_more_files_are_waited_out(
    start_gateway: Any, authorities: Any, until: Any, log_lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that has run out of them says so, and accepts again when it can."""
    monkeypatch.setattr(securing, "ACCEPT_AGAIN_S", 0.05)
    own, _ = authorities
    shown = own.issue("gateway", "127.0.0.1")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with start_gateway(NOWHERE, shown=shown) as url:
        with socket.socket() as waiting:
            waiting.setblocking(False)
            next_one = os.dup(0)
            os.close(next_one)
            resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, before[1]))
            try:
                await asyncio.get_running_loop().sock_connect(waiting, port_of(url))
                await until(lambda: [line for line in log_lines if line["event"] == "connections.not_accepted"])
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            context = ssl.create_default_context(cafile=shown.ca)
            streams = await asyncio.open_connection(sock=waiting, ssl=context, server_hostname="127.0.0.1")
            assert (await ask(*streams)).startswith(b"HTTP/1.1 200")
            streams[1].transport.abort()


async def test_a_defect_stops_the_gateway(tmp_path: Path, authorities: Any) -> None:
    """It does not go on as one that nobody can reach."""
    own, _ = authorities
    shown = own.issue("gateway", "127.0.0.1")
    made = [server_context(shown.cert, shown.key)]
    # Of which a second one cannot be made, for no reason that is foreseen.
    certificates: Fresh[ssl.SSLContext] = Fresh(shown.paths, made.pop, use="listen")

    async def nothing(_scope: Any, _receive: Any, _send: Any) -> None: ...

    with listen("127.0.0.1", 0) as listener:
        own.issue("gateway", "127.0.0.1")
        with pytest.raises(IndexError):
            async with asyncio.timeout(10):
                await make_tls_server(nothing, certificates).serve(sockets=[listener])
