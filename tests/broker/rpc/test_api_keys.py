"""API keys as admins make, list and revoke them, and what that means on every replica."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from broker.core import suspicion
from broker.core.credentials import digest
from broker.store import keys
from broker.store.client import open_redis
from broker.store.embedded import embedded_valkey
from broker.store.store import open_store
from openline.errors import OpenlineError, from_rpc_error
from openline.reasons import NO, Reason
from openline.v1 import admin_service_pb2 as pb
from openline.v1 import cluster_service_pb2, command_pb2, command_service_pb2
from openline.v1.admin_service_pb2_grpc import AdminServiceStub
from openline.v1.cluster_service_pb2_grpc import ClusterServiceStub

PATIENCE_S = 20.0
CHIEF = "the-key-of-the-chief"
ROOT = "the-key-of-root"
MINE = "a-key_of-my-own-choice-0123456789abc"


class Admin:
    """Asks one replica with one key. Everything raises OpenlineError for a status."""

    def __init__(self, broker: Any, key: str | None = CHIEF) -> None:
        self._stub = AdminServiceStub(broker.channel())
        self._metadata = () if key is None else (("x-api-key", key),)

    async def ask(self, method: str, request: Any) -> Any:
        try:
            return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from failure

    async def create(self, owner: str = "dave", **fields: Any) -> Any:
        request = pb.CreateApiKeyRequest(**({"owner": owner, "scopes": ["execute", "read"]} | fields))
        return await self.ask("CreateApiKey", request)

    async def listed(self, **fields: Any) -> Any:
        return await self.ask("ListApiKeys", pb.ListApiKeysRequest(**fields))

    async def revoke(self, key_id: str) -> None:
        await self.ask("RevokeApiKey", pb.RevokeApiKeyRequest(key_id=key_id))

    async def id_of(self, owner: str) -> str:
        [key] = (await self.listed(owner=owner)).api_keys
        return str(key.key_id)


@pytest.fixture
def admin(broker: Any) -> Admin:
    return Admin(broker)


async def refusal(asked: Awaitable[Any]) -> OpenlineError:
    with pytest.raises(OpenlineError) as refused:
        await asked
    return refused.value


async def cluster_ids(broker: Any, key: str) -> list[str]:
    """What a key sees. Raises OpenlineError."""
    request = cluster_service_pb2.ListClustersRequest()
    try:
        stub = ClusterServiceStub(broker.channel())
        listed = await stub.ListClusters(request, metadata=(("x-api-key", key),), timeout=PATIENCE_S)
    except grpc.aio.AioRpcError as failure:
        raise from_rpc_error(failure) from failure
    return [cluster.cluster_id for cluster in listed.clusters]


async def once(good: Callable[[], Awaitable[Any]]) -> Any:
    """The answer, as soon as it is one."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await good()
            except OpenlineError:
                await asyncio.sleep(0.02)


async def once_refused(broker: Any, key: str) -> OpenlineError:
    """What the key is told, as soon as it is refused."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await cluster_ids(broker, key)
            except OpenlineError as failure:
                return failure
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def serving(executor: Any) -> AsyncIterator[None]:
    """The executor runs whatever comes."""

    async def serve() -> None:
        while True:
            frame = await executor.next()
            if frame.HasField("execute"):
                await executor.send(*executor._say.ran(frame.execute.command_id, b"x"))

    task = asyncio.create_task(serve())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# Who may


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, Reason.UNAUTHENTICATED),
        ("the-token-of-prod", Reason.UNAUTHENTICATED),
        ("the-key-of-alice", Reason.SCOPE_MISSING),
        ("the-key-of-the-auditor", Reason.SCOPE_MISSING),
    ],
    ids=["no key", "an executor's", "all but admin", "audit"],
)
async def test_only_admins_may(broker: Any, key: str | None, reason: Reason) -> None:
    """The scope is looked at before anything else: whoever lacks it does not learn which fields are wrong."""
    some = Admin(broker, key)
    for asked in (some.create(""), some.listed(), some.revoke("no-such-id")):
        assert (await refusal(asked)).reason is reason


# Create


async def test_a_key_that_was_made_opens_what_it_is_for(
    broker: Any, admin: Admin, redis: Redis, log_lines: list[dict[str, Any]]
) -> None:
    """It is answered this once; Redis has its SHA-256, and no log has anything of it."""
    made = await admin.create(scopes=["read", "execute", "read"], clusters=["staging", "prod-*"])
    assert len(made.key) >= 43
    shown = made.api_key
    assert (shown.owner, list(shown.scopes), list(shown.clusters)) == (
        "dave",
        ["execute", "read"],
        ["prod-*", "staging"],
    )
    assert len(shown.key_id) == 16
    assert abs(shown.created_at.ToSeconds() - time.time()) < 60
    assert not shown.HasField("expires_at")
    assert not shown.HasField("quota")
    assert await cluster_ids(broker, made.key) == ["staging"]
    assert (await broker.refused(key=made.key, cluster_id="staging")).reason is Reason.CLUSTER_OFFLINE
    assert (await broker.refused(key=made.key)).reason is Reason.CLUSTER_UNKNOWN
    stored = await redis.hgetall(keys.API_KEYS)
    assert digest(made.key).hex().encode() in stored
    assert made.key.encode() not in repr(stored).encode()
    assert made.key not in str(log_lines)


async def test_a_key_of_ones_own_choice(broker: Any, admin: Admin) -> None:
    """It is taken once, for whomever; also when it was revoked since, and when it is one of the flags'."""
    made = await admin.create(key=MINE)
    assert made.key == MINE
    assert await cluster_ids(broker, MINE) == ["prod", "staging"]
    assert (await refusal(admin.create("erin", key=MINE))).reason is Reason.KEY_EXISTS
    await admin.revoke(made.api_key.key_id)
    again = await refusal(admin.create(key=MINE))
    assert (again.reason, again.error.executed) == (Reason.KEY_EXISTS, NO)


async def test_a_key_of_the_flags_cannot_be_made_again(start_broker: Any) -> None:
    """It is there, whoever has it."""
    given = "the-key-of-alice".ljust(32, "x")
    async with start_broker(extra_keys=[f"alice:{given}:read"]) as broker:
        assert (await refusal(Admin(broker).create(key=given))).reason is Reason.KEY_EXISTS


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"owner": ""}, "owner"),
        ({"owner": "a:b"}, "owner"),
        ({"owner": "{a}"}, "owner"),
        ({"owner": "x" * 101}, "owner"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["read", "root"]}, "scopes"),
        ({"clusters": ["Prod"]}, "clusters"),
        ({"clusters": [""]}, "clusters"),
        ({"clusters": [f"c-{n}" for n in range(101)]}, "clusters"),
        ({"key": "x" * 31}, "key"),
        ({"key": "x" * 32 + "\n"}, "key"),
        ({"ttl_s": -1.0}, "ttl_s"),
        ({"ttl_s": float("nan")}, "ttl_s"),
        ({"quota": pb.KeyQuota(commands_per_minute=10_000_001)}, "quota.commands_per_minute"),
        ({"quota": pb.KeyQuota(in_flight=1_000_001)}, "quota.in_flight"),
    ],
)
async def test_what_cannot_be_a_key_is_refused(admin: Admin, fields: dict[str, Any], field: str) -> None:
    """With the field that is wrong."""
    refused = await refusal(admin.create(**({"owner": "dave"} | fields)))
    assert refused.reason is Reason.INVALID_COMMAND
    assert [violation.field for violation in refused.error.violations] == [field]


@pytest.mark.parametrize(
    ("mine", "asked", "lacking"),
    [
        ({}, {"scopes": ["admin", "read", "audit"]}, {"scope": "audit"}),
        ({}, {"scopes": ["session"]}, {"scope": "session"}),
        ({"clusters": ["prod-*"]}, {"clusters": ["prod-*", "staging"]}, {"clusters": "prod-*"}),
        ({"clusters": ["prod-*"]}, {"clusters": ["prod*"]}, {"clusters": "prod-*"}),
        ({"clusters": ["prod-*"]}, {}, {"clusters": "prod-*"}),
    ],
    ids=["scope", "another scope", "cluster", "wider", "every cluster"],
)
async def test_nobody_makes_a_key_beyond_its_own(
    broker: Any, admin: Admin, mine: dict[str, Any], asked: dict[str, Any], lacking: dict[str, str]
) -> None:
    """Neither in what it may do nor in what it sees."""
    own = await admin.create("root", scopes=["admin", "read"], **mine)
    refused = await refusal(Admin(broker, own.key).create(**({"scopes": ["read"]} | asked)))
    assert refused.reason is Reason.SCOPE_MISSING
    assert dict(refused.metadata).items() >= lacking.items()


async def test_an_admin_of_some_clusters_makes_keys_for_those(broker: Any, admin: Admin) -> None:
    own = await admin.create("root", scopes=["admin", "read"], clusters=["prod*"])
    made = await Admin(broker, own.key).create(scopes=["read"], clusters=["prod"])
    assert await cluster_ids(broker, made.key) == ["prod"]


async def test_there_are_bounds(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """On those of one owner, and on all."""
    monkeypatch.setattr("broker.api_keys.MAX_OF_OWNER", 1)
    await admin.create()
    assert (await refusal(admin.create())).reason is Reason.QUOTA_EXCEEDED
    await admin.create("erin")
    monkeypatch.setattr(keys, "MAX_API_KEYS", 2)
    assert (await refusal(admin.create("frank"))).reason is Reason.QUOTA_EXCEEDED


# List


async def test_all_that_are_good_are_listed(admin: Admin) -> None:
    """Those of the flags as well, each with an id; sorted, a page at a time, of one owner or of all."""
    quota = pb.KeyQuota(commands_per_minute=5)
    made = (await admin.create("alice", ttl_s=3600, quota=quota)).api_key
    assert made.expires_at.ToSeconds() - made.created_at.ToSeconds() == 3600
    assert made.quota == quota
    whole = list((await admin.listed()).api_keys)
    assert [key.owner for key in whole] == ["alice", "alice", "auditor", "bob", "carol", "chief", "root"]
    assert len({key.key_id for key in whole}) == len(whole)
    assert made in whole
    assert [list(key.scopes) for key in whole if key.owner == "carol"] == [["read"]]
    assert made in (await admin.listed(owner="alice")).api_keys
    pages: list[Any] = []
    token = ""
    while not pages or token:
        page = await admin.listed(page_size=2, page_token=token)
        assert len(page.api_keys) <= 2
        pages += page.api_keys
        token = page.next_page_token
    assert pages == whole


async def test_a_quota_that_is_none_is_not_the_same_as_no_quota(admin: Admin) -> None:
    """Zero is no limit, whatever the replica has for everybody."""
    made = (await admin.create(quota=pb.KeyQuota())).api_key
    assert made.HasField("quota")
    assert next(key for key in (await admin.listed(owner="dave")).api_keys).HasField("quota")


async def test_an_admin_of_some_clusters_knows_keys_of_those_only(broker: Any, admin: Admin) -> None:
    """The patterns of others name clusters that it does not see; to it they are not there, and cannot be revoked."""
    own = await admin.create("root", scopes=["admin"], clusters=["prod*"])
    narrow = await admin.create("dave", clusters=["prod-eu-*"])
    wide = await admin.create("erin", clusters=["prod", "staging"])
    some = Admin(broker, own.key)
    assert [key.key_id for key in (await some.listed()).api_keys] == [narrow.api_key.key_id, own.api_key.key_id]
    hidden = await refusal(some.revoke(wide.api_key.key_id))
    unknown = await refusal(some.revoke("no-such-id"))
    assert hidden.error == unknown.error
    assert hidden.reason is Reason.KEY_UNKNOWN
    assert await cluster_ids(broker, wide.key) == ["prod", "staging"]
    await some.revoke(narrow.api_key.key_id)


# Revoke


async def test_a_revoked_key_is_refused_at_once(broker: Any, admin: Admin) -> None:
    """And only that one; to revoke it again finds nothing."""
    gone, stays = await admin.create(), await admin.create()
    await admin.revoke(gone.api_key.key_id)
    assert (await refusal(cluster_ids(broker, gone.key))).reason is Reason.UNAUTHENTICATED
    assert (await broker.refused(key=gone.key)).reason is Reason.UNAUTHENTICATED
    assert await cluster_ids(broker, stays.key) == ["prod", "staging"]
    assert (await refusal(admin.revoke(gone.api_key.key_id))).reason is Reason.KEY_UNKNOWN
    assert [key.key_id for key in (await admin.listed(owner="dave")).api_keys] == [stays.api_key.key_id]


async def test_a_given_key_stays_revoked(start_broker: Any) -> None:
    """After a restart with the same flags and the same Redis."""
    async with start_broker() as first:
        admin = Admin(first)
        await admin.revoke(await admin.id_of("bob"))
        assert (await refusal(cluster_ids(first, "the-key-of-bob"))).reason is Reason.UNAUTHENTICATED
    async with start_broker() as second:
        assert (await refusal(cluster_ids(second, "the-key-of-bob"))).reason is Reason.UNAUTHENTICATED
        assert await cluster_ids(second, "the-key-of-alice") == ["prod", "staging"]


async def test_a_key_expires(broker: Any, admin: Admin, expire: Any) -> None:
    """It is refused from that instant on."""
    made = await admin.create(ttl_s=60)
    assert await cluster_ids(broker, made.key) == ["prod", "staging"]
    assert [key.key_id for key in (await admin.listed(owner="dave")).api_keys] == [made.api_key.key_id]
    expire(60)
    assert (await refusal(cluster_ids(broker, made.key))).reason is Reason.UNAUTHENTICATED
    async with asyncio.timeout(PATIENCE_S):
        while (await admin.listed(owner="dave")).api_keys:
            await asyncio.sleep(0.02)


# Many replicas, and Redis


@pytest.fixture
async def replicas(start_broker: Any, valkey: str) -> AsyncIterator[tuple[Any, Any]]:
    """Two with nothing in common but their Redis."""
    async with (
        open_store(valkey, result_ttl_s=60) as stored,
        start_broker(replica_id="r1") as one,
        start_broker(store=stored, replica_id="r2") as other,
    ):
        yield one, other


@pytest.mark.usefixtures("by_news_alone")
async def test_another_replica_that_hears_of_it_refuses_it(replicas: tuple[Any, Any]) -> None:
    """Also on a pipe that was opened before."""
    await revoked(*replicas)


async def test_another_replica_that_has_missed_the_news_refuses_it(
    replicas: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, within_a_second: Any
) -> None:
    """It looks, twice a second."""
    monkeypatch.setattr(keys, "API_KEY_NEWS", "where-nobody-listens")
    # A refusal comes late, which is not what is measured.
    monkeypatch.setattr(suspicion, "HOLD_S", 0.0)
    await within_a_second(lambda: revoked(*replicas))


async def revoked(one: Any, other: Any) -> float:
    """How long a key that is revoked on one replica was taken by the other."""
    made = await Admin(one).create()
    await once(lambda: cluster_ids(other, made.key))
    pipe = await other.pipe(key=made.key)
    began = time.monotonic()
    await Admin(one).revoke(made.api_key.key_id)
    assert (await once_refused(other, made.key)).reason is Reason.UNAUTHENTICATED
    request = command_service_pb2.ExecuteRequest(cluster_id="prod", argv=["get"])
    await pipe.send(command_service_pb2.CallerFrame(call_id=1, execute=request))
    assert (await pipe.next()).error.reason == Reason.UNAUTHENTICATED
    return time.monotonic() - began


async def test_an_id_is_the_same_on_every_replica(replicas: tuple[Any, Any]) -> None:
    """Also of what was given at start, which is in no store: whoever lists on one may revoke on another."""
    one, other = replicas
    key_id = await Admin(one).id_of("bob")

    async def same() -> None:
        if await Admin(other).id_of("bob") != key_id:
            raise OpenlineError(command_pb2.Error())

    await once(same)  # the replicas agree on a secret first
    await Admin(other).revoke(key_id)
    assert (await once_refused(one, "the-key-of-bob")).reason is Reason.UNAUTHENTICATED


async def test_a_redis_that_lost_everything_is_told_again(start_broker: Any, redis: Redis, store: Any) -> None:
    """By a replica that remembers: what was created is still good after a restart, what was revoked is not."""
    async with start_broker() as first:
        admin = Admin(first)
        made = await admin.create(clusters=["prod"])
        await admin.revoke(await admin.id_of("bob"))
        await redis.flushall()
        async with asyncio.timeout(PATIENCE_S):
            while len(await store.api_keys.read()) < 2:
                await asyncio.sleep(0.05)
    async with start_broker() as second:
        assert await cluster_ids(second, made.key) == ["prod"]
        assert (await refusal(cluster_ids(second, "the-key-of-bob"))).reason is Reason.UNAUTHENTICATED


async def test_keys_are_checked_without_redis(start_broker: Any, monkeypatch: pytest.MonkeyPatch, expire: Any) -> None:
    """Good ones are good and others wrong, as before. Nothing is created or revoked, and it is said when to ask."""
    monkeypatch.setattr("broker.store.store.DRAIN_S", 0.1)
    async with contextlib.AsyncExitStack() as stack:
        valkey = await stack.enter_async_context(contextlib.AsyncExitStack())
        url = await valkey.enter_async_context(embedded_valkey(None))
        store = await stack.enter_async_context(open_store(url, result_ttl_s=60))
        broker = await stack.enter_async_context(start_broker(store=store))
        admin = Admin(broker)
        made, short = await admin.create(), await admin.create("erin", ttl_s=60)
        executor = await broker.executor()
        await valkey.aclose()
        async with serving(executor):
            assert (await broker.execute(key=made.key)).result.stdout == b"x"
            assert (await broker.refused(key=MINE)).reason is Reason.UNAUTHENTICATED
            for asked in (admin.create(), admin.create(key=MINE), admin.revoke(made.api_key.key_id)):
                refused = await refusal(asked)
                assert (refused.reason, refused.error.executed) == (Reason.STORE_UNAVAILABLE, NO)
                assert refused.retry_after_s > 0
            assert (await broker.execute(key=made.key)).result.stdout == b"x"
            assert (await broker.refused(key=MINE)).reason is Reason.UNAUTHENTICATED
            # A Redis that does not answer must not prolong a life.
            assert [key.owner for key in (await admin.listed(owner="erin")).api_keys] == ["erin"]
            expire(60)
            async with asyncio.timeout(PATIENCE_S):
                while (await admin.listed(owner="erin")).api_keys:
                    await asyncio.sleep(0.05)
            assert (await broker.refused(key=short.key)).reason is Reason.UNAUTHENTICATED


async def test_a_replica_that_starts_without_redis(
    start_broker: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of the flags are good. Of others it says that it does not know yet, and it is so as soon as it does."""
    async with start_broker() as first:
        made = await Admin(first).create(scopes=["read"])
        await Admin(first).revoke(await Admin(first).id_of("bob"))
    with monkeypatch.context() as away:
        away.setattr(store.api_keys, "_redis", open_redis("redis://127.0.0.1:1"))
        second = await (stack := contextlib.AsyncExitStack()).enter_async_context(start_broker())
        assert await cluster_ids(second, "the-key-of-bob") == ["prod", "staging"]
        refused = await refusal(cluster_ids(second, made.key))
        assert (refused.reason, refused.retry_after_s > 0) == (Reason.STORE_UNAVAILABLE, True)
        assert (await second.refused(key=made.key)).reason is Reason.STORE_UNAVAILABLE
    async with stack:
        assert await once(lambda: cluster_ids(second, made.key)) == ["prod", "staging"]
        assert (await refusal(cluster_ids(second, "the-key-of-bob"))).reason is Reason.UNAUTHENTICATED


# Quotas


@pytest.mark.usefixtures("one_window")
async def test_a_key_has_a_rate_of_its_own(broker: Any, admin: Admin) -> None:
    """Counted for the key alone: its owner's other keys go on, without a limit here."""
    limited = await admin.create("alice", quota=pb.KeyQuota(commands_per_minute=2))
    async with serving(await broker.executor()):
        for left in (1, 0):
            [state] = (await broker.execute(key=limited.key)).quotas
            assert (state.name, state.limit, state.remaining) == ("commands", 2, left)
        refused = await broker.refused(key=limited.key)
        assert (refused.reason, refused.metadata["quota"]) == (Reason.QUOTA_EXCEEDED, "commands")
        assert list((await broker.execute()).quotas) == []


async def test_a_key_has_so_many_commands_at_one_time(broker: Any, admin: Admin) -> None:
    """Until one of them ends; of two keys with numbers of their own, each has its own."""
    quota = pb.KeyQuota(in_flight=1)
    one, other = (await admin.create("alice", quota=quota)).key, (await admin.create("alice", quota=quota)).key
    executor = await broker.executor()
    first = broker.execute(key=one)
    command_id = await executor.begin_one()
    refused = await broker.refused(key=one)
    assert (refused.reason, refused.metadata["quota"]) == (Reason.QUOTA_EXCEEDED, "in-flight")
    second = broker.execute(key=other)
    other_id = await executor.begin_one()
    for each in (command_id, other_id):
        await executor.send(broker._frames.finished(each))
    await asyncio.gather(first, second)
    async with serving(executor):
        await broker.execute(key=one)


@pytest.mark.usefixtures("one_window")
async def test_a_key_may_be_freed_of_what_everybody_has(start_broker: Any) -> None:
    """Its own numbers take the place of the replica's, also when they are no limit."""
    async with start_broker(quota_commands_per_minute=1) as broker, serving(await broker.executor()):
        free = (await Admin(broker).create("alice", quota=pb.KeyQuota())).key
        bound = (await Admin(broker).create("alice")).key
        for _ in range(3):
            assert list((await broker.execute(key=free)).quotas) == []
        await broker.execute(key=bound)
        # Without numbers of its own, it is its owner's.
        assert (await broker.refused()).reason is Reason.QUOTA_EXCEEDED


async def test_the_replicas_hold_a_keys_quota_together(replicas: tuple[Any, Any]) -> None:
    """What it has in flight on one counts on the other as soon as that has heard of it."""
    one, other = replicas
    key = (await Admin(one).create(quota=pb.KeyQuota(in_flight=1))).key
    await once(lambda: cluster_ids(other, key))
    executor = await one.executor()
    asked = one.execute(key=key)
    command_id = await executor.begin_one()
    refused: OpenlineError | None = None
    async with serving(await other.executor(executor_id="exec-2")), asyncio.timeout(PATIENCE_S):
        while refused is None:
            try:
                await other.execute(key=key)
            except OpenlineError as failure:
                refused = failure
    assert (refused.reason, refused.metadata["quota"]) == (Reason.QUOTA_EXCEEDED, "in-flight")
    await executor.send(one._frames.finished(command_id))
    await asked


# The audit trail


async def test_what_is_done_to_keys_is_in_the_audit_trail(broker: Any, admin: Admin) -> None:
    """Done or refused, with whose key it is and what it may; and nothing of the key."""
    made = await admin.create(scopes=["read"], clusters=["prod-*"])
    await refusal(Admin(broker, "the-key-of-alice").create())
    await refusal(Admin(broker, ROOT).create(scopes=["audit"]))
    await admin.revoke(made.api_key.key_id)
    request = pb.ListAuditEntriesRequest()
    async with asyncio.timeout(PATIENCE_S):
        while len(entries := (await admin.ask("ListAuditEntries", request)).entries) < 4:
            await asyncio.sleep(0.02)
    key_id = made.api_key.key_id
    assert [(entry.action, entry.owner, entry.reason, entry.detail) for entry in reversed(entries)] == [
        ("create_api_key", "chief", "", f"key {key_id} for dave: read on prod-*"),
        ("create_api_key", "alice", "SCOPE_MISSING", ""),
        ("create_api_key", "root", "SCOPE_MISSING", "for dave: audit on *"),
        ("revoke_api_key", "chief", "", f"key {key_id} of dave"),
    ]
    assert made.key not in str(entries)
