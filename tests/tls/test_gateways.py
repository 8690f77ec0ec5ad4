"""Gateway to broker, and our own clients to brokers: with which certificates, and with which after a change."""

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from openline.client import AsyncClient, BrokerUnavailable, Client
from openline.tls import TlsFiles

WRONG = ["the broker's authority", "another authority", "expired", "none", "plaintext"]


def spoilt(what: str, own: Any, other: Any) -> TlsFiles:
    """A client's files with this wrong about them."""
    good = own.issue("good", "somebody")
    match what:
        case "the broker's authority":
            return TlsFiles(other.issue("wrong", "x").ca, good.cert, good.key)
        case "another authority":
            return TlsFiles(good.ca, *other.issue("wrong", "x").paths[1:])
        case "expired":
            return TlsFiles(*own.issue("wrong", "somebody", expired=True).paths)
        case "none":
            return TlsFiles(good.ca)
        case _:
            return TlsFiles()


async def test_a_gateway_shows_its_certificate(
    start_broker: Any, dial: Any, start_gateway: Any, caller: Any, authorities: Any
) -> None:
    own, _ = authorities
    server, mine = own.issue("server", "127.0.0.1"), own.issue("gateway", "somebody")
    async with (
        start_broker(server) as broker,
        dial(broker, mine) as executor,
        start_gateway(broker, tls=mine) as url,
        caller(url) as http,
    ):
        await executor.connected()
        answer = await http.post("/v1/clusters/prod/commands", json={"argv": ["get", "pods"]})
        assert (answer.status_code, answer.json()["stdout"]) == (200, "xxx")
        assert (await http.get("/v1/clusters")).status_code == 200


@pytest.mark.parametrize("what", WRONG)
async def test_a_gateway_that_has_not_what_it_takes_reaches_nobody(
    start_broker: Any, start_gateway: Any, caller: Any, authorities: Any, until: Any, log_lines: Any, what: str
) -> None:
    """It says so, goes on trying, and with the right files it gets there without a restart."""
    own, other = authorities
    server = own.issue("server", "127.0.0.1")
    async with (
        start_broker(server) as broker,
        start_gateway(broker, tls=spoilt(what, own, other)) as url,
        caller(url) as http,
    ):
        await until(lambda: [line for line in log_lines if line["event"] == "pipe.refused"])
        assert (await http.get("/health")).status_code == 503
        if what not in ("none", "plaintext"):
            own.issue("wrong", "somebody")
            await until(lambda: [line for line in log_lines if line["event"] == "pipe.opened"])
            assert (await http.get("/v1/clusters")).status_code == 200


async def test_a_gateways_streams_go_on_while_certificates_are_replaced(
    start_broker: Any, dial: Any, start_gateway: Any, caller: Any, authorities: Any, until: Any, log_lines: Any,
    address: Any,
) -> None:  # fmt: skip
    """By those of another authority; when the broker comes again with them, the gateway has them as well."""
    own, new = authorities
    server, mine = own.issue("server", "127.0.0.1"), own.issue("gateway", "somebody")
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(contextlib.AsyncExitStack())
        broker = await first.enter_async_context(start_broker(server, listen=address))
        url = await stack.enter_async_context(start_gateway(broker, tls=mine))
        http = await stack.enter_async_context(caller(url))
        executor = await stack.enter_async_context(dial(broker, mine))
        await executor.connected()
        running = asyncio.create_task(keep_asking(http))
        for files in ("server", "gateway"):
            new.issue(files, "127.0.0.1")
        await until(lambda: {"brokers", "listen"} <= {line.get("use") for line in taken(log_lines)})
        assert [line for line in log_lines if line["event"] == "pipe.closed"] == []
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()
        await first.aclose()
        await stack.enter_async_context(start_broker(server, listen=address))
        await until(lambda: len([line for line in log_lines if line["event"] == "pipe.opened"]) == 2)
        assert (await http.get("/v1/clusters")).status_code == 200
        await executor.connected()


def taken(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == "certificates.taken"]


async def keep_asking(http: Any) -> None:
    """Ends with the first answer that is no 200."""
    while (await http.post("/v1/clusters/prod/commands", json={"argv": ["get", "pods"]})).status_code == 200:
        assert (await http.get("/v1/clusters")).status_code == 200


# The clients


@pytest.mark.parametrize("what", WRONG)
async def test_clients_that_have_not_what_it_takes_reach_nobody(
    start_broker: Any, client: Any, authorities: Any, address: Any, what: str
) -> None:
    """Nothing has run; and with the right files they get there as they are."""
    own, other = authorities
    server = own.issue("server", "127.0.0.1")
    async with start_broker(server) as broker:
        wrong = spoilt(what, own, other)
        with Client(broker, "the-key-of-alice", ca=wrong.ca, cert=wrong.cert, key=wrong.key) as blocking:
            async with client(broker, wrong) as asynchronous:
                for ask in (asynchronous.execute, in_thread(blocking.execute)):
                    with pytest.raises(BrokerUnavailable) as refused:
                        await ask("prod", "get", "pods", timeout_s=0.3)
                    assert refused.value.executed == "no"
                if what not in ("none", "plaintext"):
                    own.issue("wrong", "somebody")
                    assert await asynchronous.clusters()
                    assert await in_thread(blocking.clusters)()


def in_thread(function: Any) -> Any:
    async def call(*words: Any, **options: Any) -> Any:
        return await asyncio.to_thread(function, *words, **options)

    return call


async def test_a_blocking_clients_calls_go_on_while_certificates_are_replaced(
    start_broker: Any, dial: Any, authorities: Any, until: Any, address: Any
) -> None:
    """By those of another authority. A broker that comes again with them is reached by the client that was there."""
    own, new = authorities
    server, mine = own.issue("server", "127.0.0.1"), own.issue("mine", "somebody")
    with Client(address, "the-key-of-alice", ca=mine.ca, cert=mine.cert, key=mine.key) as blocking:
        async with start_broker(server, listen=address), dial(address, mine) as executor:
            await executor.connected()
            asked, stopped = 0, threading.Event()

            def keep_asking() -> None:
                nonlocal asked
                while not stopped.is_set():
                    assert blocking.execute("prod", "get", "pods").ok
                    asked += 1

            running = asyncio.create_task(asyncio.to_thread(keep_asking))
            await until(lambda: asked)
            for files in ("server", "mine"):
                new.issue(files, "127.0.0.1")
            async with dial(address, mine, executor_id="two") as another:
                await another.connected()  # so the broker has the new ones
            before = asked
            await until(lambda: asked > before + 1)
            stopped.set()
            await running
        async with start_broker(server, listen=address):
            assert await asyncio.to_thread(blocking.clusters)


async def test_what_a_client_cannot_use_is_an_os_error_at_first_and_nothing_later(
    start_broker: Any, client: Any, authorities: Any, spoil: Any, address: Any
) -> None:
    """A key that is not the certificate's, when it is made; afterwards it stays with what it had."""
    own, _ = authorities
    server, mine, other = (own.issue(name, "127.0.0.1") for name in ("server", "mine", "other"))
    with pytest.raises(OSError, match="is not the key of"):
        Client(address, "k", ca=mine.ca, cert=mine.cert, key=other.key)
    with pytest.raises(OSError, match="is not the key of"):
        async with AsyncClient(address, "k", ca=mine.ca, cert=mine.cert, key=other.key):
            pass
    with Client(address, "the-key-of-alice", ca=mine.ca, cert=mine.cert, key=mine.key) as blocking:
        async with client(address, mine) as asynchronous:
            spoil(mine.key, "empty")
            async with start_broker(server, listen=address):
                assert await asynchronous.clusters()
                assert await asyncio.to_thread(blocking.clusters)


async def test_plaintext_off_this_machine_is_the_programs_business(caplog: pytest.LogCaptureFixture) -> None:
    """The library does not refuse it: it says so once for each broker, to whoever listens."""
    with Client("127.0.0.1:1,192.0.2.1:1", "k"):
        pass
    async with AsyncClient("192.0.2.1:1", "k"):
        pass
    said = [record.getMessage() for record in caplog.records if "event=plaintext" in record.getMessage()]
    assert [line.partition("broker=")[2].split()[0] for line in said] == ["192.0.2.1:1", "192.0.2.1:1"]
