"""A program whose own certificate has expired says so, at its start and whenever it takes another one."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from openline.tls import TlsFiles


def uses(lines: list[dict[str, Any]], event: str) -> set[str]:
    return {line["use"] for line in lines if line["event"] == event}


def not_after(files: TlsFiles) -> float:
    assert files.cert is not None
    return x509.load_pem_x509_certificate(files.cert.read_bytes()).not_valid_after_utc.timestamp()


async def shown(client: httpx.AsyncClient, url: str, program: str) -> float:
    """The metric."""
    text = (await client.get(f"{url}/metrics")).text
    [family] = [each for each in text_string_to_metric_families(text) if f"{program}_certificate" in each.name]
    [sample] = family.samples
    return float(sample.value)


async def replaced(
    lines: list[dict[str, Any]], until: Callable[..., Awaitable[None]], put: Callable[[], Any], expected: set[str]
) -> None:
    """Another expired one takes its place, and is told of; then one that is good, and is not."""
    await until(lambda: uses(lines, "certificate.expired") == expected)
    said = [line for line in lines if line["event"] == "certificate.expired"]
    assert sorted(line["use"] for line in said) == sorted(expected)
    assert {line["log_level"] for line in said} == {"warning"}
    lines.clear()
    put()
    await until(lambda: uses(lines, "certificate.expired") == expected)


async def test_a_broker(
    start_broker: Any, authorities: Any, address: str, until: Any, log_lines: list[dict[str, Any]]
) -> None:
    """Once, though it shows the same one to whoever connects and to other replicas."""
    own, _ = authorities
    files = own.issue("broker", "127.0.0.1", expired=True)
    async with start_broker(tls=files, metrics_listen=address), httpx.AsyncClient(trust_env=False) as client:
        assert await shown(client, f"http://{address}", "broker") == not_after(files)
        again = lambda: own.issue("broker", "127.0.0.1", expired=True)  # noqa: E731
        await replaced(log_lines, until, again, {"peers"})
        log_lines.clear()
        own.issue("broker", "127.0.0.1")
        await until(lambda: uses(log_lines, "certificates.taken") == {"listen", "peers"})
        assert await shown(client, f"http://{address}", "broker") == not_after(files)
        assert not uses(log_lines, "certificate.expired")


async def test_a_gateway(
    start_broker: Any, start_gateway: Any, caller: Any, authorities: Any, until: Any, log_lines: list[dict[str, Any]]
) -> None:
    """Of its two certificates the metric has the one that goes first."""
    own, _ = authorities
    broker, shown_to_callers = own.issue("broker", "127.0.0.1"), own.issue("front", "127.0.0.1")
    mine = own.issue("gateway", "gateway", expired=True)
    async with (
        start_broker(tls=broker) as address,
        start_gateway(address, tls=mine, shown=shown_to_callers) as url,
        caller(url, TlsFiles(ca=broker.ca)) as client,
    ):
        assert await shown(client, url, "gateway") == not_after(mine) < not_after(shown_to_callers)
        await replaced(log_lines, until, lambda: own.issue("gateway", "gateway", expired=True), {"brokers"})
        own.issue("front", "127.0.0.1", expired=True)
        await until(lambda: uses(log_lines, "certificate.expired") == {"brokers", "listen"})


async def test_an_executor(
    start_broker: Any, dial: Any, authorities: Any, until: Any, log_lines: list[dict[str, Any]]
) -> None:
    """It has no metrics, so its log is all there is."""
    own, _ = authorities
    broker, mine = own.issue("broker", "127.0.0.1"), own.issue("executor", "prod", expired=True)
    async with start_broker(tls=broker) as address, dial(address, mine):
        await replaced(log_lines, until, lambda: own.issue("executor", "prod", expired=True), {"broker"})


async def test_without_a_certificate_the_metric_is_nothing(start_broker: Any, address: str) -> None:
    async with start_broker(metrics_listen=address), httpx.AsyncClient(trust_env=False) as client:
        assert await shown(client, f"http://{address}", "broker") == 0
