"""Executor to broker: who is let in by which certificate, and what becomes of streams when they are replaced."""

import asyncio
import itertools
from typing import Any

import grpc
import pytest

from openline.channels import CLIENT_OPTIONS
from openline.client import AsyncClient, ClusterOffline, ClusterUnknown
from openline.settings import Address
from openline.tls import TlsFiles
from openline.v1.admin_service_pb2 import RevokeExecutorTokenRequest
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from tests.lines import Line


async def run(client: AsyncClient) -> None:
    """A command, from its caller to the executor and back."""
    assert (await client.execute("prod", "get", "pods")).stdout == b"xxx"


def events(lines: list[dict[str, Any]], *names: str) -> list[str]:
    return [line["event"] for line in lines if line["event"] in names]


async def test_both_ends_show_a_certificate(start_broker: Any, dial: Any, client: Any, authorities: Any) -> None:
    """And commands run over the line."""
    own, _ = authorities
    server, mine = own.issue("server", "127.0.0.1"), own.issue("executor", "somebody")
    async with start_broker(server) as address, dial(address, mine) as executor, client(address, mine) as caller:
        await executor.connected()
        await run(caller)


@pytest.mark.parametrize("with_tls", [True, False])
async def test_a_broker_on_another_continent(
    start_broker: Any, dial: Any, client: Any, authorities: Any, *, with_tls: bool
) -> None:
    """Each of the round trips before the first frame takes a second."""
    own, _ = authorities
    server = own.issue("server", "127.0.0.1") if with_tls else TlsFiles()
    mine = own.issue("executor", "somebody") if with_tls else TlsFiles()
    async with start_broker(server) as address, Line(address, delay_s=0.5).listening() as line:
        far = Address(line.address)
        async with dial(far, mine) as executor, client(far, mine) as caller:
            await executor.connected()
            await run(caller)


async def test_the_broker_need_not_ask_for_one(start_broker: Any, dial: Any, authorities: Any) -> None:
    own, _ = authorities
    server = own.issue("server", "127.0.0.1")
    async with start_broker(server, mutual=False) as address, dial(address, TlsFiles(server.ca)) as executor:
        await executor.connected()


@pytest.mark.parametrize(
    "what",
    ["the broker's authority", "the executor's authority", "expired", "the broker's is expired", "none", "plaintext"],
)
async def test_who_is_not_let_in_is_dialing_until_it_has_what_it_takes(
    start_broker: Any, dial: Any, authorities: Any, until: Any, log_lines: list[dict[str, Any]], what: str
) -> None:
    """Said once; and when the right files are there, they are used without a restart, on either side."""
    own, other = authorities
    server = own.issue("server", "127.0.0.1", expired=what == "the broker's is expired")
    mine = own.issue("executor", "somebody", expired=what == "expired")
    match what:
        case "the broker's authority":
            mine = TlsFiles(other.issue("other", "x").ca, mine.cert, mine.key)
        case "the executor's authority":
            mine = TlsFiles(mine.ca, *other.issue("other", "x").paths[1:])
        case "none":
            mine = TlsFiles(mine.ca)
        case "plaintext":
            mine = TlsFiles()
    async with start_broker(server) as address, dial(address, mine) as executor:
        await until(lambda: events(log_lines, "connection.failed"))
        await asyncio.sleep(0.3)  # a few attempts more
        assert not executor.link.connected
        failed = [line for line in log_lines if line["event"] == "connection.failed"]
        assert {line["log_level"] for line in failed} == {"warning"}
        # Another reason is news.
        assert all(one["why"] != other["why"] for one, other in itertools.pairwise(failed)), failed
        assert events(log_lines, "connection.opened") == []
        if mine.cert is None:
            return
        own.issue("server", "127.0.0.1")
        own.issue("executor", "somebody")
        own.issue("other", "somebody")
        await executor.connected()


async def test_an_executor_that_speaks_tls_to_a_broker_that_does_not(
    start_broker: Any, dial: Any, authorities: Any, until: Any, log_lines: list[dict[str, Any]]
) -> None:
    """It does not try without: whoever is in between could have it that way."""
    own, _ = authorities
    async with start_broker() as address, dial(address, own.issue("executor", "somebody")) as executor:
        await until(lambda: events(log_lines, "connection.failed"))
        assert not executor.link.connected


async def test_streams_and_calls_outlive_their_certificates(
    start_broker: Any, dial: Any, client: Any, authorities: Any, until: Any, log_lines: list[dict[str, Any]]
) -> None:
    """Another authority takes the place of the one that all have: what is open goes on, what comes needs that one."""
    own, new = authorities
    uses = {"listen", "peers", "broker"}
    server, mine, old = (own.issue(name, "127.0.0.1") for name in ("server", "mine", "old"))
    async with start_broker(server) as address, dial(address, mine) as executor, client(address, mine) as caller:
        await executor.connected()
        async with caller.session("prod"):
            running = asyncio.create_task(keep_running(caller))
            await run(caller)
            for name in ("server", "mine"):
                new.issue(name, "127.0.0.1")
            async with dial(address, mine, executor_id="two") as later, client(address, mine) as newcomer:
                await later.connected()
                await run(newcomer)
            async with grpc.aio.secure_channel(address, credentials(old), options=CLIENT_OPTIONS) as late:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await late.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            await until(lambda: {line["use"] for line in log_lines if line["event"] == "certificates.taken"} >= uses)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert running.cancelled()
        closed = [line for line in log_lines if line["event"] == "connection.closed"]
        assert {line["executor_id"] for line in closed if "executor_id" in line} == {"two"}


async def keep_running(client: AsyncClient) -> None:
    """One command after the other; ends with the first that does not come back."""
    while True:
        await run(client)


def credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    ca, cert, key = (file.read_bytes() for file in files.paths)
    return grpc.ssl_channel_credentials(ca, key, cert)


@pytest.mark.parametrize("how", ["empty", "garbage", "gone"])
@pytest.mark.parametrize("part", ["ca", "cert", "key"])
@pytest.mark.parametrize("side", ["server", "mine"])
async def test_what_cannot_be_used_is_refused_and_the_old_files_stay_in_use(
    start_broker: Any, dial: Any, authorities: Any, spoil: Any, until: Any, log_lines: list[dict[str, Any]],
    side: str, part: str, how: str,
) -> None:  # fmt: skip
    """With one line that says which file, soon after the change, whether anybody connects or not."""
    own, _ = authorities
    server, mine = own.issue("server", "127.0.0.1"), own.issue("mine", "somebody")
    async with start_broker(server) as address, dial(address, mine) as executor:
        await executor.connected()
        file = getattr(server if side == "server" else mine, part)
        spoil(file, how)
        use = "listen" if side == "server" else "broker"
        await until(lambda: [line for line in log_lines if refused(line, use)])
        async with dial(address, own.issue("another", "x"), executor_id="two") as another:
            await another.connected()
        [line] = [line for line in log_lines if refused(line, use)]
        assert str(file) in line["why"]
        assert line["log_level"] == "error"


def refused(line: dict[str, Any], use: str) -> bool:
    return bool(line["event"] == "certificates.refused" and line["use"] == use)


async def test_a_half_finished_replacement_is_waited_for(
    start_broker: Any, dial: Any, authorities: Any, until: Any, log_lines: list[dict[str, Any]]
) -> None:
    """The certificate is there and its key is not: the old pair is shown until both are."""
    own, _ = authorities
    server, mine = own.issue("server", "127.0.0.1"), own.issue("mine", "somebody")
    old_key = server.key.read_bytes()
    async with start_broker(server) as address:
        own.issue("server", "127.0.0.1")
        new_key = server.key.read_bytes()
        server.key.write_bytes(old_key)
        async with dial(address, mine) as executor:
            await executor.connected()
        assert [line["why"] for line in log_lines if refused(line, "listen")] == [
            f"{server.key} is not the key of {server.cert}"
        ]
        server.key.write_bytes(new_key)
        await until(lambda: events(log_lines, "certificates.taken"))


# A certificate instead of a token


@pytest.mark.parametrize("kind", ["dns", "uri"])
async def test_a_certificate_of_the_cluster_needs_no_token(
    start_broker: Any, dial: Any, client: Any, authorities: Any, log_lines: list[dict[str, Any]], kind: str
) -> None:
    """By a DNS name or a URI, one among others; its cluster is known by the flag alone."""
    own, _ = authorities
    server = own.issue("server", "127.0.0.1")
    mine = own.issue("mine", "other", "edge", "10.0.0.1") if kind == "dns" else own.issue_for_uri("mine", "edge")
    async with start_broker(server, certified=("edge", "far")) as address, client(address, mine) as caller:
        assert [cluster.cluster_id for cluster in await caller.clusters()] == ["edge", "far", "prod"]
        with pytest.raises(ClusterOffline):
            await caller.execute("edge", "get", "pods")
        async with dial(address, mine, cluster_id="edge", token=None) as executor:
            await executor.connected()
            assert (await caller.execute("edge", "get", "pods")).ok
        assert [line["by"] for line in log_lines if line["event"] == "connection.opened" and "by" in line] == [
            "certificate"
        ]


@pytest.mark.parametrize(
    ("names", "certified"),
    [
        (("prod",), ("edge",)),  # another cluster's
        (("edge.example.com", "*.edge"), ("edge",)),  # not the same name
        (("edge@example.com", "10.0.0.1"), ("edge",)),  # names of other kinds
        (("edge",), ("far",)),  # not listed
    ],
)
async def test_any_other_certificate_does(
    start_broker: Any, dial: Any, authorities: Any, until: Any, log_lines: list[dict[str, Any]],
    names: tuple[str, ...], certified: tuple[str, ...],
) -> None:  # fmt: skip
    """Not without a good token: it is answered as a wrong token is."""
    own, _ = authorities
    server, mine = own.issue("server", "127.0.0.1"), own.issue("mine", *names)
    async with (
        start_broker(server, certified=certified) as address,
        dial(address, mine, cluster_id="edge", token=None) as executor,
    ):
        await until(lambda: events(log_lines, "connection.failed"))
        assert not executor.link.connected
        [line] = [line for line in log_lines if line["event"] == "connection.failed"]
        assert (line["status"], line["why"]) == ("UNAUTHENTICATED", "invalid token for this cluster")


async def test_a_common_name_is_no_name(
    start_broker: Any, dial: Any, authorities: Any, until: Any, log_lines: list[dict[str, Any]], tmp_path: Any
) -> None:
    """Authorities check what is in the subject alternative name."""
    own, _ = authorities
    server = own.issue("server", "127.0.0.1")
    made = own._ca.issue_cert("somebody", common_name="edge")
    mine = own.put("mine", made.cert_chain_pems[0].bytes(), made.private_key_pem.bytes())
    async with (
        start_broker(server, certified=("edge",)) as address,
        dial(address, mine, cluster_id="edge", token=None) as executor,
    ):
        await until(lambda: events(log_lines, "connection.failed"))
        assert not executor.link.connected


async def test_a_token_is_good_beside_any_certificate(
    start_broker: Any, dial: Any, authorities: Any, log_lines: list[dict[str, Any]]
) -> None:
    """While a cluster moves from one to the other."""
    own, _ = authorities
    server, mine = own.issue("server", "127.0.0.1"), own.issue("mine", "somebody")
    async with start_broker(server, certified=("prod",)) as address, dial(address, mine) as executor:
        await executor.connected()
        assert [line["by"] for line in log_lines if line["event"] == "connection.opened" and "by" in line] == ["token"]


async def test_tokens_that_are_revoked_do_not_end_what_a_certificate_has_opened(
    start_broker: Any, dial: Any, client: Any, authorities: Any, redis: Any
) -> None:
    """Nor is the cluster forgotten with its last token; one that is not listed is."""
    own, _ = authorities
    server, mine = own.issue("server", "127.0.0.1"), own.issue("mine", "prod")
    async with (
        start_broker(server, certified=("prod",)) as address,
        dial(address, mine) as executor,
        client(address, mine) as caller,
    ):
        await executor.connected()
        await revoke(address, mine)
        await run(caller)
        with pytest.raises(ClusterUnknown):
            await caller.execute("far", "get", "pods")
    await redis.flushall()
    async with start_broker(server) as address, client(address, mine) as caller:
        await revoke(address, mine)
        with pytest.raises(ClusterUnknown):
            await caller.execute("prod", "get", "pods")


async def revoke(address: Address, files: TlsFiles) -> None:
    """All tokens of `prod`."""
    async with grpc.aio.secure_channel(address, credentials(files), options=CLIENT_OPTIONS) as channel:
        request = RevokeExecutorTokenRequest(cluster_id="prod")
        key = (("x-api-key", "the-key-of-alice"),)
        await AdminServiceStub(channel).RevokeExecutorToken(request, metadata=key, timeout=10)
