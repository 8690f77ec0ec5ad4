"""Clusters in Redis: activity, and what else is known of each; presence is written elsewhere."""

import contextlib
import time
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from broker.store import keys, presence
from broker.store.behind import WriteBehind
from broker.store.client import Client, ask
from openline.v1 import cluster_service_pb2


class Clusters:
    def __init__(self, redis: Client, behind: WriteBehind) -> None:
        self._redis = redis
        self._behind = behind
        # When each cluster's activity was last written, to write it once a second only. Bounded by the clusters that
        # have an executor here.
        self._marked: dict[str, float] = {}

    def mark_active(self, cluster_id: str, *, now: float) -> None:
        """An Execute has arrived for the cluster: it is active for 60 s. Written behind, at most once a second."""
        if now - self._marked.get(cluster_id, float("-inf")) < keys.ACTIVE_EVERY_S:
            return
        self._marked[cluster_id] = now
        self._behind.put("SET", keys.active(cluster_id), int(time.time()), "EX", keys.ACTIVE_S)

    async def get(self, cluster_ids: Sequence[str]) -> list[cluster_service_pb2.Cluster]:
        """What is known of these clusters, in this order, in one round trip. Raises STORE_UNAVAILABLE.

        `has_token` is not known here, and `last_seen` is unset for a cluster that was never connected.
        """
        questions = [
            (
                ("GET", keys.seen(cluster_id)),
                presence.reading(cluster_id),
                ("PTTL", keys.active(cluster_id)),
                ("EXISTS", keys.cluster_session(cluster_id)),
            )
            for cluster_id in cluster_ids
        ]
        answers = iter(await ask(self._redis, *(question for each in questions for question in each)))
        return [_cluster(cluster_id, *(next(answers) for _ in range(4))) for cluster_id in cluster_ids]


def _cluster(
    cluster_id: str, seen: bytes | None, present: list[bytes], active_ms: int, sessions: int
) -> cluster_service_pb2.Cluster:
    # One that is moving is about to be somewhere, and is nowhere now.
    executors = [executor for executor in presence.executors(present) if not executor.moving]
    cluster = cluster_service_pb2.Cluster(
        cluster_id=cluster_id,
        connected=len(executors) > 0,
        executors=executors,
        active=active_ms > 0,
        active_for_s=max(0, active_ms) / 1000,
        has_active_session=bool(sessions),
    )
    # What cannot be read is somebody else's: it is left out.
    if seen is not None:
        with contextlib.suppress(DecodeError):
            cluster.last_seen.CopyFrom(cluster_service_pb2.Cluster.FromString(seen).last_seen)
    return cluster
