"""Since when clusters are away that have no executor connected: Redis is asked once for each time that it is away."""

import asyncio
from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from broker.store.clusters import Clusters
from openline.errors import OpenlineError

AT_A_TIME = 200


class Absence:
    """Of registered clusters, which bound it."""

    def __init__(self, records: Clusters) -> None:
        self._records = records
        # When each was seen last, as far as that is known; a time of zero for one that never was.
        self._last_seen: dict[str, Timestamp | None] = {}

    def last_seen(self, cluster_id: str) -> Timestamp | None:
        at = self._last_seen.get(cluster_id)
        return at if at is not None and at.seconds else None

    async def look(self, away: Iterable[str], *, timeout_s: float) -> None:
        """These are away, and no others. What Redis does not say now it may say the next time."""
        self._last_seen = {cluster_id: self._last_seen.get(cluster_id) for cluster_id in away}
        unknown = [cluster_id for cluster_id, at in self._last_seen.items() if at is None][:AT_A_TIME]
        try:
            async with asyncio.timeout(timeout_s):
                clusters = await self._records.get(unknown) if unknown else []
        except (OpenlineError, TimeoutError):
            return
        for cluster in clusters:
            self._last_seen[cluster.cluster_id] = cluster.last_seen
