"""What answers look like, by the name of their schema: really given ones. A test holds them to the models."""

from typing import Any

from gateway.cluster_examples import CLUSTER_EXAMPLES
from openline.next_steps import NEXT_STEPS
from openline.reasons import Reason

_ID = "01a223f6-56f4-77ec-8c7b-86651edb4bd4"
_TIMINGS = {
    "queue_ms": 0.0,
    "route_ms": 0.0,
    "deliver_ms": 3.1,
    "run_ms": 15.5,
    "return_ms": 0.0,
    "total_ms": 18.6,
}
_DIGEST = "sha256:4b3ba34112800bd3f3a31027b32ca8f5795fd7a057c0045427681e1c659fc048"
_NOW = "2026-11-28T21:01:16.422564Z"
_PROBLEM = {
    "type": "urn:openline:problem:cluster_offline",
    "title": "Cluster offline",
    "status": 503,
    "detail": "no executor of cluster 'prod-west' is connected",
    "instance": "/v1/clusters/prod-west/commands",
    "reason": "CLUSTER_OFFLINE",
    "executed": "no",
    "retryable": True,
    "next_step": NEXT_STEPS[Reason.CLUSTER_OFFLINE],
    "request_id": "01a223f6-5b86-74d8-b1a4-39f20fe9b5e3",
    "correlation_id": "01a223f6-5b86-74d8-b1a4-39f3c486eba3",
    "cluster_id": "prod-west",
    "last_seen": "2026-11-28T20:58:02.120Z",
}

_LISTED: dict[str, Any] = {
    "command_id": _ID,
    "cluster_id": "prod-east",
    "session_id": None,
    "correlation_id": None,
    "argv": ["logs", "web-0", "-n", "shop"],
    "state": "done",
    "outcome": "exited",
    "exit_code": 0,
    "success": True,
    "error": None,
    "executor_id": "executor-0",
    "truncated": False,
    "timings": _TIMINGS,
    "created_at": "2026-11-28T21:01:16.405260Z",
    "observed_at": _NOW,
    "served_from": "run",
    "run_by_command_id": None,
    "age_s": 0.0,
    "links": {
        "self": f"/v1/commands/{_ID}",
        "output": f"/v1/commands/{_ID}/output",
        "events": f"/v1/commands/{_ID}/events",
    },
}

EXAMPLES: dict[str, dict[str, Any]] = CLUSTER_EXAMPLES | {
    "CommandAnswer": _LISTED
    | {
        "digest": _DIGEST,
        "not_modified": False,
        "stdout": "101 INFO ok\n149 INFO ok\n150 ERROR timeout\n151 INFO ok\n",
        "stderr": "",
        "shaping": {
            "stdout": {
                "total": {"chars": 2316, "lines": 200},
                "selected": None,
                "left_out_by_grep": {"chars": 2164, "lines": 189},
                "left_out_by_tail": {"chars": 68, "lines": 5},
                "before": {"chars": 0, "lines": 0},
                "shown": {"chars": 54, "lines": 4},
                "after": {"chars": 30, "lines": 2},
            },
            "stderr": None,
            "jsonpath_matches": None,
            "jsonpath_error": None,
            "grep_matches": 4,
            "next_cursor": "WyIwMWEyMjNmNi01NmY0LTc3ZWMtOGM3Yi04NjY1MWVkYjRiZDQiLDU0LG51bGwsIkVSUk9SIiwxLDYsNjBd",
        },
        "encoding_replaced": False,
        "masked_values": 0,
        "bounded": ["--limit-bytes=16777216", "--tail=20000"],
        "hint": None,
        "stdout_summary": {"total_bytes": 2316, "total_lines": 200, "cut_bytes": 0, "cut_lines": 0},
        "stderr_summary": {"total_bytes": 0, "total_lines": 0, "cut_bytes": 0, "cut_lines": 0},
    },
    "CommandPage": {
        "commands": [_LISTED],
        "count": 1,
        "next_cursor": _ID,
    },
    "ExecuteAnswer": {
        "command_id": _ID,
        "session_id": None,
        "cluster_id": "prod-east",
        "status": "failure",
        "success": False,
        "correlation_id": "c-1",
        "output": '\nError from server (NotFound): pods "web-9" not found\n',
        "error": 'Error from server (NotFound): pods "web-9" not found',
        "stdout": "",
        "stderr": 'Error from server (NotFound): pods "web-9" not found\n',
        "exit_code": 1,
        "truncated": False,
        "total_bytes": 53,
        "encoding_replaced": False,
        "masked_values": 0,
        "bounded": [],
        "execution_time_ms": 16,
        "executed_at": _NOW,
        "timings": _TIMINGS,
        "executor_id": "executor-0",
        "observed_at": _NOW,
        "hint": "This was asked for 3 times in the last 40 s, with the same result each time. Use what you have, …",
        "served_from": "run",
        "age_s": 0.0,
    },
    "ValidateAnswer": {
        "allowed": False,
        "rule": "resource",
        "detail": "'configmaps' may not be read here",
        "instead": "every type but secrets, configmaps",
        "nearest": None,
        "next_step": NEXT_STEPS[Reason.POLICY_DENIED],
        "argv": None,
        "policy": "cluster",
    },
    "OperationAnswer": {"operation_id": _ID, "status": "pending", "poll_url": f"/debug/operations/{_ID}"},
    "FanoutAnswer": {
        "summary": "both clusters the same; 1 failed: prod-west (CLUSTER_OFFLINE)",
        "groups": [
            {
                "clusters": ["prod-east", "prod-north"],
                "digest": "sha256:1eb2da41ec1d7777f7fe10b607a16af0bc7e68fb5d0c1954cd791bcafdad14ef",
                "exit_code": 0,
                "output": "NAME    READY   STATUS    RESTARTS   AGE\nweb-0   1/1     Running   0          4d\n",
                "stderr": "",
                "shaping": None,
            }
        ],
        "results": [
            {
                "cluster_id": cluster_id,
                "command_id": command_id,
                "executor_id": "executor-0",
                "exit_code": 0,
                "success": True,
                "digest": _DIGEST,
                "truncated": False,
                "timings": _TIMINGS,
                "observed_at": _NOW,
                "served_from": "run",
            }
            for cluster_id, command_id in (
                ("prod-east", "01a223f6-5b25-7786-a91c-4001ac7775fe"),
                ("prod-north", "01a223f6-5b25-7786-a91c-400223315382"),
            )
        ],
        "problems": [
            _PROBLEM
            | {
                "instance": "/v1/fanout",
                "command_id": "01a223f6-5b25-7786-a91c-4003ffa66390",
                "retry_after_s": 5,
            }
        ],
        "labels_unknown": [],
    },
    "CancelAnswer": {"command_id": _ID, "state": "running"},
    "HealthAnswer": {
        "status": "healthy",
        "brokers": [{"address": "broker-0:50051", "connected": True, "replica_id": "broker-a", "degraded": False}],
        "version": "0.1.0",
    },
    "AuditAnswer": {
        "entries": [
            {
                "timestamp": _NOW,
                "action": "execute",
                "owner": "sre-agent",
                "cluster_id": "prod-east",
                "session_id": None,
                "correlation_id": "c-1",
                "command_id": _ID,
                "command": "logs web-0 -n shop",
                "status": "success",
                "reason": None,
                "exit_code": 0,
                "executed": "yes",
                "execution_time_ms": 16,
                "executor_id": "executor-0",
                "replica_id": "broker-a",
                "detail": None,
            }
        ],
        "count": 1,
        "next_cursor": None,
    },
    "Problem": _PROBLEM,
}
