"""The connections of this replica, and where a command should go."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.quotas import full
from broker.core.tokens import Name
from openline.errors import OpenlineError
from openline.ids import made_before
from openline.v1 import executor_service_pb2
from openline.v1.cluster_service_pb2 import ConnectedExecutor

# Ids of executors are their own word: a cluster's token opens as many streams as there are ids. Here, that is; how many
# of all replicas' are shown is another matter (`overview.MOST_EXECUTORS`).
MAX_EXECUTORS_OF_CLUSTER = 100

# One process of one executor: cluster id, executor id, instance id. The instance id alone would be anybody's word:
# whoever has a token of another cluster may say the same one.
Instance = tuple[str, str, str]


@dataclass(slots=True, eq=False)
class Connection:
    """One executor's live stream on this replica."""

    cluster_id: str
    executor_id: str
    instance_id: str
    epoch: int
    max_concurrency: int
    capabilities: executor_service_pb2.Capabilities
    versions: executor_service_pb2.Versions
    connected_at: Timestamp
    # Which of its process's streams it is, counted from 1; zero if the process does not count them.
    attempt: int = 0
    # SHA-256 of the executor token that it was opened with, or that was shown on it since; empty for a certificate.
    token: bytes = b""
    # The last one that was shown on it was wrong.
    token_refused: bool = False
    # Ids of the commands written to this executor and not done.
    commands: set[str] = field(default_factory=set)
    # It takes no more commands: its executor is stopping.
    draining: bool = False
    # Nor does this one: its executor was told to move to another replica.
    moving: bool = False
    # Output that has arrived and for which the stream has no new credit yet.
    uncredited_bytes: int = 0
    # Of a newer version of the contract, ignored.
    unknown_frames: int = 0
    instance: Instance = field(init=False)

    def __post_init__(self) -> None:
        self.instance = (self.cluster_id, self.executor_id, self.instance_id)

    def __repr__(self) -> str:
        state = "moving" if self.moving else "draining" if self.draining else "open"
        return f"<Connection {self.cluster_id}/{self.executor_id} epoch={self.epoch} {state} n={len(self.commands)}>"

    @property
    def names(self) -> dict[str, str | int]:
        """What a line of the log says that concerns it."""
        cluster_id, executor_id, instance_id = self.instance
        return {
            "cluster_id": cluster_id,
            "executor_id": executor_id,
            "instance_id": instance_id,
            "epoch": self.epoch,
        }

    @property
    def token_name(self) -> Name:
        return self.cluster_id, self.token

    def is_outdated_by(self, other: "Connection") -> bool:
        """Whether the other one is of a later process of the same executor, as far as the instance ids tell."""
        same = (self.cluster_id, self.executor_id) == (other.cluster_id, other.executor_id)
        return same and made_before(self.instance_id, other.instance_id)

    def was_given_up_for(self, other: "Connection | ConnectedExecutor") -> bool:
        """Whether its own process has opened the other one later, of the same executor: it does so one at a time."""
        return self.instance_id == other.instance_id and 0 < self.attempt < other.attempt

    @property
    def takes_commands(self) -> bool:
        return not self.draining and not self.moving

    @property
    def load(self) -> float:
        """Commands per place; over 1 means that some wait."""
        return len(self.commands) / self.max_concurrency

    @property
    def has_room(self) -> bool:
        """Whether it is worth sending more: a few that wait there keep its places busy, and the others wait here.

        What waits here can be cancelled for nothing, and takes turns.
        """
        return len(self.commands) < self.max_concurrency + max(1, self.max_concurrency // 4)


class Here(NamedTuple):
    """The command goes out on this connection."""

    connection: Connection


class Full(NamedTuple):
    """Every connection of the cluster has as many commands as it should."""

    cluster_id: str


class Nowhere(NamedTuple):
    """No executor of the cluster is connected to this replica."""

    cluster_id: str


Place = Here | Full | Nowhere


class Connections:
    """Who is connected to this replica: at most one connection for each executor of each cluster."""

    def __init__(self) -> None:
        self._by_cluster: dict[str, dict[str, Connection]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_cluster.values()))

    def __repr__(self) -> str:
        return f"<Connections {list(self)}>"

    def __iter__(self) -> Iterator[Connection]:
        return iter([c for of_cluster in self._by_cluster.values() for c in of_cluster.values()])

    def of_cluster(self, cluster_id: str) -> list[Connection]:
        return list(self._by_cluster.get(cluster_id, {}).values())

    def serve(self, cluster_id: str) -> bool:
        """Whether there is a connection of the cluster that takes commands."""
        return any(connection.takes_commands for connection in self.of_cluster(cluster_id))

    def clusters(self) -> list[str]:
        return list(self._by_cluster)

    def of_executor(self, cluster_id: str, executor_id: str) -> Connection | None:
        """The connection that this executor has now, whichever instance's."""
        return self._by_cluster.get(cluster_id, {}).get(executor_id)

    def of_instance(self, instance: Instance) -> Connection | None:
        """The connection that this executor has now, if it is this instance's."""
        cluster_id, executor_id, _ = instance
        current = self.of_executor(cluster_id, executor_id)
        return current if current is not None and current.instance == instance else None

    def check_room(self, cluster_id: str, executor_id: str) -> None:
        """Raises QUOTA_EXCEEDED where the cluster has as many executors here as it may, and this is one more."""
        of_cluster = self._by_cluster.get(cluster_id, {})
        if executor_id not in of_cluster and len(of_cluster) >= MAX_EXECUTORS_OF_CLUSTER:
            raise OpenlineError(full(MAX_EXECUTORS_OF_CLUSTER, "too many executors of this cluster are connected here"))

    def add(self, connection: Connection) -> Connection | None:
        """Registers a connection; returns the one it replaces. The newest connection of an executor wins."""
        of_cluster = self._by_cluster.setdefault(connection.cluster_id, {})
        replaced = of_cluster.get(connection.executor_id)
        of_cluster[connection.executor_id] = connection
        return replaced

    def remove(self, connection: Connection) -> bool:
        """Takes a connection out; False when it was replaced before, which leaves its successor alone."""
        of_cluster = self._by_cluster.get(connection.cluster_id, {})
        if of_cluster.get(connection.executor_id) is not connection:
            return False
        del of_cluster[connection.executor_id]
        if not of_cluster:
            del self._by_cluster[connection.cluster_id]
        return True

    def place(self, cluster_id: str) -> Place:
        """The least loaded connection of the cluster that takes commands."""
        best, least = None, float("inf")
        for connection in self._by_cluster.get(cluster_id, {}).values():
            if connection.takes_commands and (load := connection.load) < least:
                best, least = connection, load
        if best is None:
            return Nowhere(cluster_id)
        return Here(best) if best.has_room else Full(cluster_id)
