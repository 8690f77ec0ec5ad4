"""What answers about clusters, sessions and executors look like, by the name of their schema."""

from typing import Any

_NOW = "2026-11-28T21:01:16.422564Z"
_SESSION = {
    "session_id": "01a223f6-6000-7000-8000-000000000001",
    "cluster_id": "prod-east",
    "status": "active",
    "created_at": "2026-11-28T21:01:16Z",
    "expires_at": "2026-11-28T21:06:16Z",
    "ttl_seconds": 300,
    "correlation_id": None,
    "service_identity": None,
}
_SESSION_SHOWN = _SESSION | {"user_id": "ana", "last_used_at": _NOW, "command_count": 3}
_POLICY = {
    "digest": "5d0f7c1b2a9e4f63",
    "resources": {"allowed": None, "denied": ["configmaps"]},
    "namespaces": {"allowed": ["shop", "team-*"], "denied": []},
    "max_output_bytes": 1048576,
    "masks_secrets": True,
    "masks_values": True,
}
_CAPABILITIES = {
    "executor_id": "executor-0",
    "verbs": ["describe", "get", "logs"],
    "policy": _POLICY,
    "streaming": True,
    "labels": {"env": "prod", "region": "eu"},
    "max_concurrency": 8,
    "versions": {"executor": "0.1.0", "kubectl": "v1.37.1", "kubernetes": "v1.37.1"},
}
_CLUSTER = {
    "cluster_id": "prod-east",
    "is_connected": True,
    "is_active": True,
    "active_for_seconds": 60,
    "has_active_session": False,
    "last_seen": _NOW,
    "labels": {"env": "prod", "region": "eu"},
    "replicas": ["broker-a"],
    "executors": [
        {
            "executor_id": "executor-0",
            "replica_id": "broker-a",
            "connected_at": "2026-11-28T21:01:15.269400Z",
            "is_moving": False,
            "running": 1,
            "max_concurrency": 8,
            "verbs": ["describe", "get", "logs"],
            "policy": _POLICY,
            "streaming": True,
            "labels": {"env": "prod", "region": "eu"},
            "versions": {"executor": "0.1.0", "kubectl": "v1.37.1", "kubernetes": "v1.37.1", "protocol": 1},
        }
    ],
    "more_executors": 0,
}
_KEY: dict[str, Any] = {
    "key_id": "4f0c2a91be73d865",
    "owner": "sre-agent",
    "scopes": ["execute", "read", "session"],
    "clusters": ["prod-*", "staging"],
    "created_at": _NOW,
    "expires_at": None,
    "quota": {"commands_per_minute": 600, "in_flight": 20},
}

CLUSTER_EXAMPLES: dict[str, dict[str, Any]] = {
    "ClusterShown": _CLUSTER,
    "ClusterPage": {"clusters": [_CLUSTER], "count": 1, "next_page_token": None},
    "ClustersAnswer": {"clusters": ["prod-east", "prod-west"], "count": 2},
    "ClusterAnswer": {
        "clusterId": "prod-east",
        "status": {"hasToken": True, "hasActiveSession": False, "executorReporting": True},
        "capabilities": _CAPABILITIES,
        "ttlRemaining": 58,
    },
    "ClusterStatusAnswer": {
        "cluster_id": "prod-east",
        "is_active": True,
        "active_for_seconds": 58,
        "is_connected": True,
        "last_seen": _NOW,
        "executors": 1,
    },
    "CapabilitiesAnswer": {"clusterId": "prod-east", "capabilities": _CAPABILITIES, "available": True},
    "SessionAnswer": _SESSION,
    "SessionShown": _SESSION_SHOWN,
    "SessionPage": {
        "sessions": [_SESSION_SHOWN],
        "count": 1,
        "next_cursor": None,
    },
    "TokenAnswer": {
        "token": "qTr4v9n0Zc2mJx7bW5kLhS8dYf1gPa3eUoIiRtEwQyM",
        "tokenId": "b7Qm2xTz0aE",
        "clusterId": "prod-east",
        "createdAt": _NOW,
        "expiresAt": None,
    },
    "TokensAnswer": {
        "tokens": [
            {"tokenId": "b7Qm2xTz0aE", "clusterId": "prod-east", "createdAt": _NOW, "expiresAt": None},
            {"tokenId": "f91c7d03aa52", "clusterId": "prod-east", "createdAt": None, "expiresAt": None},
        ],
        "count": 2,
    },
    "KeyAnswer": _KEY | {"key": "mJx7bW5kLhS8dYf1gPa3eUoIiRtEwQyMqTr4v9n0Zc2"},
    "KeyPage": {"keys": [_KEY], "count": 1, "next_cursor": None},
    "CancelAllAnswer": {"cancelled": 12, "unreached_replica_ids": []},
    "CancelCommandsAnswer": {"cancelled": 2, "incomplete": False, "unreached_replica_ids": []},
    "LogLevelAnswer": {"level": "debug", "replica_ids": ["broker-0", "broker-1"], "unreached_replica_ids": []},
    "AgentsAnswer": {
        "clusters": [
            {"id": "prod-east", "connected": True, "lastSeen": _NOW},
            {"id": "prod-west", "connected": False, "lastSeen": None},
        ],
        "count": 2,
    },
    "AgentStatusAnswer": {
        "id": "prod-east",
        "connected": True,
        "status": "connected",
        "lastSeen": _NOW,
        "version": "0.1.0",
        "kubernetesVersion": "v1.37.1",
        "capabilities": _CAPABILITIES,
        "mode": "readOnly",
    },
}
