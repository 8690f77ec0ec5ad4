"""Which clusters are registered, and what a caller is told of one that is not, or that is not connected."""

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import KeysView, Sequence

from broker.core.account import offline
from broker.core.credentials import Caller, Credentials
from broker.core.patterns import Patterns
from broker.store.store import Store
from openline import errors
from openline.near import cluster_unknown
from openline.v1 import command_pb2

# Lists of clusters that are remembered; the one that was not asked for the longest is forgotten first.
MAX_VISIBLE = 100
# How long a caller is kept waiting to be told since when a cluster is away; that it is away is known already.
LAST_SEEN_S = 0.2


class Registry:
    """The clusters that have a good token, or need none."""

    def __init__(self, credentials: Credentials, store: Store) -> None:
        self._credentials = credentials
        self._store = store
        # What there is to see with certain patterns, sorted.
        self._visible: OrderedDict[Patterns, list[str]] = OrderedDict()
        credentials.tokens.cluster_changed = self._changed

    @property
    def clusters(self) -> KeysView[str]:
        return self._credentials.clusters

    def visible(self, caller: Caller) -> Sequence[str]:
        """The clusters that the caller sees, sorted; to be read at once.

        The list is kept, and changed where a cluster comes or goes: how long a caller waits for it tells nothing of
        clusters that the caller does not see.
        """
        patterns = caller.clusters
        if patterns in self._visible:
            self._visible.move_to_end(patterns)
            return self._visible[patterns]
        visible = self._visible[patterns] = sorted(filter(patterns.sees, self.clusters))
        if len(self._visible) > MAX_VISIBLE:
            self._visible.popitem(last=False)
        return visible

    def require(self, cluster_id: str, caller: Caller) -> None:
        """Raises CLUSTER_UNKNOWN, with those that there are for the caller, unless the cluster is one of them.

        One that the caller does not see takes the very way of one that there is not.
        Raises STORE_UNAVAILABLE while it is not known which clusters there are.
        """
        if caller.sees(cluster_id) and cluster_id in self.clusters:
            return
        self._credentials.require_whole()
        available = self.visible(caller)
        raise errors.OpenlineError(cluster_unknown(cluster_id, available))

    def _changed(self, cluster_id: str) -> None:
        """The cluster has come or gone."""
        for patterns, visible in self._visible.items():
            if patterns.sees(cluster_id):
                at = bisect_left(visible, cluster_id)
                if cluster_id in self.clusters:
                    visible.insert(at, cluster_id)
                else:
                    del visible[at]

    async def offline(self, cluster_id: str) -> command_pb2.Error:
        """CLUSTER_OFFLINE, with when the cluster was last seen if Redis knows."""
        error = offline(cluster_id)
        try:
            if self._store.degraded:
                raise TimeoutError
            async with asyncio.timeout(LAST_SEEN_S):
                [cluster] = await self._store.clusters.get([cluster_id])
        except (errors.OpenlineError, TimeoutError):
            error.message += "; since when is not known, Redis is out of reach"
        else:
            if cluster.HasField("last_seen"):
                error.metadata["last_seen"] = cluster.last_seen.ToJsonString()
                error.message += f"; last seen {error.metadata['last_seen']}"
        return error
