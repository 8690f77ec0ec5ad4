"""Clusters and sessions, as a caller of the client sees them; read from the contract's messages."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from openline.client.results import instant
from openline.v1 import cluster_service_pb2


@dataclass(frozen=True, slots=True)
class Executor:
    """One that is connected now."""

    executor_id: str
    replica_id: str
    running: int
    max_concurrency: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that the key may see."""

    cluster_id: str
    # An executor of it is connected to some replica.
    connected: bool
    # A command was asked of it within the last 60 s; how long it stays so.
    active: bool
    active_for_s: float
    # When an executor was last known to be connected; None if never.
    last_seen: datetime | None
    executors: tuple[Executor, ...]
    # How many there are that are not among them.
    more_executors: int = 0


def read_cluster(cluster: cluster_service_pb2.Cluster) -> Cluster:
    return Cluster(
        cluster_id=cluster.cluster_id,
        connected=cluster.connected,
        active=cluster.active,
        active_for_s=cluster.active_for_s,
        last_seen=instant(cluster.last_seen),
        executors=tuple(
            Executor(
                executor_id=executor.executor_id,
                replica_id=executor.replica_id,
                running=executor.running,
                max_concurrency=executor.max_concurrency,
                labels=dict(executor.capabilities.labels),
            )
            for executor in cluster.executors
        ),
        more_executors=cluster.more_executors,
    )
