"""What all replicas have told, put together to one overview: their commands, their figures, and the clusters."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from broker.own_overview import MOST_COMMANDS, MOST_ENDED
from broker.rpc.everywhere import Told
from openline.reasons import Reason
from openline.v1 import cluster_service_pb2, command_pb2, overview_pb2

MOST_CLUSTERS = 2_000
# Together with the longest ids and versions they leave room for the rest in one message.
MOST_EXECUTORS_OF_CLUSTER = 20
MOST_EXECUTORS = 10_000

ConnectedExecutor = cluster_service_pb2.ConnectedExecutor


def merge(
    own: overview_pb2.Overview,
    told: Told[overview_pb2.GetOverviewResponse],
    known: Mapping[str, cluster_service_pb2.Replica],
) -> overview_pb2.Overview:
    """An overview without clusters. `known` is what Redis has of the other replicas, some of which may be silent."""
    parts = [own, *(answer.overview for answer in told.answers.values())]
    overview = overview_pb2.Overview(is_whole=own.is_whole, replica_id=own.replicas[0].replica.replica_id)
    overview.at.GetCurrentTime()
    replicas = [part.replicas[0] for part in parts if part.replicas]
    for replica_id in known.keys() - {replica.replica.replica_id for replica in replicas}:
        # One that answers, and has no overview, is of an older version.
        is_older = told.failed.get(replica_id) is Reason.NOT_BUILT
        silent = overview_pb2.ReplicaOverview(replica=known[replica_id], reachable=is_older)
        if not own.is_whole:
            # It is of all clusters, of which the key sees some.
            silent.replica.executors = 0
        replicas.append(silent)
    replicas += (
        overview_pb2.ReplicaOverview(replica=cluster_service_pb2.Replica(address=address)) for address in told.forgotten
    )
    overview.replicas.extend(sorted(replicas, key=lambda each: (each.replica.replica_id, each.replica.address)))
    for replica in overview.replicas:
        replica.ClearField("loads")
    _merge_commands(overview, parts, replicas)
    ended = sorted((each for part in parts for each in part.ended), key=lambda each: each.ended_s_ago)
    overview.ended.extend(ended[:MOST_ENDED])
    return overview


def _merge_commands(
    overview: overview_pb2.Overview,
    parts: Sequence[overview_pb2.Overview],
    replicas: Iterable[overview_pb2.ReplicaOverview],
) -> None:
    """A command that was forwarded is known twice, and is shown as the replica has it that runs it."""
    commands: dict[str, overview_pb2.CommandOverview] = {}
    for part in parts:
        for command in part.commands:
            known = commands.get(command.command.command_id)
            if known is None or known.command.state == command_pb2.COMMAND_STATE_FORWARDED:
                commands[command.command.command_id] = command
    oldest = sorted(commands.values(), key=lambda command: command.elapsed_s, reverse=True)
    overview.commands.extend(oldest[:MOST_COMMANDS])
    there_are = sum(
        count.commands
        for replica in replicas
        for count in replica.in_flight
        if count.state != command_pb2.COMMAND_STATE_FORWARDED
    )
    overview.more_commands = max(0, there_are - len(overview.commands))


@dataclass(slots=True)
class Loads:
    """What changes all the time of clusters and executors, by the word of the replicas that have answered."""

    # Until when a cluster is active, at least; in seconds from now.
    active_for_s: dict[str, float] = field(default_factory=dict)
    # By cluster, replica and executor; those that are not here have none.
    running: dict[tuple[str, str, str], int] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, parts: Iterable[overview_pb2.Overview]) -> "Loads":
        loads = cls()
        for part in parts:
            for replica in part.replicas:
                replica_id = replica.replica.replica_id
                loads.answered.add(replica_id)
                for load in replica.loads:
                    active_for_s = loads.active_for_s.get(load.cluster_id, 0.0)
                    loads.active_for_s[load.cluster_id] = max(active_for_s, load.active_for_s)
                    for executor in load.executors:
                        loads.running[load.cluster_id, replica_id, executor.executor_id] = executor.running
        return loads

    def running_on(self, cluster_id: str, executor: ConnectedExecutor) -> int:
        if executor.replica_id not in self.answered:
            return executor.running
        return self.running.get((cluster_id, executor.replica_id, executor.executor_id), 0)


class Fleet(Protocol):
    """What a replica knows of the clusters, in memory."""

    def is_connected(self, cluster_id: str) -> bool: ...

    def executors(self, cluster_id: str) -> Iterable[ConnectedExecutor]: ...


def add_clusters(
    overview: overview_pb2.Overview,
    cluster_ids: Sequence[str],
    fleet: Fleet,
    loads: Loads,
    last_seen: Callable[[str], Timestamp | None],
) -> None:
    """The clusters of these ids, which are sorted."""
    room = MOST_EXECUTORS
    for number, cluster_id in enumerate(cluster_ids):
        connected = fleet.is_connected(cluster_id)
        active_for_s = loads.active_for_s.get(cluster_id, 0.0)
        overview.connected_clusters += connected
        overview.active_clusters += active_for_s > 0
        if number >= MOST_CLUSTERS:
            overview.more_clusters += 1
            continue
        cluster = overview.clusters.add(
            cluster_id=cluster_id,
            connected=connected,
            active=active_for_s > 0,
            active_for_s=active_for_s,
            has_token=True,
            last_seen=None if connected else last_seen(cluster_id),
        )
        executors = sorted(fleet.executors(cluster_id), key=lambda each: each.executor_id)
        shown = executors[: min(MOST_EXECUTORS_OF_CLUSTER, room)]
        room -= len(shown)
        cluster.more_executors = len(executors) - len(shown)
        for executor in shown:
            cluster.executors.add(
                executor_id=executor.executor_id,
                replica_id=executor.replica_id,
                connected_at=executor.connected_at,
                versions=executor.versions,
                max_concurrency=executor.max_concurrency,
                running=loads.running_on(cluster_id, executor),
                moving=executor.moving,
            )
