"""Which clusters are registered, and what a caller is told of one that is not, or that is not connected."""

import asyncio
import difflib
from collections.abc import KeysView

from broker.core.account import offline
from broker.core.credentials import Caller, Credentials
from broker.store.store import Store
from openline import errors
from openline.ids import is_cluster_id
from openline.reasons import Reason
from openline.v1 import command_pb2

MAX_LISTED = 100
# How long a caller is kept waiting to be told since when a cluster is away; that it is away is known already.
LAST_SEEN_S = 0.2


class Registry:
    """The clusters that have a good token."""

    def __init__(self, credentials: Credentials, store: Store) -> None:
        self._credentials = credentials
        self._store = store

    @property
    def clusters(self) -> KeysView[str]:
        return self._credentials.clusters

    def visible(self, caller: Caller) -> list[str]:
        """The clusters that the caller sees, sorted."""
        return sorted(filter(caller.sees, self.clusters))

    def require(self, cluster_id: str, caller: Caller) -> None:
        """Raises CLUSTER_UNKNOWN, with those that there are for the caller, unless the cluster is one of them.

        Raises STORE_UNAVAILABLE while that is not known.
        """
        if caller.sees(cluster_id) and cluster_id in self.clusters:
            return
        self._credentials.require_whole()
        available = self.visible(caller)
        # One that could not be an id is near to nothing, and may be megabytes.
        near = difflib.get_close_matches(cluster_id, available, n=3) if is_cluster_id(cluster_id) else []
        shown = errors.short(cluster_id)
        unknown = errors.error(
            Reason.CLUSTER_UNKNOWN,
            f"no cluster {shown!r}" + (f"; did you mean {', '.join(near)}?" if near else ""),
            metadata={"cluster_id": shown, "available": ",".join(available[:MAX_LISTED]), "near": ",".join(near)},
        )
        raise errors.OpenlineError(unknown)

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
