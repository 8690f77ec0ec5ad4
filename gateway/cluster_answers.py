"""Contract to REST for clusters and sessions on /v1, in the shapes of `cluster_models`."""

import math

from gateway.answers import capabilities, instant, session_answer
from gateway.cluster_models import CapabilitiesAnswer, ClusterShown, ExecutorAnswer, SessionShown, VersionsAnswer
from gateway.policies import policy_answer
from openline.v1 import cluster_service_pb2, executor_service_pb2, session_service_pb2


def cluster_shown(cluster: cluster_service_pb2.Cluster) -> ClusterShown:
    return ClusterShown(
        cluster_id=cluster.cluster_id,
        is_connected=cluster.connected,
        is_active=cluster.active,
        active_for_seconds=math.ceil(cluster.active_for_s),
        has_active_session=cluster.has_active_session,
        last_seen=instant(cluster.last_seen),
        labels=labels_of(cluster),
        replicas=sorted({executor.replica_id for executor in cluster.executors}),
        executors=[_executor(executor) for executor in _sorted(cluster)],
        more_executors=cluster.more_executors,
    )


def labels_of(cluster: cluster_service_pb2.Cluster) -> dict[str, str]:
    """Of all its executors; where two differ, the one that is first by its id is believed."""
    labels: dict[str, str] = {}
    for executor in _sorted(cluster):
        labels = dict(executor.capabilities.labels) | labels
    return dict(sorted(labels.items()))


def capabilities_answer(cluster: cluster_service_pb2.Cluster) -> CapabilitiesAnswer:
    first = next(iter(_sorted(cluster)), None)
    return CapabilitiesAnswer(
        clusterId=cluster.cluster_id,
        capabilities=capabilities(first) if first is not None else None,
        available=first is not None,
    )


def session_shown(session: session_service_pb2.Session) -> SessionShown:
    return SessionShown(
        **session_answer(session).model_dump(),
        user_id=session.user_id or None,
        last_used_at=instant(session.last_used_at),
        command_count=session.command_count,
    )


def _sorted(cluster: cluster_service_pb2.Cluster) -> list[cluster_service_pb2.ConnectedExecutor]:
    return sorted(cluster.executors, key=lambda executor: executor.executor_id)


def _executor(executor: cluster_service_pb2.ConnectedExecutor) -> ExecutorAnswer:
    return ExecutorAnswer(
        executor_id=executor.executor_id,
        replica_id=executor.replica_id,
        connected_at=instant(executor.connected_at),
        is_moving=executor.moving,
        running=executor.running,
        max_concurrency=executor.max_concurrency,
        verbs=list(executor.capabilities.verbs),
        policy=policy_answer(executor.capabilities),
        streaming=executor.capabilities.streaming,
        labels=dict(executor.capabilities.labels),
        versions=versions_answer(executor.versions),
    )


def versions_answer(versions: executor_service_pb2.Versions) -> VersionsAnswer:
    return VersionsAnswer(
        executor=versions.executor,
        kubectl=versions.kubectl,
        kubernetes=versions.kubernetes,
        protocol=versions.protocol,
    )
