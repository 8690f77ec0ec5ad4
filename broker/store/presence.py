"""Presence in Redis: which executor is connected to which replica, and which replicas there are."""

import itertools
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from time import monotonic
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from broker.store import epochs, keys, news
from broker.store.client import Client, ask
from broker.store.news import Change
from broker.store.single import RedisCommand
from openline import errors
from openline.reasons import Reason
from openline.v1 import cluster_service_pb2
from openline.v1.cluster_service_pb2 import ConnectedExecutor, Replica

# By cluster id, in any order.
Entries = Sequence[tuple[str, ConnectedExecutor]]
# What goes to Redis in one round trip: to make it up holds the loop up, for 60 µs each.
MAX_CHUNK = 100
# How long a Redis that fails is tried with one chunk after the other.
PATIENCE_S = 2.0

# Writes a value that all replicas shall agree on, unless there is one; begins its TTL anew. KEYS: the key.
# ARGV: the value, TTL in s. Returns the value that all have now.
AGREE = """
redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('GET', KEYS[1])
"""

M = TypeVar("M", bound=Message)


class PresenceRecords:
    """All of it raises STORE_UNAVAILABLE; what was written until then stays written, and may be written again."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def register(self, entries: Entries, *, changed: bool) -> list[bool]:
        """Writes who is connected here, for 30 s; for each whether it holds now, False if somebody has a newer epoch.

        `changed` says that it is news, and no refresh: it is published.
        """
        chunks = _chunks(entries)
        held: dict[tuple[str, str], bool] = {}
        told = await self._ask(registering(chunk, changed=changed) for chunk in chunks)
        for chunk, answers in zip(chunks, told, strict=True):
            # Every second answer is of what was seen.
            for (cluster_id, present), holds in zip(_by_cluster(chunk).items(), answers[1::2], strict=True):
                held |= {(cluster_id, one.executor_id): each == 1 for one, each in zip(present, holds, strict=True)}
        return [held[cluster_id, executor.executor_id] for cluster_id, executor in entries]

    async def unregister(self, entries: Entries) -> None:
        """Takes out who has left, unless a newer connection has taken the place; published if it had not."""
        await self._ask(unregistering(chunk) for chunk in _chunks(entries))

    async def read(self, cluster_ids: Sequence[str]) -> list[list[ConnectedExecutor]]:
        """Who is connected to each of these clusters, in this order; without what cannot be read."""
        questions = [reading(cluster_id) for cluster_id in cluster_ids]
        begins = range(0, len(questions), MAX_CHUNK)
        answers = await self._ask(questions[begin : begin + MAX_CHUNK] for begin in begins)
        return [executors(records) for records in itertools.chain.from_iterable(answers)]

    def subscribe(self) -> AsyncGenerator[Change | None]:
        """Yields each change, and None whenever changes may have been missed: whoever listens reads anew then.

        Never ends. To be closed by its owner (`contextlib.aclosing`).
        """
        return news.subscribe(self._redis, keys.NEWS, Change.decode)

    async def register_replica(self, replica: Replica, epoch: int) -> bool:
        """Writes that the replica is there, for 30 s; False if another process with its id began later.

        The epoch is when the process began, in µs.
        """
        entry = epochs.Entry(replica.replica_id, epoch, replica.SerializeToString())
        [[holds]] = await ask(
            self._redis, epochs.setting(keys.REPLICAS, [entry], ttl_s=keys.PRESENCE_S, channel=keys.NEWS)
        )
        return bool(holds == 1)

    async def unregister_replica(self, replica_id: str, epoch: int) -> None:
        entry = epochs.Entry(replica_id, epoch, b"")
        await ask(self._redis, epochs.erasing(keys.REPLICAS, [entry], channel=keys.NEWS))

    async def read_replicas(self) -> list[Replica]:
        [records] = await ask(self._redis, epochs.reading(keys.REPLICAS))
        return _parse(Replica, records)

    async def meet(self, mark: str, secret: bytes | None) -> tuple[str, bytes]:
        """Proposes a mark and, unless it was given to all in another way, a peer secret; returns those that all have.

        Another mark than last time tells that Redis came back empty, or that it is another one: nothing that was
        written before is in it.
        """
        agreed = [
            ("EVAL", AGREE, 1, key, proposal, keys.AGREED_S)
            for key, proposal in ((keys.MARK, mark), (keys.PEER_SECRET, secret))
            if proposal is not None
        ]
        found = await ask(self._redis, *agreed)
        if not all(found):
            # Out of memory for new keys, in a Redis that evicts: nothing was agreed on.
            raise errors.OpenlineError(
                errors.error(Reason.STORE_UNAVAILABLE, "Redis does not keep what it is given", retry_after_s=1.0)
            )
        return found[0].decode(errors="replace"), found[-1] if secret is not None else b""

    async def _ask(self, chunks: Iterable[Sequence[RedisCommand]]) -> list[list[Any]]:
        """One chunk after the other; that one fails is told when all were tried: in a Redis Cluster the others may not.

        A frozen Redis is not waited for as often as there are chunks.
        """
        until = monotonic() + PATIENCE_S
        got: list[list[Any]] = []
        failure: errors.OpenlineError | None = None
        for chunk in chunks:
            try:
                got.append(await ask(self._redis, *chunk))
            except errors.OpenlineError as unavailable:
                failure = failure or unavailable
                if monotonic() > until:
                    break
        if failure is not None:
            raise failure
        return got


def registering(entries: Entries, *, changed: bool) -> list[RedisCommand]:
    """Two commands for each cluster, in the order of their first entries: seen, and set."""
    commands: list[RedisCommand] = []
    for cluster_id, present in _by_cluster(entries).items():
        records = [_entry(cluster_id, one, news=changed, present=True) for one in present]
        commands.append(seeing(cluster_id))
        commands.append(
            epochs.setting(keys.presence(cluster_id), records, ttl_s=keys.PRESENCE_S, channel=keys.NEWS),
        )
    return commands


def unregistering(entries: Entries) -> list[RedisCommand]:
    commands: list[RedisCommand] = []
    for cluster_id, gone in _by_cluster(entries).items():
        records = [_entry(cluster_id, one, news=True, present=False) for one in gone]
        commands.append(seeing(cluster_id))
        commands.append(epochs.erasing(keys.presence(cluster_id), records, channel=keys.NEWS))
    return commands


def seeing(cluster_id: str) -> RedisCommand:
    """An executor of the cluster is, or was until now, connected."""
    cluster = cluster_service_pb2.Cluster(cluster_id=cluster_id)
    cluster.last_seen.FromMilliseconds(int(time.time() * 1000))
    return ("SET", keys.seen(cluster_id), cluster.SerializeToString(), "EX", keys.SEEN_S)


def reading(cluster_id: str) -> RedisCommand:
    """The question whose answer `executors` reads."""
    return epochs.reading(keys.presence(cluster_id))


def executors(records: Iterable[bytes]) -> list[ConnectedExecutor]:
    return _parse(ConnectedExecutor, records)


def _parse(kind: type[M], records: Iterable[bytes]) -> list[M]:
    found = []
    for record in records:
        try:
            found.append(kind.FromString(record))
        except DecodeError:
            continue  # somebody else's
    return found


def _entry(cluster_id: str, executor: ConnectedExecutor, *, news: bool, present: bool) -> epochs.Entry:
    told = Change(cluster_id, executor, present).encode() if news else b""
    return epochs.Entry(executor.executor_id, executor.epoch, executor.SerializeToString(), told)


def _by_cluster(entries: Entries) -> dict[str, list[ConnectedExecutor]]:
    by_cluster: dict[str, list[ConnectedExecutor]] = {}
    for cluster_id, executor in entries:
        by_cluster.setdefault(cluster_id, []).append(executor)
    return by_cluster


def _chunks(entries: Entries) -> list[Entries]:
    """Grouped by cluster, so that few are split."""
    ordered = sorted(entries, key=lambda entry: entry[0])
    return [ordered[begin : begin + MAX_CHUNK] for begin in range(0, len(ordered), MAX_CHUNK)]
