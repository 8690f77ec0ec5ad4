"""Broker to broker: each shows its server's certificate to the other, and forwards commands over that."""

from typing import Any

import pytest

from openline.tls import TlsFiles

Lines = list[dict[str, Any]]


def told(lines: Lines, event: str, peer: str) -> Lines:
    return [line for line in lines if line["event"] == event and line["peer"] == peer]


async def test_commands_are_forwarded_over_tls(
    start_broker: Any, dial: Any, client: Any, authorities: Any, until: Any, log_lines: Lines
) -> None:
    """The executor is at the other replica; both ask for certificates."""
    own, _ = authorities
    tls = own.issue("brokers", "127.0.0.1")
    async with start_broker(tls) as one, start_broker(tls, replica_id="r2") as other:
        await until(lambda: told(log_lines, "peer.reached", "r1") and told(log_lines, "peer.reached", "r2"))
        async with dial(other, tls) as executor, client(one, tls) as caller:
            await executor.connected()
            result = await caller.execute("prod", "get", "pods", wait_for_cluster_s=10)
            assert (result.stdout, result.executor_id) == (b"xxx", "one")


@pytest.mark.parametrize("what", ["another authority", "expired", "none", "plaintext", "the other's authority"])
async def test_a_replica_that_has_not_what_it_takes_is_no_peer(
    start_broker: Any, authorities: Any, until: Any, log_lines: Lines, what: str
) -> None:
    """Of two of which one has what is wrong; with the right files they find each other, without a restart."""
    own, other = authorities
    good = own.issue("good", "127.0.0.1")
    fields: dict[str, Any] = {}
    match what:
        case "another authority":
            bad = TlsFiles(good.ca, *other.issue("bad", "127.0.0.1").paths[1:])
        case "expired":
            bad = own.issue("bad", "127.0.0.1", expired=True)
        case "none":
            bad, fields = own.issue("bad", "127.0.0.1"), {"tls_cert": None, "tls_key": None, "tls_client_ca": None}
            fields["peer_ca"] = good.ca
        case "plaintext":
            bad = TlsFiles()
        case _:
            bad, fields = own.issue("bad", "127.0.0.1"), {"peer_ca": other.issue("other", "x").ca}
    async with start_broker(good), start_broker(bad, replica_id="r2", **fields):
        # Each dials the other; the one that is wrong is refused, and refuses or is refused in turn.
        await until(lambda: told(log_lines, "peer.refused", "r1"))
        assert told(log_lines, "peer.reached", "r1") == []
        if what in ("another authority", "expired"):
            own.issue("bad", "127.0.0.1")
            await until(lambda: told(log_lines, "peer.reached", "r1") and told(log_lines, "peer.reached", "r2"))
        elif what == "the other's authority":
            own.issue("other", "x")
            await until(lambda: told(log_lines, "peer.reached", "r1"))


async def test_forwarding_goes_on_while_certificates_are_replaced(
    start_broker: Any, dial: Any, client: Any, authorities: Any, until: Any, log_lines: Lines, address: Any
) -> None:
    """By those of another authority: the pipe that is open stays, and the one after it is of the new ones."""
    own, new = authorities
    tls = own.issue("brokers", "127.0.0.1")
    async with start_broker(tls) as one:
        async with start_broker(tls, replica_id="r2", listen=address):
            await until(lambda: told(log_lines, "peer.reached", "r2"))
            async with dial(address, tls) as executor, client(one, tls) as caller:
                await executor.connected()
                assert (await caller.execute("prod", "get", "pods", wait_for_cluster_s=10)).ok
                new.issue("brokers", "127.0.0.1")
                await until(lambda: [line for line in log_lines if line["event"] == "certificates.taken"])
                assert (await caller.execute("prod", "get", "pods")).ok
            assert told(log_lines, "peer.lost", "r2") == []
        await until(lambda: told(log_lines, "peer.lost", "r2"))
        async with start_broker(tls, replica_id="r2", listen=address):
            await until(lambda: len(told(log_lines, "peer.reached", "r2")) == 2)


async def test_what_redis_says_of_peers_leads_no_plaintext_off_this_machine(
    start_broker: Any, store: Any, until: Any, log_lines: Lines
) -> None:
    """Without --insecure an address that is not loopback is not dialed, whoever wrote it there."""
    async with (
        start_broker(),
        start_broker(replica_id="r2", advertise="203.0.113.7:1", insecure=True),
    ):
        await until(lambda: told(log_lines, "peer.refused", "r2"))
        # Tried again, it is at debug.
        refused = told(log_lines, "peer.refused", "r2")
        assert all("--insecure" in line["why"] for line in refused)
        assert [line["log_level"] for line in refused].count("warning") == 1
