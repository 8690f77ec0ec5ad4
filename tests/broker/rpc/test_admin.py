"""AdminService: who may, tokens that come and go on every replica, and a replica that is drained."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from broker import draining
from broker.rpc import drain as drain_method
from broker.rpc import everywhere, executors, handshake
from broker.store import keys
from broker.store.client import open_redis
from broker.store.embedded import embedded_valkey
from broker.store.store import open_store
from openline.errors import OpenlineError, error, from_rpc_error
from openline.reasons import NO, UNKNOWN, Reason
from openline.v1 import admin_service_pb2 as pb
from openline.v1 import cluster_service_pb2
from openline.v1 import executor_service_pb2 as wire
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub

PATIENCE_S = 20.0
ROOT = "the-key-of-root"
OF_PROD = "the-token-of-prod"
MINE = "a-token_of-my-own-choice-0123456789"


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


class Admin:
    """Asks one replica with one key. Everything raises OpenlineError for a status."""

    def __init__(self, broker: Any, key: str | None = ROOT) -> None:
        self._stub = AdminServiceStub(broker.channel())
        self._metadata = () if key is None else (("x-api-key", key),)

    async def ask(self, method: str, request: Any) -> Any:
        try:
            return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from failure

    async def create(self, cluster_id: str = "prod", **fields: Any) -> Any:
        return await self.ask("CreateExecutorToken", pb.CreateExecutorTokenRequest(cluster_id=cluster_id, **fields))

    async def listed(self, cluster_id: str = "", **fields: Any) -> Any:
        request = pb.ListExecutorTokensRequest(cluster_id=cluster_id, **fields)
        return await self.ask("ListExecutorTokens", request)

    async def revoke(self, cluster_id: str = "prod", token_id: str = "") -> int:
        request = pb.RevokeExecutorTokenRequest(cluster_id=cluster_id, token_id=token_id)
        return int((await self.ask("RevokeExecutorToken", request)).revoked)


async def reason_of(call: Any) -> OpenlineError:
    with pytest.raises(OpenlineError) as refusal:
        await call
    return refusal.value


async def cluster_ids(broker: Any) -> list[str]:
    call = ClusterServiceStub(broker.channel()).ListClusters(
        cluster_service_pb2.ListClustersRequest(), metadata=(("x-api-key", ROOT),)
    )
    return [cluster.cluster_id for cluster in (await call).clusters]


@pytest.fixture
def admin(broker: Any) -> Admin:
    return Admin(broker)


@pytest.fixture
async def replicas(start_broker: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Two that know each other."""
    async with start_broker(replica_id="r1") as one, start_broker(replica_id="r2") as other:
        for each in (one, other):
            await until(lambda each=each: bool(each.inside.dispatcher._forwarding._peers.reachable))  # type: ignore[misc]
        yield one, other


# Who may


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("CreateExecutorToken", pb.CreateExecutorTokenRequest),
        ("ListExecutorTokens", pb.ListExecutorTokensRequest),
        ("RevokeExecutorToken", pb.RevokeExecutorTokenRequest),
        ("Drain", pb.DrainRequest),
    ],
)
@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, Reason.UNAUTHENTICATED),
        (OF_PROD, Reason.UNAUTHENTICATED),
        ("the-key-of-carol", Reason.SCOPE_MISSING),
        ("the-key-of-alice", Reason.SCOPE_MISSING),
        (ROOT, None),
    ],
    ids=["no key", "an executor's", "read", "all but admin", "admin"],
)
async def test_only_admins_may(
    broker: Any, key: str | None, reason: Reason | None, method: str, request_type: Any
) -> None:
    """The scope is looked at before anything else: whoever lacks it learns nothing of clusters and fields."""
    asked = Admin(broker, key).ask(method, request_type(cluster_id="nowhere") if method != "Drain" else request_type())
    if reason is not None:
        assert (await reason_of(asked)).reason is reason
        return
    try:
        await asked
    except OpenlineError as failure:
        assert failure.reason in (Reason.CLUSTER_UNKNOWN, Reason.BROKER_UNAVAILABLE)  # noqa: PT017


# Create


async def test_a_token_that_was_made_lets_an_executor_in(broker: Any, admin: Admin) -> None:
    """A cluster with a token is registered; the token is answered this once, and Redis has its SHA-256."""
    made = await admin.create("fresh")
    assert len(made.token) >= 43
    assert (made.executor_token.cluster_id, len(made.executor_token.token_id)) == ("fresh", 16)
    assert abs(made.executor_token.created_at.ToSeconds() - time.time()) < 60
    assert not made.executor_token.HasField("expires_at")
    await broker.dial(token=made.token).hello(cluster_id="fresh")
    assert (await reason_of(broker.dial(token=made.token).hello(cluster_id="prod"))).reason is Reason.UNAUTHENTICATED
    assert "fresh" in await cluster_ids(broker)


async def test_a_cluster_has_as_many_as_it_needs(broker: Any, admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one can be replaced without a gap; there is a bound."""
    for token in ((await admin.create()).token, (await admin.create()).token, OF_PROD):
        await broker.dial(token=token).hello()
    monkeypatch.setattr("broker.tokens.MAX_OF_CLUSTER", 4)
    assert (await reason_of(admin.create())).reason is Reason.QUOTA_EXCEEDED


async def test_a_token_of_ones_own_choice(broker: Any, admin: Admin) -> None:
    """It is taken once for a cluster, also when it was revoked since; another cluster may have the same."""
    assert (await admin.create("fresh", token=MINE)).token == MINE
    await broker.dial(token=MINE).hello(cluster_id="fresh")
    assert (await reason_of(admin.create("fresh", token=MINE))).reason is Reason.TOKEN_EXISTS
    await admin.revoke("fresh")
    again = await reason_of(admin.create("fresh", token=MINE))
    assert (again.reason, again.error.executed) == (Reason.TOKEN_EXISTS, NO)
    assert (await admin.create("other", token=MINE)).token == MINE


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cluster_id": ""}, "cluster_id"),
        ({"cluster_id": "No_Cluster"}, "cluster_id"),
        ({"token": "x" * 31}, "token"),
        ({"token": "x" * 129}, "token"),
        ({"token": "x" * 32 + "\n"}, "token"),
        ({"token": "ü" * 32}, "token"),
        ({"ttl_s": -1.0}, "ttl_s"),
        ({"ttl_s": float("nan")}, "ttl_s"),
        ({"ttl_s": float("inf")}, "ttl_s"),
    ],
    ids=["no cluster", "bad cluster", "short", "long", "newline", "umlauts", "negative", "nan", "endless"],
)
async def test_what_cannot_be_a_token_is_refused(admin: Admin, fields: dict[str, Any], field: str) -> None:
    """With the field that is wrong."""
    refusal = await reason_of(admin.create(**({"cluster_id": "prod"} | fields)))
    assert refusal.reason is Reason.INVALID_COMMAND
    assert [violation.field for violation in refusal.error.violations] == [field]


# List


async def test_all_that_are_good_are_listed(admin: Admin) -> None:
    """Those that were given at start as well, each with an id; nothing of the tokens themselves."""
    made = (await admin.create("prod", ttl_s=3600)).executor_token
    listed = (await admin.listed()).executor_tokens
    assert [token.cluster_id for token in listed] == ["prod", "prod", "prod", "staging"]
    assert len({token.token_id for token in listed}) == 4
    assert made in listed
    assert made.expires_at.ToSeconds() - made.created_at.ToSeconds() == 3600
    assert [token.cluster_id for token in (await admin.listed("staging")).executor_tokens] == ["staging"]
    assert (await reason_of(admin.listed("nowhere"))).reason is Reason.CLUSTER_UNKNOWN


async def test_they_are_listed_a_page_at_a_time(admin: Admin) -> None:
    whole = list((await admin.listed()).executor_tokens)
    pages: list[Any] = []
    token = ""
    while not pages or token:
        page = await admin.listed(page_size=2, page_token=token)
        assert len(page.executor_tokens) <= 2
        pages += page.executor_tokens
        token = page.next_page_token
    assert pages == whole


async def test_an_id_is_the_same_on_every_replica(replicas: tuple[Any, Any]) -> None:
    """Also of what was given at start, which is in no store: whoever lists on one may revoke on another."""
    one, other = replicas
    [of_staging] = (await Admin(one).listed("staging")).executor_tokens
    assert list((await Admin(other).listed("staging")).executor_tokens) == [of_staging]
    assert await Admin(other).revoke("staging", of_staging.token_id) == 1


# Revoke


async def test_a_revoked_token_closes_its_streams(broker: Any, admin: Admin) -> None:
    """UNAUTHENTICATED, as a rich status; the stream of the cluster's other token stays, and so does the cluster."""
    made = await admin.create()
    gone, stays = broker.dial(token=made.token), broker.dial()
    await gone.hello(executor_id="gone")
    await stays.hello(executor_id="stays")
    assert await admin.revoke(token_id=made.executor_token.token_id) == 1
    ended = await gone.status()
    assert ended.reason is Reason.UNAUTHENTICATED
    assert await gone.call.code() is grpc.StatusCode.UNAUTHENTICATED
    await stays.sync()
    assert [one.executor_id for one in broker.inside.ledger.connections] == ["stays"]
    assert (await reason_of(broker.dial(token=made.token).hello())).reason is Reason.UNAUTHENTICATED


async def test_all_of_a_cluster_are_revoked(broker: Any, admin: Admin) -> None:
    """Then it is unknown to everybody, but commands that ran there are still found."""
    executor = await broker.executor()
    asked = broker.execute()
    command_id = (await executor.run_one(b"x")).command_id
    await asked
    await admin.create()
    assert await admin.revoke() == 3
    assert (await executor.status()).reason is Reason.UNAUTHENTICATED
    assert (await broker.refused()).reason is Reason.CLUSTER_UNKNOWN
    assert (await reason_of(admin.revoke())).reason is Reason.CLUSTER_UNKNOWN
    assert await cluster_ids(broker) == ["staging"]
    assert (await broker.get(command_id)).result.stdout == b"x"


async def test_a_token_id_that_there_is_not(admin: Admin) -> None:
    """Of a cluster that there is, and of one that there is not."""
    assert (await reason_of(admin.revoke(token_id="no-such-id"))).reason is Reason.TOKEN_UNKNOWN
    assert (await reason_of(admin.revoke("nowhere"))).reason is Reason.CLUSTER_UNKNOWN
    assert (await reason_of(admin.revoke(""))).reason is Reason.CLUSTER_UNKNOWN
    assert len((await admin.listed("prod")).executor_tokens) == 2


async def test_a_token_shown_in_band_counts_from_then_on(broker: Any, admin: Admin) -> None:
    """The stream was opened with one, goes on under another, and ends with that."""
    made = await admin.create()
    executor = broker.dial(token=made.token)
    await executor.hello()
    await executor.send(wire.ExecutorFrame(credential=wire.Credential(token=OF_PROD)))
    await executor.sync()
    await admin.revoke(token_id=made.executor_token.token_id)
    await executor.sync()
    await admin.revoke()
    assert (await executor.status()).reason is Reason.UNAUTHENTICATED


async def test_a_token_that_is_revoked_while_its_executor_says_hello(
    broker: Any, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is not among those that are closed yet: it must not come in after that."""
    checked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(context: Any) -> None:
        checked.set()
        await go_on.wait()
        await handshake.accept(context)

    monkeypatch.setattr(executors, "accept", slowly)
    executor = broker.dial()
    hello = asyncio.create_task(reason_of(executor.hello()))
    async with asyncio.timeout(PATIENCE_S):
        await checked.wait()
        await admin.revoke()
        go_on.set()
        assert (await hello).reason is Reason.UNAUTHENTICATED
    assert len(broker.inside.ledger.connections) == 0


async def test_an_expired_token_closes_its_streams(
    broker: Any, admin: Admin, expire: Any, within_a_second: Any
) -> None:
    ages_s = itertools.count(60, 60)

    async def expired() -> float:
        made = await admin.create("fresh", ttl_s=(age_s := next(ages_s)))
        executor = broker.dial(token=made.token)
        await executor.hello(cluster_id="fresh")
        expire(age_s)
        began = time.monotonic()
        assert (await executor.status()).reason is Reason.UNAUTHENTICATED
        took_s = time.monotonic() - began
        assert (await reason_of(admin.listed("fresh"))).reason is Reason.CLUSTER_UNKNOWN
        return took_s

    await within_a_second(expired)


# Many replicas, and Redis


@pytest.mark.usefixtures("by_news_alone")
async def test_another_replica_closes_them_as_well(replicas: tuple[Any, Any]) -> None:
    """A token that was created on one is good on the other, until it is revoked on any."""
    one, other = replicas
    made = await Admin(one).create("fresh")
    executor = await connected(other, made.token, "fresh")
    assert await Admin(one).revoke("fresh") == 1
    assert (await executor.status()).reason is Reason.UNAUTHENTICATED


async def connected(broker: Any, token: str, cluster_id: str) -> Any:
    """An executor of the cluster, as soon as its token is known there."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            executor = broker.dial(token=token)
            try:
                await executor.hello(cluster_id=cluster_id)
            except OpenlineError as refusal:
                assert refusal.reason is Reason.UNAUTHENTICATED  # noqa: PT017
                await asyncio.sleep(0.02)
            else:
                return executor


async def test_news_that_are_missed_cost_half_a_second(
    replicas: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, within_a_second: Any
) -> None:
    """Nobody is told: what has changed is found by looking."""
    one, other = replicas
    monkeypatch.setattr(keys, "TOKEN_NEWS", "where-nobody-listens")

    async def revoked() -> float:
        executor = await connected(other, (await Admin(one).create("fresh")).token, "fresh")
        began = time.monotonic()
        await Admin(one).revoke("fresh")
        assert (await executor.status()).reason is Reason.UNAUTHENTICATED
        return time.monotonic() - began

    await within_a_second(revoked)


async def test_a_given_token_stays_revoked(start_broker: Any) -> None:
    """After a restart with the same flags and the same Redis."""
    async with start_broker() as first:
        await Admin(first).revoke()
    async with start_broker() as second:
        assert (await reason_of(second.dial().hello())).reason is Reason.UNAUTHENTICATED
        assert await cluster_ids(second) == ["staging"]


async def test_a_redis_that_lost_everything_is_told_again(start_broker: Any, redis: Any, store: Any) -> None:
    """By a replica that remembers: what was created is still good after a restart, what was revoked is not."""
    async with start_broker() as first:
        admin = Admin(first)
        made = await admin.create("fresh")
        await admin.revoke("prod")
        await redis.flushall()
        async with asyncio.timeout(PATIENCE_S):
            while len(await store.tokens.read()) < 3:
                await asyncio.sleep(0.05)
    async with start_broker() as second:
        await second.dial(token=made.token).hello(cluster_id="fresh")
        assert (await reason_of(second.dial().hello())).reason is Reason.UNAUTHENTICATED


async def test_without_redis_nothing_is_created_or_revoked(start_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said when to ask again, and nothing is half done; who is connected stays, and may connect again."""
    monkeypatch.setattr("broker.store.store.DRAIN_S", 0.1)
    async with contextlib.AsyncExitStack() as stack:
        valkey = await stack.enter_async_context(contextlib.AsyncExitStack())
        url = await valkey.enter_async_context(embedded_valkey(None))
        store = await stack.enter_async_context(open_store(url, result_ttl_s=60))
        broker = await stack.enter_async_context(start_broker(store=store))
        admin = Admin(broker)
        made = await admin.create("fresh")
        executor = await broker.executor()
        await valkey.aclose()
        for asked in (admin.create(), admin.create(token=MINE), admin.revoke()):
            refusal = await reason_of(asked)
            assert (refusal.reason, refusal.error.executed) == (Reason.STORE_UNAVAILABLE, NO)
            assert refusal.retry_after_s > 0
        await executor.sync()
        await broker.dial(token=made.token).hello(cluster_id="fresh")
        assert (await reason_of(broker.dial(token=MINE).hello())).reason is Reason.UNAUTHENTICATED
        assert len((await admin.listed("prod")).executor_tokens) == 2


async def test_a_replica_that_starts_without_redis(
    start_broker: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were given are good. Of others it says that it does not know yet, and it is so as soon as it does."""
    async with start_broker() as first:
        made = await Admin(first).create("fresh")
        await Admin(first).revoke("staging")
    with monkeypatch.context() as away:
        away.setattr(store.tokens, "_redis", open_redis("redis://127.0.0.1:1"))
        second = await (stack := contextlib.AsyncExitStack()).enter_async_context(start_broker())
        await second.executor()
        revoked = second.dial(token="the-token-of-staging")
        await revoked.hello(cluster_id="staging")
        refusal = await reason_of(second.dial(token=made.token).hello(cluster_id="fresh"))
        assert refusal.reason is Reason.STORE_UNAVAILABLE
        assert (await second.refused(cluster_id="fresh")).reason is Reason.STORE_UNAVAILABLE
    async with stack:
        assert (await revoked.status()).reason is Reason.UNAUTHENTICATED
        await second.dial(token=made.token).hello(cluster_id="fresh")


# Drain


async def drain(broker: Any, **fields: Any) -> int:
    return int((await Admin(broker).ask("Drain", pb.DrainRequest(**fields))).executors)


def freeze(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call to it is answered from now on."""
    [opening] = broker.inside.parts["Opening"]

    async def first(reading: Any, **_: Any) -> None:
        await reading
        await asyncio.sleep(PATIENCE_S)

    monkeypatch.setattr(opening, "first", first)


async def test_a_drained_replica_sends_its_executors_away(replicas: tuple[Any, Any]) -> None:
    """And takes none, but goes on to serve callers; a stop after that is as any other."""
    one, other = replicas
    executors = [await one.executor(executor_id=f"e-{number}") for number in range(3)]
    assert await drain(one, spread_s=0.3, reason="an upgrade") == 3
    for executor in executors:
        away = await executor.expect("go_away")
        assert (away.reason, away.drain_deadline_s) == ("an upgrade", 0)
        await executor.call.done_writing()
    assert (await reason_of(one.dial().hello())).reason is Reason.BROKER_UNAVAILABLE
    await until(lambda: len(one.inside.ledger.connections) == 0)
    assert await drain(one) == 0
    moved = await other.executor(executor_id="e-0")
    asked = one.execute()
    await moved.run_one(b"x")
    assert (await asked).result.stdout == b"x"


async def test_any_replica_is_drained_by_whichever_is_asked(replicas: tuple[Any, Any]) -> None:
    """One hop; it is the one that was meant that takes no more executors, and one entry in the audit trail."""
    one, other = replicas
    executor = await other.executor()
    assert await drain(one, replica_id="r2", reason="an upgrade") == 1
    away = await executor.expect("go_away")
    assert (away.reason, away.drain_deadline_s) == ("an upgrade", 0)
    assert (await reason_of(other.dial().hello())).reason is Reason.BROKER_UNAVAILABLE
    await one.executor(executor_id="another")
    assert await drain(one, replica_id="r2") == 0
    auditor = Admin(one, "the-key-of-the-auditor")
    async with asyncio.timeout(PATIENCE_S):
        while len(entries := (await auditor.ask("ListAuditEntries", pb.ListAuditEntriesRequest())).entries) < 2:
            await asyncio.sleep(0.02)
    assert [(entry.action, entry.detail, entry.replica_id) for entry in entries] == [
        ("drain", "r2: the replica is drained", "r1"),
        ("drain", "r2: an upgrade", "r1"),
    ]


async def test_a_replica_that_there_is_not_is_not_drained(replicas: tuple[Any, Any]) -> None:
    one, _ = replicas
    refusal = await reason_of(drain(one, replica_id="r3"))
    assert refusal.reason is Reason.INVALID_COMMAND
    assert [violation.field for violation in refusal.error.violations] == ["replica_id"]


async def test_a_replica_that_cannot_be_reached_is_not_drained(replicas: tuple[Any, Any]) -> None:
    """And is not said to be."""
    one, other = replicas
    [peer] = other.inside.dispatcher._forwarding._peers._peers.values()
    await peer.way.close()
    assert (await reason_of(drain(other, replica_id="r1"))).reason is Reason.BROKER_UNAVAILABLE
    await one.executor()


async def test_a_frozen_replica_is_named_when_it_is_to_be_drained(
    replicas: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may do it when it goes on."""
    one, other = replicas
    monkeypatch.setattr(everywhere, "TIMEOUT_S", 0.2)
    freeze(other, monkeypatch)
    refusal = await reason_of(drain(one, replica_id="r2"))
    assert (refusal.reason, refusal.error.executed) == (Reason.BROKER_UNAVAILABLE, UNKNOWN)
    assert refusal.error.message == "replica r2 does not answer"


async def test_a_replica_of_an_older_version_is_not_drained_from_afar(
    replicas: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes keys alone; that is no fault of the caller's key."""
    one, _ = replicas
    monkeypatch.setattr(drain_method, "is_replica", lambda *_: False)
    refusal = await reason_of(drain(one, replica_id="r2"))
    assert (refusal.reason, refusal.error.executed) == (Reason.BROKER_UNAVAILABLE, NO)
    assert "r2" in refusal.error.message


async def test_the_last_replica_is_not_drained(broker: Any) -> None:
    """Its executors would have nowhere to go."""
    executor = await broker.executor()
    refusal = await reason_of(drain(broker))
    assert (refusal.reason, refusal.error.executed) == (Reason.BROKER_UNAVAILABLE, NO)
    await executor.sync()
    await broker.executor(executor_id="another")


async def test_the_last_replica_that_takes_executors_is_not_drained(replicas: tuple[Any, Any]) -> None:
    """Whichever of them is asked: others that are there and are drained take none. It goes on to take them."""
    one, other = replicas
    assert await drain(one) == 0
    executor = await other.executor()
    for asked in (one, other):
        refusal = await reason_of(drain(asked, replica_id="r2"))
        assert (refusal.reason, refusal.error.executed) == (Reason.BROKER_UNAVAILABLE, NO)
        assert "no other replica" in refusal.error.message
    await executor.sync()
    await other.executor(executor_id="another")
    assert not other.inside.dispatcher._presence.is_draining
    # What has begun is not undone by a refusal of more.
    assert (await reason_of(one.dial().hello())).reason is Reason.BROKER_UNAVAILABLE


@pytest.mark.parametrize("is_drained", [False, True], ids=["takes executors", "is drained"])
async def test_a_stop_lets_what_runs_finish_where_no_other_replica_takes_executors(
    start_broker: Any, frames: Any, is_drained: bool
) -> None:
    """A replica that is drained is there, and nowhere to go."""

    async def told(executor: Any, command_id: str) -> float:
        away = await executor.expect("go_away")
        await executor.send(frames.finished(command_id))
        return float(away.drain_deadline_s)

    async with start_broker(replica_id="r1") as one:
        async with start_broker(replica_id="r2") as other:
            for each in (one, other):
                await until(lambda each=each: bool(each.inside.dispatcher._forwarding._peers.reachable))
            if is_drained:
                assert await drain(one) == 0
            executor = await other.executor()
            running = other.execute()
            telling = asyncio.create_task(told(executor, await executor.begin_one()))
            # They stay open while the broker stops.
            channels, other._channels = other._channels, []
        try:
            assert (await telling > 0) is is_drained
        finally:
            for channel in channels:
                await channel.close()
            await asyncio.gather(running, return_exceptions=True)


async def test_of_two_replicas_that_are_drained_at_one_time_one_remains(replicas: tuple[Any, Any]) -> None:
    """At the least."""
    await asyncio.gather(*(drain(each) for each in replicas), return_exceptions=True)
    assert not all(each.inside.dispatcher._presence.is_draining for each in replicas)


async def test_a_frozen_replica_is_none_that_takes_executors(
    replicas: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before its pipe has been quiet for long enough to be noticed."""
    one, other = replicas
    monkeypatch.setattr(draining, "ANSWER_S", 0.2)
    freeze(other, monkeypatch)
    assert (await reason_of(drain(one))).reason is Reason.BROKER_UNAVAILABLE
    await one.executor()


async def test_a_replica_that_knows_of_no_overviews_takes_executors(
    replicas: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Redis has it: one version takes the place of another."""
    one, other = replicas
    [survey] = other.inside.parts["Survey"]

    def is_older(_within: Any) -> Any:
        raise OpenlineError(error(Reason.NOT_BUILT, "no such method"))

    monkeypatch.setattr(survey, "own", is_older)
    await until(lambda: bool(one.inside.parts["Hearing"][0].replicas))
    assert await drain(one) == 0


@pytest.mark.parametrize(
    "fields",
    [{"spread_s": -1.0}, {"spread_s": float("nan")}, {"spread_s": 1e9}, {"reason": "x" * 201}, {"reason": "a\nb"}],
    ids=["negative", "nan", "endless", "long reason", "reason of two lines"],
)
async def test_a_drain_that_cannot_be(broker: Any, fields: dict[str, Any]) -> None:
    assert (await reason_of(drain(broker, **fields))).reason is Reason.INVALID_COMMAND
