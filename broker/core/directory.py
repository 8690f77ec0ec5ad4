"""Which executors are connected to other replicas, as far as this one has heard, and where a command may be forwarded.

A copy of the presence in Redis, corrected by what this replica finds out by itself: a replica that cannot be reached,
an executor that is not where it was said to be. Pure; placing costs no round trip.
"""

import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.core.connections import Instance
from openline.v1 import cluster_service_pb2

Executor = cluster_service_pb2.ConnectedExecutor

# An executor that was told to move, or whose replica is gone, is expected elsewhere for so long; commands may wait.
MOVING_S = 5.0
GONE_REPLICA_S = 10.0
# That an instance went without a word is remembered for so long: a command may have been on it.
VANISHED_S = 120.0
# No clock is so far ahead: an executor that says so is wrong.
MAX_AHEAD_US = 24 * 3600 * 1_000_000


@dataclass(slots=True)
class Entry:
    """One executor on another replica."""

    executor: Executor
    # Since when it is moving, None while it is connected.
    moving_since: float | None = None
    # Commands that were forwarded to it since it was last heard of.
    forwarded: int = 0

    @property
    def replica_id(self) -> str:
        return self.executor.replica_id

    @property
    def load(self) -> float:
        """Commands per place, as far as is known."""
        return (self.executor.running + self.forwarded) / max(1, self.executor.max_concurrency)


class Directory:
    """Executors by cluster and executor id."""

    def __init__(self, replica_id: str) -> None:
        self._replica_id = replica_id
        # Of the last connection here.
        self._epoch = 0
        self._clusters: dict[str, dict[str, Entry]] = {}
        # Replicas that could not be reached, and since when.
        self._unreachable: dict[str, float] = {}
        # When an instance of the cluster was last seen to have gone without moving.
        self._vanished: dict[str, float] = {}
        # Since when that is known: of what was before, a replica that was just started has heard nothing.
        self._heard_since = math.inf

    def __repr__(self) -> str:
        executors = sum(map(len, self._clusters.values()))
        return f"<Directory clusters={len(self._clusters)} executors={executors} unreachable={list(self._unreachable)}>"

    # What is heard

    def learn(self, cluster_id: str, executor: Executor, *, now: float) -> bool:
        """An executor is connected somewhere, or moving; False for news that is older than what is known."""
        known = self.of_executor(cluster_id, executor.executor_id)
        if known is not None:
            if executor.epoch < known.executor.epoch:
                return False
            if executor.instance_id != known.executor.instance_id:
                self._vanished[cluster_id] = now
        if executor.replica_id == self._replica_id and not executor.moving:
            # It is here, and known better than Redis does.
            self._remove(cluster_id, executor.executor_id)
            return True
        moving_since = now if executor.moving else None
        if executor.moving and known is not None and known.moving_since is not None:
            moving_since = known.moving_since
        entry = Entry(executor, moving_since)
        self._clusters.setdefault(cluster_id, {})[executor.executor_id] = entry
        return True

    def unlearn(self, cluster_id: str, executor_id: str, *, epoch: int, now: float) -> None:
        """An executor's connection is gone, and it was not told to move."""
        known = self.of_executor(cluster_id, executor_id)
        if known is not None and known.executor.epoch <= epoch:
            self._remove(cluster_id, executor_id)
            self._vanished[cluster_id] = now

    def refresh(self, present: Mapping[str, Sequence[Executor]], *, now: float, is_whole: bool = True) -> None:
        """What Redis has for these clusters: what it has not is gone, if it is the whole of it."""
        self._heard_since = max(min(now, self._heard_since), now - VANISHED_S)
        for cluster_id, executors in present.items():
            for executor in executors:
                self.learn(cluster_id, executor, now=now)
            there = {executor.executor_id for executor in executors}
            for executor_id, entry in list(self._clusters.get(cluster_id, {}).items()):
                if is_whole and executor_id not in there and not self._is_moving(entry, now):
                    self.unlearn(cluster_id, executor_id, epoch=entry.executor.epoch, now=now)
        for cluster_id in [name for name, at in self._vanished.items() if now - at > VANISHED_S]:
            del self._vanished[cluster_id]

    def reached(self, replica_id: str) -> None:
        """The replica answers."""
        self._unreachable.pop(replica_id, None)

    def unreachable(self, replica_id: str, *, now: float) -> None:
        """The replica does not answer: its executors will be elsewhere, or it will be back."""
        self._unreachable.setdefault(replica_id, now)

    def forget_replicas(self, known: Collection[str]) -> None:
        """Only these replicas are left; what is said of others concerns nobody."""
        for replica_id in self._unreachable.keys() - set(known):
            if not any(entry.replica_id == replica_id for entry in self._entries()):
                del self._unreachable[replica_id]

    def not_there(self, cluster_id: str, replica_id: str, *, moving: bool, now: float) -> None:
        """A replica said that it has no executor of this cluster, or that it was told to move."""
        for executor_id, entry in list(self._clusters.get(cluster_id, {}).items()):
            if entry.replica_id != replica_id:
                continue
            if moving:
                entry.moving_since = entry.moving_since or now
            else:
                self.unlearn(cluster_id, executor_id, epoch=entry.executor.epoch, now=now)

    # What is decided by it

    def next_epoch(self, cluster_id: str, executor_id: str, *, last: int, clock_us: int) -> int:
        """Orders the connections of an executor: higher than all that it or this replica knows of.

        Clocks of replicas differ, so the clock alone would not do. `last` is the executor's own word, and is believed
        as far as a clock may be wrong.
        """
        self._epoch = max(self._epoch + 1, clock_us)
        known = self.of_executor(cluster_id, executor_id)
        said = last if last <= clock_us + MAX_AHEAD_US else 0
        return max(self._epoch, said + 1, 0 if known is None else known.executor.epoch + 1)

    def place(self, cluster_id: str, *, now: float, below_load: float | None = None) -> Entry | None:
        """An executor of the cluster on another replica: the less loaded of two that are drawn (power of two choices).

        What is known of loads is some seconds old: the best of all would be everybody's choice at once.
        """
        candidates = [entry for entry in self._reachable(cluster_id) if below_load is None or entry.load < below_load]
        if len(candidates) > 2:
            candidates = random.sample(candidates, 2)
        return min(candidates, key=lambda entry: entry.load, default=None)

    def expected_until(self, cluster_id: str, *, now: float) -> float | None:
        """Until when an executor of the cluster may be expected to turn up; None when none is."""
        until = [self._expected_until(entry) for entry in self._clusters.get(cluster_id, {}).values()]
        return max((instant for instant in until if instant is not None and instant > now), default=None)

    def of_executor(self, cluster_id: str, executor_id: str) -> Entry | None:
        return self._clusters.get(cluster_id, {}).get(executor_id)

    def elsewhere(self, instance: Instance) -> Entry | None:
        """Where the executor of this instance is connected now, whether it is still this instance or a later one."""
        cluster_id, executor_id, _ = instance
        entry = self.of_executor(cluster_id, executor_id)
        return entry if entry is not None and entry.moving_since is None else None

    def is_accounted_for(self, cluster_id: str, *, answered: Mapping[str, int], since: float) -> bool:
        """Whether no executor of the cluster can hold a command that none of the `answered` replicas knows.

        An executor lists in Hello what it holds. So none does, if every executor is connected to a replica that
        answered, and none has gone without a word since the command was made. `answered` has for each replica when its
        process began, in µs since 1970: what was connected to the process before is who knows where.
        """
        gone = max(self._vanished.get(cluster_id, self._heard_since), self._heard_since)
        of_cluster = self._clusters.get(cluster_id, {}).values()
        return gone < since and all(
            entry.moving_since is None and answered.get(entry.replica_id, entry.executor.epoch) < entry.executor.epoch
            for entry in of_cluster
        )

    def is_current(self, cluster_id: str, replica_id: str, *, began_us: int) -> bool:
        """Whether all of the cluster that is said to be on this replica came to the process that began then."""
        of_cluster = self._clusters.get(cluster_id, {}).values()
        return all(entry.executor.epoch > began_us for entry in of_cluster if entry.replica_id == replica_id)

    def has(self, cluster_id: str) -> bool:
        """Whether an executor of the cluster is connected to another replica."""
        return any(entry.moving_since is None for entry in self._clusters.get(cluster_id, {}).values())

    def reachable(self, cluster_id: str) -> list[Executor]:
        """Those that are connected to a replica which answers."""
        return [entry.executor for entry in self._reachable(cluster_id)]

    def executors(self, cluster_id: str) -> list[Executor]:
        return [entry.executor for entry in self._clusters.get(cluster_id, {}).values()]

    def _reachable(self, cluster_id: str) -> Iterable[Entry]:
        of_cluster = self._clusters.get(cluster_id, {}).values()
        return (each for each in of_cluster if each.moving_since is None and each.replica_id not in self._unreachable)

    def _entries(self) -> Iterable[Entry]:
        return (entry for of_cluster in self._clusters.values() for entry in of_cluster.values())

    def _expected_until(self, entry: Entry) -> float | None:
        if entry.moving_since is not None:
            return entry.moving_since + MOVING_S
        gone_at = self._unreachable.get(entry.replica_id)
        return None if gone_at is None else gone_at + GONE_REPLICA_S

    def _is_moving(self, entry: Entry, now: float) -> bool:
        return entry.moving_since is not None and now - entry.moving_since < MOVING_S

    def _remove(self, cluster_id: str, executor_id: str) -> None:
        of_cluster = self._clusters.get(cluster_id, {})
        of_cluster.pop(executor_id, None)
        if not of_cluster:
            self._clusters.pop(cluster_id, None)
