"""Contract to REST for /admin, in the shapes of `admin_models`."""

from datetime import UTC, datetime

from gateway.admin_models import AgentListed, AgentStatusAnswer, TokenAnswer, TokenListed
from gateway.answers import capabilities, instant
from openline.v1 import admin_service_pb2, cluster_service_pb2


def token_answer(created: admin_service_pb2.CreateExecutorTokenResponse) -> TokenAnswer:
    token = created.executor_token
    return TokenAnswer(
        token=created.token,
        tokenId=token.token_id,
        clusterId=token.cluster_id,
        createdAt=instant(token.created_at) or datetime.now(UTC),
        expiresAt=instant(token.expires_at),
    )


def token_listed(token: admin_service_pb2.ExecutorToken) -> TokenListed:
    return TokenListed(
        tokenId=token.token_id,
        clusterId=token.cluster_id,
        createdAt=instant(token.created_at),
        expiresAt=instant(token.expires_at),
    )


def agent_listed(cluster: cluster_service_pb2.Cluster) -> AgentListed:
    return AgentListed(id=cluster.cluster_id, connected=cluster.connected, lastSeen=instant(cluster.last_seen))


def agent_status(cluster: cluster_service_pb2.Cluster) -> AgentStatusAnswer:
    first = min(cluster.executors, key=lambda executor: executor.executor_id, default=None)
    return AgentStatusAnswer(
        id=cluster.cluster_id,
        connected=cluster.connected,
        status="connected" if cluster.connected else "disconnected",
        lastSeen=instant(cluster.last_seen),
        version=first.versions.executor or None if first is not None else None,
        kubernetesVersion=first.versions.kubernetes or None if first is not None else None,
        capabilities=capabilities(first) if first is not None else None,
        mode="readOnly" if first is not None else None,
    )
