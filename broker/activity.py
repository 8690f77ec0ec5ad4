"""Which clusters are in use: said in Redis at once, and to their executors often enough to lose a frame."""

from collections.abc import Iterator

from broker.store import keys
from broker.store.clusters import Clusters

TELL_EVERY_S = keys.ACTIVE_S / 4


class Activity:
    """Of registered clusters, which bound it."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters
        # By cluster: when it was last used, and when its executors were last told that it is.
        self._used: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def mark(self, cluster_id: str, *, now: float) -> bool:
        """An Execute has arrived for the cluster; whether its executors are to be told."""
        self._clusters.mark_active(cluster_id, now=now)
        self._used[cluster_id] = now
        due = now - self._told.get(cluster_id, float("-inf")) >= TELL_EVERY_S
        if due:
            self._told[cluster_id] = now
        return due

    def active(self, *, now: float) -> Iterator[tuple[str, float]]:
        """The clusters that are active, and for how much longer each is."""
        for cluster_id in self._used:
            if (left_s := self.left_s(cluster_id, now=now)) > 0:
                yield cluster_id, left_s

    def left_s(self, cluster_id: str, *, now: float) -> float:
        """For how much longer the cluster is active; not more than zero when it is not."""
        # Rounding must not make it longer than it is.
        return min(self._used.get(cluster_id, float("-inf")) + keys.ACTIVE_S - now, keys.ACTIVE_S)
