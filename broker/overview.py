"""What callers are shown of clusters: as Redis has it, and what it may lack; and every change, to who watches.

While somebody watches, one task reads what news there are of and tells all watchers. A watcher has a list of clusters
it was not told of yet, and reads at its own pace: what changes twice meanwhile it is told once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from broker.core import quotas
from broker.core.credentials import Caller
from broker.presence import Presence
from broker.registry import Registry
from broker.store.clusters import Clusters
from openline import errors
from openline.reasons import NO, Reason
from openline.v1 import cluster_service_pb2

Cluster = cluster_service_pb2.Cluster
ConnectedExecutor = cluster_service_pb2.ConnectedExecutor

# To find that clusters were registered or are not any more; of all else there are news.
LOOK_EVERY_S = 1.0
# What comes within so long is read together: executors come and go by the hundred.
GATHER_S = 0.05
READ_AT_A_TIME = 200
MAX_WATCHES = 200
# That are shown of a cluster, each with 16 KiB of what it can do. It may have more: as many as one replica takes
# (`connections.MAX_EXECUTORS_OF_CLUSTER`) are on each of several.
MOST_EXECUTORS = 100


class Watch:
    """One watcher, and what it was not told of yet."""

    def __init__(self, overview: "Overview", caller: Caller) -> None:
        self.caller = caller
        self._overview = overview
        self._untold: dict[str, None] = {}
        self._changed = asyncio.Event()

    def tell(self, cluster_ids: Iterable[str]) -> None:
        """These have changed, if the watcher sees them."""
        self._untold.update(dict.fromkeys(filter(self.caller.sees, cluster_ids)))
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[Cluster]:
        """Never ends by itself. Raises BROKER_UNAVAILABLE when the replica stops."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._untold:
                cluster_id = next(iter(self._untold))
                del self._untold[cluster_id]
                yield self._overview.as_known(cluster_id)
            if self._overview.is_closed:
                raise _closed()


class Overview:
    """`not_in_redis` says who is connected to other replicas and may be missing there."""

    def __init__(
        self,
        records: Clusters,
        registry: Registry,
        presence: Presence,
        not_in_redis: Callable[[str], Sequence[ConnectedExecutor]],
    ) -> None:
        self._records = records
        self._registry = registry
        self._presence = presence
        self._not_in_redis = not_in_redis
        # Those that some watcher sees, as they were read last.
        self._known: dict[str, Cluster] = {}
        # One reads at a time, so that what is older never comes last.
        self._reading = asyncio.Lock()
        self._watches: set[Watch] = set()
        # Of which there are news.
        self._stale: set[str] = set()
        self._wake = asyncio.Event()
        self.is_closed = False

    def __repr__(self) -> str:
        return f"<Overview known={len(self._known)} watches={len(self._watches)}>"

    async def get(self, cluster_ids: Sequence[str]) -> list[Cluster]:
        """These registered clusters, as they are now. Raises STORE_UNAVAILABLE."""
        clusters = await self._records.get(cluster_ids)
        for cluster in clusters:
            cluster.has_token = True
            here = self._presence.executors(cluster.cluster_id)
            executors: dict[str, ConnectedExecutor] = {}
            # The first word on each is the best one.
            for executor in (*here, *cluster.executors, *self._not_in_redis(cluster.cluster_id)):
                executors.setdefault(executor.executor_id, executor)
            cluster.connected = bool(executors)
            cluster.more_executors = max(0, len(executors) - MOST_EXECUTORS)
            shown = list(executors.values())
            if cluster.more_executors:
                # Which ones must not change from one look to the next.
                shown = sorted(shown, key=lambda each: each.executor_id)[:MOST_EXECUTORS]
            cluster.executors.clear()
            cluster.executors.extend(shown)
        return clusters

    def as_known(self, cluster_id: str) -> Cluster:
        """As it was read last; without a token if it is not registered any more."""
        return self._known.get(cluster_id) or Cluster(cluster_id=cluster_id)

    @contextlib.asynccontextmanager
    async def watch(self, caller: Caller) -> AsyncIterator[Watch]:
        """Every cluster that the caller sees, once, and then each change.

        Raises QUOTA_EXCEEDED, STORE_UNAVAILABLE, BROKER_UNAVAILABLE.
        """
        if self.is_closed:
            raise _closed()
        if len(self._watches) >= MAX_WATCHES:
            raise errors.OpenlineError(quotas.full(MAX_WATCHES, "too many watch clusters"))
        watch = Watch(self, caller)
        self._watches.add(watch)
        try:
            async with self._reading:
                # No others: how long it takes must not tell how many there are.
                await self._read([each for each in self._registry.visible(caller) if each not in self._known])
            watch.tell(self._registry.visible(caller))
            self._wake.set()
            yield watch
        finally:
            self._watches.discard(watch)
            if not self._watches:
                self._known.clear()

    def news(self, cluster_id: str) -> None:
        """Something about the cluster may have changed."""
        if cluster_id in self._known:
            self._stale.add(cluster_id)
            self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled by its owner."""
        while True:
            if not self._watches:
                self._stale.clear()
                self._wake.clear()
                await self._wake.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            async with self._reading:
                await self._refresh()

    def close(self) -> None:
        """The replica is stopping: watchers are told to go elsewhere."""
        self.is_closed = True
        for watch in self._watches:
            watch.tell(())

    async def _refresh(self) -> None:
        seen = {each for watch in self._watches for each in self._registry.visible(watch.caller)}
        for cluster_id in self._known.keys() - seen:
            del self._known[cluster_id]
            self._tell(cluster_id)
        stale, self._stale = self._stale | (seen - self._known.keys()), set()
        try:
            await self._read(sorted(stale & seen))
        except errors.OpenlineError:  # they are looked at again when Redis is back
            self._stale |= stale

    async def _read(self, cluster_ids: Sequence[str]) -> None:
        for begin in range(0, len(cluster_ids), READ_AT_A_TIME):
            for cluster in await self.get(cluster_ids[begin : begin + READ_AT_A_TIME]):
                if not self._watches:  # the last one has left meanwhile
                    return
                before = self._known.get(cluster.cluster_id)
                self._known[cluster.cluster_id] = cluster
                if before is None or _essence(before) != _essence(cluster):
                    self._tell(cluster.cluster_id)

    def _tell(self, cluster_id: str) -> None:
        for watch in self._watches:
            watch.tell((cluster_id,))


def _essence(cluster: Cluster) -> bytes:
    """What of a cluster is a change when it is another: not what changes all the time."""
    essence = Cluster()
    essence.CopyFrom(cluster)
    essence.active_for_s = 0.0
    essence.ClearField("last_seen")
    for executor in essence.executors:
        executor.running = 0
    return essence.SerializeToString(deterministic=True)


def _closed() -> errors.OpenlineError:
    stopping = errors.error(Reason.BROKER_UNAVAILABLE, "the replica is stopping", executed=NO, retry_after_s=1.0)
    return errors.OpenlineError(stopping)
