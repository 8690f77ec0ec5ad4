"""Contract to REST for /admin/overview, in the shapes of `overview_models`."""

import math
from typing import Any

from gateway.answers import instant
from gateway.cluster_answers import versions_answer
from gateway.command_answers import ENDS, state_name
from gateway.command_models import State
from gateway.overview_models import (
    ClusterListed,
    CommandEnded,
    CommandRunning,
    DurationsShown,
    EndCount,
    ExecutorListed,
    FiguresShown,
    OverviewAnswer,
    ReplicaShown,
)
from openline.v1 import cluster_service_pb2, command_pb2, overview_pb2


def overview_answer(overview: overview_pb2.Overview) -> OverviewAnswer:
    return OverviewAnswer(
        at=instant(overview.at),
        replica_id=overview.replica_id,
        is_whole=overview.is_whole,
        replicas=[_replica(replica) for replica in overview.replicas],
        clusters=[_cluster(cluster) for cluster in overview.clusters],
        more_clusters=overview.more_clusters,
        connected_clusters=overview.connected_clusters,
        active_clusters=overview.active_clusters,
        commands=[_running(command) for command in overview.commands],
        more_commands=overview.more_commands,
        ended=[_ended(command) for command in overview.ended],
    )


def _replica(shown: overview_pb2.ReplicaOverview) -> ReplicaShown:
    replica = shown.replica
    in_flight: dict[State, int] = {}
    for count in shown.in_flight:
        name = state_name(count.state)
        in_flight[name] = in_flight.get(name, 0) + count.commands
    return ReplicaShown(
        replica_id=replica.replica_id,
        address=replica.address,
        started_at=instant(replica.started_at),
        is_reachable=shown.reachable,
        is_draining=replica.draining,
        executors=replica.executors,
        version=shown.version,
        in_flight=in_flight,
        figures=_figures(shown.figures) if shown.HasField("figures") else None,
    )


def _figures(figures: overview_pb2.Figures) -> FiguresShown:
    return FiguresShown(
        ends=[
            EndCount(
                outcome=count.outcome, reason=count.reason or None, is_agent_call=count.agent_call, count=count.count
            )
            for count in figures.ends
        ],
        total=_durations(figures.total),
        stages={each.stage: _durations(each.durations) for each in figures.stages},
        loop_lag=_durations(figures.loop_lag),
        forwarded=figures.forwarded,
        output_bytes=figures.output_bytes,
        is_redis_degraded=figures.redis_degraded,
        redis_writes_waiting=figures.redis_writes_waiting,
    )


def _durations(durations: overview_pb2.Durations) -> DurationsShown:
    return DurationsShown(bounds_s=list(durations.bounds_s), counts=list(durations.counts), sum_s=durations.sum_s)


def _cluster(cluster: cluster_service_pb2.Cluster) -> ClusterListed:
    return ClusterListed(
        cluster_id=cluster.cluster_id,
        is_connected=cluster.connected,
        is_active=cluster.active,
        active_for_seconds=math.ceil(cluster.active_for_s),
        last_seen=instant(cluster.last_seen),
        executors=[_executor(executor) for executor in cluster.executors],
        more_executors=cluster.more_executors,
    )


def _executor(executor: cluster_service_pb2.ConnectedExecutor) -> ExecutorListed:
    return ExecutorListed(
        executor_id=executor.executor_id,
        replica_id=executor.replica_id,
        connected_at=instant(executor.connected_at),
        is_moving=executor.moving,
        running=executor.running,
        max_concurrency=executor.max_concurrency,
        versions=versions_answer(executor.versions),
    )


def _running(shown: overview_pb2.CommandOverview) -> CommandRunning:
    command = shown.command
    return CommandRunning(
        **_outline(command),
        state=state_name(command.state),
        elapsed_s=shown.elapsed_s,
        running_s=shown.running_s,
        executor_id=shown.executor_id,
        replica_id=shown.replica_id,
        is_live=command.live,
        is_cancelling=shown.cancelling,
    )


def _ended(shown: overview_pb2.EndedCommand) -> CommandEnded:
    exited = shown.outcome == command_pb2.OUTCOME_EXITED
    return CommandEnded(
        **_outline(shown.command),
        outcome=ENDS.get(shown.outcome),
        exit_code=shown.exit_code if exited else None,
        reason=shown.reason or None,
        total_s=shown.total_s,
        ended_s_ago=shown.ended_s_ago,
        executor_id=shown.executor_id,
        replica_id=shown.replica_id,
    )


def _outline(command: command_pb2.Command) -> dict[str, Any]:
    """As `CommandOutline`."""
    return {
        "command_id": command.command_id,
        "cluster_id": command.cluster_id,
        "owner": command.owner,
        "argv": list(command.argv),
        "session_id": command.session_id or None,
        "correlation_id": command.correlation_id or None,
        "created_at": instant(command.created_at),
    }
