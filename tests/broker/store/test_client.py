"""The client against real servers: one, behind sentinels, and a Redis Cluster; killed, frozen and failing over."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from broker.store import keys
from broker.store.behind import WriteBehind
from broker.store.client import Client, ask, check_url, open_client, open_redis, send
from broker.store.news import Change, subscribe
from broker.store.presence import PresenceRecords
from broker.store.store import open_store
from openline import ids
from openline.errors import OpenlineError
from openline.v1 import command_pb2, session_service_pb2
from openline.v1.admin_service_pb2 import AuditEntry
from openline.v1.cluster_service_pb2 import ConnectedExecutor, Replica

PATIENCE_S = 30.0
# A write that is put every so often goes on through a failover, which takes some seconds.
EVERY_S = 0.05


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Client]:
    client = open_client(url)
    try:
        yield client
    finally:
        await client.aclose()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Waits until it is true; STORE_UNAVAILABLE is not yet."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(OpenlineError):
                if await true():
                    return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1"])
async def test_nobody_is_asked_for_nothing(url: str) -> None:
    async with opened(url) as client:
        assert await ask(client) == []
        with pytest.raises(OpenlineError):
            await ask(client, ("PING",))


class Writing:
    """Puts a write every 50 ms, over many keys, and says which were reported as stored."""

    def __init__(self, client: Client) -> None:
        self.behind = WriteBehind(client)
        self.stored: set[int] = set()
        self.count = 0
        self.recovered = 0
        self.behind.on_recovered = self._on_recovered

    def _on_recovered(self) -> None:
        self.recovered += 1

    def _put(self) -> None:
        n = self.count
        self.count += 1
        assert self.behind.put("SET", f"key:{n}", n, "EX", 600, done=lambda ok: self.stored.add(n) if ok else None)

    async def _put_forever(self) -> None:
        while True:
            self._put()
            await asyncio.sleep(EVERY_S)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            owned = [tasks.create_task(self.behind.run()), tasks.create_task(self._put_forever())]
            yield
            owned[1].cancel()
            assert await self.behind.drain(PATIENCE_S)
            owned[0].cancel()

    async def some(self, count: int = 5) -> None:
        """Waits until so many more are stored."""
        enough = len(self.stored) + count

        async def stored() -> bool:
            return len(self.stored) >= enough

        await until(stored)

    async def degraded(self) -> None:
        """Waits until Redis is seen to be away, which may be over again within a look."""
        recovered = self.recovered

        async def degraded() -> bool:
            return self.behind.degraded or self.recovered > recovered

        await until(degraded)


# The URL


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://u:p@h:1/3?ssl_check_hostname=no",
        "unix:///run/valkey.sock",
        "redis+sentinel://h/name",
        "redis+sentinel://u:p%2f%40@h:1,[::1]:2/name/3?sentinel_password=x",
        "rediss+sentinel://h:1,h:2/name?ssl_min_version=772",
        "redis+cluster://h",
        "redis+cluster://u:p@h:1,h:2/0",
        "rediss+cluster://h:1",
    ],
)
def test_a_url_that_can_be_used(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "redis:h",
        "",
        "redis://h:port",
        "redis://h:99999",
        "redis://:hunter2/x@h:1",
        "redis://h?no_such_option=1",
        "rediss://h?no_such_option=1",
        "rediss://h?ssl_cert_reqs=perhaps",
        "rediss://h?ssl_ca_certs=/nowhere/ca.pem",
        "redis+sentinel://h:1",
        "redis+sentinel://h:1/",
        "redis+sentinel://h:1/name/db",
        "redis+sentinel:///name",
        "redis+sentinel://h:1,,h:2/name",
        "redis+sentinel://h:hunter2/name",
        "redis+sentinel://:hunter2/@h:1/name",
        "redis+cluster://h:1/2",
        "redis+cluster://h:1/name",
        "redis+cluster://",
        "redis+cluster://h:1?no_such_option=1",
        "redis+file://h",
    ],
)
def test_a_url_that_cannot_be_used(url: str) -> None:
    """One sentence, and nothing of what may be a password."""
    with pytest.raises(ValueError, match=r".") as refusal:
        check_url(url)
    assert "hunter2" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_cluster_is_not_one_server() -> None:
    with pytest.raises(ValueError, match="more than one"):
        open_redis("redis+cluster://h:1")


async def test_a_url_is_checked_without_a_connection(server: Any) -> None:
    async with opened(server.url) as client:
        before = (await ask(client, ("INFO", "clients")))[0]
        check_url(server.url)
        assert (await ask(client, ("INFO", "clients")))[0] == before


# One server


async def test_after_a_restart_no_call_fails(server: Any) -> None:
    """Each connection in the pool was closed by the server: that is noticed before it is used."""
    async with opened(server.url) as client:
        await asyncio.gather(*(ask(client, ("SET", f"key:{n}", n)) for n in range(100)))
        await server.kill()
        await server.start()
        for _ in range(40):
            await ask(client, ("GET", "key:1"))


async def test_recovery_is_told(server: Any) -> None:
    """Once, when Redis takes writes again."""
    async with opened(server.url) as client:
        writing = Writing(client)
        async with writing.running():
            await writing.some()
            assert writing.recovered == 0
            await server.kill()
            await writing.degraded()
            await server.start()
            await writing.some()
            assert (writing.behind.degraded, writing.recovered) == (False, 1)


# All kinds


@pytest.fixture(params=["server", "watched", "sharded"])
def any_kind(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


async def test_everything_works_on_every_kind(any_kind: Any) -> None:
    """Claims, results, lists, presence, news, and what is written behind; nothing but the trail is without a TTL."""
    async with open_store(any_kind.url, result_ttl_s=600) as store:
        news = store.presence.subscribe()
        assert await anext(news) is None
        entries = [(f"cluster-{n}", ConnectedExecutor(executor_id="e", epoch=n + 1)) for n in range(50)]
        assert await store.presence.register(entries, changed=True) == [True] * 50
        changes = [await anext(news) for _ in range(50)]
        # No order between the nodes of a cluster is promised.
        assert sorted(change.cluster_id for change in changes if change) == sorted(name for name, _ in entries)
        assert await store.presence.read([name for name, _ in entries]) == [[one] for _, one in entries]
        await store.presence.unregister(entries[1:])
        assert [len(each) for each in await store.presence.read(["cluster-0", "cluster-1"])] == [1, 0]
        assert await store.presence.register_replica(Replica(replica_id="r"), 1)
        assert len(await store.presence.read_replicas()) == 1
        assert await store.presence.meet("mark", b"secret") == ("mark", b"secret")
        command_ids = [ids.new_id() for _ in range(50)]
        for name in command_ids:
            assert store.results.put(command_pb2.Command(command_id=name), lambda stored: None)
        session = session_service_pb2.Session(session_id=ids.new_id(), cluster_id="cluster-0", ttl_s=60)
        await store.sessions.create(session)
        store.clusters.mark_active("cluster-0", now=1.0)
        assert await store.behind.drain(PATIENCE_S)
        assert [await store.results.get(name) is not None for name in command_ids] == [True] * 50
        assert [found for _, found in await store.sessions.listed("", before="", count=10)] == [session]
        for name in command_ids:
            store.history.ended(command_pb2.Command(command_id=name, owner="alice", session_id="s", correlation_id="c"))
            store.audit.append(AuditEntry(entry_id=name))
        store.history.flush()
        store.audit.flush()
        assert await store.behind.drain(PATIENCE_S)
        lists = (keys.owned_commands("alice"), keys.conversation_commands("alice", "c"), keys.session_commands("s"))
        for listing in lists:
            listed = await store.history.page(listing, shown="", since="0", count=100)
            assert [name for name, _ in listed] == sorted(command_ids, reverse=True)
        trail = await store.audit.page(before="", since_ms=0, until_ms=None, count=100)
        assert [entry.entry_id for _, entry in trail if entry] == command_ids[::-1]
        [cluster] = await store.clusters.get(["cluster-0"])
        assert (cluster.connected, cluster.active, cluster.has_active_session) == (True, True, True)
        await news.aclose()
    for server in any_kind.primaries:
        names = [name async for name in server.redis.scan_iter(count=1000)]
        assert names
        assert {name for name in names if await server.redis.ttl(name) <= 0} <= {keys.AUDIT.encode()}


# Behind sentinels


async def test_a_failover_is_survived(watched: Any) -> None:
    """The primary is killed: writes wait, and go on to the replica that takes its place; the subscription as well."""
    async with opened(watched.url) as client:
        writing = Writing(client)
        news = subscribe(client, keys.NEWS, Change.decode)
        assert await anext(news) is None
        async with writing.running():
            await writing.some()
            await watched.primary.kill()
            await writing.degraded()
            before = writing.count
            await writing.some(before + 5 - len(writing.stored))
            async with asyncio.timeout(PATIENCE_S):
                assert await anext(news) is None
            await PresenceRecords(client).register([("prod", ConnectedExecutor(executor_id="e"))], changed=True)
            assert await anext(news) == Change("prod", ConnectedExecutor(executor_id="e"), True)
        assert writing.stored == set(range(writing.count))
        assert writing.recovered >= 1
        # What was put while there was no primary is on the new one, and all after it.
        for n in range(before, writing.count):
            assert await watched.replica.redis.get(f"key:{n}") == str(n).encode()
        await news.aclose()


async def test_a_frozen_primary_is_left(watched: Any) -> None:
    """Its connections say nothing: the sentinels do."""
    async with opened(watched.url) as client:
        writing = Writing(client)
        async with writing.running():
            await writing.some()
            with watched.primary.frozen():
                # Written elsewhere by then; Redis is seen to be away only where that takes longer than a batch may.
                await writing.some(40)
            # It comes back as a replica, which takes no writes: nobody is misled.
            await writing.some(40)
        assert writing.stored == set(range(writing.count))


async def test_a_frozen_sentinel_holds_up_nobody(watched: Any) -> None:
    """Whichever it is."""
    for sentinel in watched.sentinels:
        sentinel.freeze()
        try:
            async with opened(watched.url) as client, asyncio.timeout(PATIENCE_S):
                await ask(client, ("SET", "key", "value", "EX", 60))
        finally:
            sentinel.thaw()


async def test_sentinels_and_primary_have_passwords_of_their_own(start_server: Any, tmp_path: Any) -> None:
    primary = await start_server()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor the-primary 127.0.0.1 {primary.port} 1\n")
    sentinel = await start_server(str(config), "--sentinel")
    for where, password in ((primary, "of%the/primary"), (sentinel, "of-the-sentinel")):
        allowed = ("on", f">{password}", "~*", "&*", "+@all")
        await where.redis.execute_command("ACL", "SETUSER", "openline", *allowed)
        await where.redis.execute_command("ACL", "SETUSER", "default", "off")
    url = f"redis+sentinel://openline:of%25the%2fprimary@{sentinel.address}/the-primary"
    async with opened(f"{url}?sentinel_username=openline&sentinel_password=of-the-sentinel") as client:
        assert await ask(client, ("SET", "key", "value", "EX", 60), ("GET", "key")) == [True, b"value"]
    async with opened(url) as client:
        with pytest.raises(OpenlineError):
            await ask(client, ("GET", "key"))


async def test_a_name_that_sentinels_do_not_know(watched: Any) -> None:
    async with opened(watched.url.replace("the-primary", "another")) as client:
        with pytest.raises(OpenlineError) as refusal:
            await ask(client, ("GET", "x"))
        assert "another" in str(refusal.value.__cause__)


# A Redis Cluster


async def test_commands_find_their_nodes(sharded: Any) -> None:
    """In one round trip to each, with the answers in order, and an error where it belongs."""
    async with opened(sharded.url) as client:
        await ask(client, *(("SET", f"key:{n}", n) for n in range(300)))
        assert await ask(client, *(("GET", f"key:{n}") for n in range(300))) == [str(n).encode() for n in range(300)]
        assert min([await node.redis.dbsize() for node in sharded.nodes]) > 50
        answers = await send(client, [("SET", "a", 1), ("HSET", "a", "f", "v"), ("SET", "b", 2)])
        assert [isinstance(answer, Exception) for answer in answers] == [False, True, False]


async def test_one_seed_is_enough(sharded: Any) -> None:
    """The others may be gone for good, or never have been."""
    nowhere = "127.0.0.1:1"
    for node in sharded.nodes:
        async with opened(f"redis+cluster://{nowhere},{node.address}") as client:
            await ask(client, *(("SET", f"key:{n}", n) for n in range(30)))


async def test_a_key_that_has_moved_is_followed(sharded: Any) -> None:
    """Slots go from one node to another while they are used: ASK in between, then MOVED; no call fails."""
    first, second = sharded.nodes[0].redis, sharded.nodes[1].redis
    async with opened(sharded.url) as client:
        await ask(client, ("SET", "{prod}a", "a"), ("SET", "{other}", "o"))
        slot = await first.execute_command("CLUSTER", "KEYSLOT", "{prod}a")
        names = [(await redis.execute_command("CLUSTER", "MYID")).decode() for redis in (first, second)]
        holder, target = (first, second) if slot <= 5460 else (second, first)
        there, here = (names[1], names[0]) if holder is first else (names[0], names[1])
        assert slot <= 10922, "choose a key of the first two nodes"
        await target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        await holder.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", there)
        # One that is still there, and a new one, which is asked for at the target.
        assert await ask(client, ("GET", "{prod}a"), ("SET", "{prod}b", "b"), ("GET", "{prod}b")) == [b"a", True, b"b"]
        port = (await target.config_get("port"))["port"]
        await holder.execute_command("MIGRATE", "127.0.0.1", port, "{prod}a", 0, 1000)
        for redis in (target, holder):
            await redis.execute_command("CLUSTER", "SETSLOT", slot, "NODE", there)
        assert await ask(client, ("GET", "{prod}a"), ("GET", "{other}"), ("GET", "{prod}b")) == [b"a", b"o", b"b"]
        assert await ask(client, ("GET", "{prod}a")) == [b"a"]


async def test_a_killed_node_is_survived(sharded: Any) -> None:
    """Its replica takes its place: writes wait for it, and calls work again; the subscription goes to another node."""
    async with opened(sharded.url) as client:
        writing = Writing(client)
        news = subscribe(client, keys.NEWS, Change.decode)
        assert await anext(news) is None
        async with writing.running():
            await writing.some()
            await sharded.nodes[0].kill()
            await writing.degraded()
            before = writing.count
            await writing.some(before + 5 - len(writing.stored))

            async def all_answer() -> bool:
                return len(await ask(client, *(("GET", f"key:{n}") for n in range(50)))) == 50

            await until(all_answer)
        assert writing.stored == set(range(writing.count))
        values = await ask(client, *(("GET", f"key:{n}") for n in range(before, writing.count)))
        assert values == [str(n).encode() for n in range(before, writing.count)]
        # Which node it listened to is chance.
        change = Change("prod", ConnectedExecutor(executor_id="e"), True)
        listening = asyncio.create_task(anext(news))
        async with asyncio.timeout(PATIENCE_S):
            while not listening.done():
                await PresenceRecords(client).register([(change.cluster_id, change.executor)], changed=True)
                await asyncio.wait([listening], timeout=0.2)
        assert listening.result() in (None, change)
        await news.aclose()


async def test_a_frozen_node_is_left(sharded: Any) -> None:
    """Its connections say nothing, and each call's time ends first: the map is asked for all the same."""
    async with opened(sharded.url) as client:
        await ask(client, *(("SET", f"key:{n}", n) for n in range(50)))

        async def all_answer() -> bool:
            return len(await ask(client, *(("GET", f"key:{n}") for n in range(50)))) == 50

        with sharded.nodes[0].frozen():
            with pytest.raises(OpenlineError):
                await all_answer()
            await until(all_answer)


async def test_who_listens_to_a_frozen_node_goes_to_another(sharded: Any) -> None:
    """Of a dozen some do: all of them hear again, after they were told to read anew."""
    async with opened(sharded.url) as client, asyncio.timeout(PATIENCE_S):
        news = [subscribe(client, keys.NEWS, Change.decode) for _ in range(12)]
        assert [await anext(each) for each in news] == [None] * 12
        frozen = sharded.nodes[0]
        listening = len(await frozen.redis.client_list(_type="pubsub"))
        with frozen.frozen():
            change = Change("prod", ConnectedExecutor(executor_id="e"), True)

            async def heard(changes: AsyncIterator[Change | None]) -> bool:
                """Whether it was told to read anew before it heard."""
                anew = False
                async for told in changes:
                    anew = anew or told is None
                    # What is published now and then comes to all, once they are where it is heard.
                    if told == change:
                        return anew
                raise AssertionError

            async def publish() -> None:
                while True:
                    with contextlib.suppress(OpenlineError):
                        await PresenceRecords(client).register([(change.cluster_id, change.executor)], changed=True)
                    await asyncio.sleep(0.2)

            publishing = asyncio.create_task(publish())
            assert sum(await asyncio.gather(*map(heard, news))) == listening
            publishing.cancel()
        for each in news:
            await each.aclose()


async def test_a_node_without_an_heir_comes_back(sharded: Any) -> None:
    """Meanwhile nothing is lost that waits, and it is said to be degraded."""
    async with opened(sharded.url) as client:
        writing = Writing(client)
        async with writing.running():
            await writing.some()
            await sharded.nodes[1].kill()
            await writing.degraded()
            await asyncio.sleep(1.0)
            await sharded.nodes[1].start()
            await writing.some(30)
        assert writing.stored == set(range(writing.count))
