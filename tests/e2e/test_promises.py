"""Promises of the README's table that a demo can show; `test_delivery` has those that need a connection to be cut."""

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from openline.v1 import admin_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub


def test_an_execute_arrives_for_a_cluster_with_or_without_a_session(demo: Any) -> None:
    """The cluster is marked active for 60 s and the command goes down the open stream at once."""
    demo.redis.delete("cluster:active:local")
    answer = demo.execute("pods").json()
    assert (answer["status"], answer["exit_code"], answer["session_id"]) == ("success", 0, None)
    assert answer["output"].startswith("NAME")
    # Written behind the answer, so it may be a moment later.
    assert _ttl(demo, "cluster:active:local") in range(1, 61)
    assert demo.get("/cluster/local/status").json()["is_active"] is True

    session = demo.post("/debug/session", {"cluster_id": "local"}).json()
    demo.redis.delete("cluster:active:local")
    time.sleep(1.1)  # activity is written once a second
    answer = demo.execute("pods", session_id=session["session_id"]).json()
    assert (answer["status"], answer["session_id"]) == ("success", session["session_id"])
    assert _ttl(demo, "cluster:active:local") in range(1, 61)


def test_no_executor_is_connected(own_demo: Any, eventually: Any) -> None:
    """The caller is told at once, with `last_seen` and when to retry."""
    os.kill(own_demo.pids["executor-local"], signal.SIGKILL)
    eventually(lambda: own_demo.execute("pods").status_code == 503)
    answer = own_demo.execute("pods")
    problem = answer.json()
    assert problem["reason"] == "CLUSTER_OFFLINE"
    assert (problem["executed"], problem["retryable"]) == ("no", True)
    assert problem["last_seen"].startswith("20")
    assert int(answer.headers["Retry-After"]) > 0
    assert own_demo.get("/cluster/local/status").json()["is_connected"] is False


def test_the_deadline_passes(demo: Any) -> None:
    """The process group in the cluster is killed, and the caller gets the output so far."""
    started = time.monotonic()
    answer = demo.execute("pods", namespace="slow", timeout_seconds=1).json()
    # The demo's API server takes 3 s for that namespace.
    assert time.monotonic() - started < 3
    assert (answer["status"], answer["success"]) == ("timeout", False)


def test_an_executor_process_dies(own_demo: Any) -> None:
    """Its commands end lost after the grace, and are never sent twice; whether they ran is not known."""
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(own_demo.execute, "pods", namespace="slow", timeout_seconds=60)
        time.sleep(1)
        os.kill(own_demo.pids["executor-local"], signal.SIGKILL)
        answer = asked.result()
    problem = answer.json()
    assert (answer.status_code, problem["reason"], problem["executed"]) == (502, "EXECUTOR_LOST", "unknown")


def test_a_token_is_revoked(demo: Any, make_program: Any, tmp_path: Path, eventually: Any) -> None:
    """Its open streams close within a second, on whichever replica; with another token the executor is back."""
    first = demo.post("/admin/agents/fresh/token", {}).json()["token"]
    (tmp_path / "token").write_text(first)
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho '{}'\n")
    (tmp_path / "kubectl").chmod(0o755)
    holds, other = demo.brokers
    executor = make_program(
        "executor", "", Path(sys.executable).parent / "openline-executor", "--broker", holds, "--cluster-id", "fresh",
        "--token-file", tmp_path / "token", "--kubectl", tmp_path / "kubectl", "--log-format", "json",
    )  # fmt: skip
    executor.begin()
    try:
        eventually(lambda: executor.said("connection.opened"))
        command = demo.post("/debug/execute", {"cluster_id": "fresh", "args": ["pods"]}).json()
        with grpc.insecure_channel(other) as channel:
            admin = AdminServiceStub(channel)
            metadata = (("x-api-key", "test-key"),)
            [old] = admin.ListExecutorTokens(
                pb.ListExecutorTokensRequest(cluster_id="fresh"), metadata=metadata
            ).executor_tokens
            # Two are good at one time: the next one is in place before this one is revoked.
            (tmp_path / "token").write_text(demo.post("/admin/agents/fresh/token", {}).json()["token"])
            for token_id in (old.token_id, ""):
                revoked_at = datetime.now(UTC)
                request = pb.RevokeExecutorTokenRequest(cluster_id="fresh", token_id=token_id)
                assert admin.RevokeExecutorToken(request, metadata=metadata).revoked == 1
                closed = 1 if token_id else 2
                eventually(lambda closed=closed: executor.said("connection.closed", status="UNAUTHENTICATED") == closed)
                assert _last(executor, "connection.closed") - revoked_at < timedelta(seconds=1)
                if token_id:
                    eventually(lambda: executor.said("connection.opened") == 2)
        eventually(lambda: executor.said("connection.failed", status="UNAUTHENTICATED"))
        refused = demo.post("/debug/execute", {"cluster_id": "fresh", "args": ["pods"]})
        assert (refused.status_code, refused.json()["reason"]) == (404, "CLUSTER_UNKNOWN")
        assert demo.get(f"/v1/commands/{command['command_id']}").json()["state"] == "done"
    finally:
        executor.close()


def test_a_token_is_replaced_without_a_gap(demo: Any, make_program: Any, tmp_path: Path, eventually: Any) -> None:
    """Another is written to the file and shown on the open stream, the first one revoked: what runs never notices."""
    path = "/admin/agents/rotated/token"
    first = demo.post(path, {}).json()
    (tmp_path / "token").write_text(first["token"])
    (tmp_path / "kubectl").write_text('#!/bin/sh\n[ "$1" = get ] || { echo "{}"; exit 0; }\nsleep 6\necho done\n')
    (tmp_path / "kubectl").chmod(0o755)
    executor = make_program(
        "rotated", "", Path(sys.executable).parent / "openline-executor", "--broker", demo.brokers[0],
        "--cluster-id", "rotated", "--token-file", tmp_path / "token", "--kubectl", tmp_path / "kubectl",
        "--log-format", "json",
    )  # fmt: skip
    executor.begin()
    try:
        eventually(lambda: executor.said("connection.opened"))
        asked = {"cluster_id": "rotated", "args": ["pods"], "timeout_seconds": 60}
        with ThreadPoolExecutor() as pool:
            running = pool.submit(demo.post, "/debug/execute", asked)
            second = demo.post(path, {"ttl_seconds": 3600}).json()
            (tmp_path / "token").write_text(second["token"])
            eventually(lambda: executor.said("token.shown"))
            revoked = httpx.delete(
                f"{demo.url}{path}", params={"token_id": first["tokenId"]}, headers={"X-API-Key": "test-key"}
            )
            assert revoked.status_code == 204
            answer = running.result().json()
        assert (answer["status"], answer["stdout"]) == ("success", "done\n")
        [token] = demo.get(f"{path}s").json()["tokens"]
        assert token["tokenId"] == second["tokenId"]
        assert (executor.said("connection.opened"), executor.said("connection.closed")) == (1, 0)
    finally:
        executor.close()
    assert second["token"] not in executor.log.read_text()


def _last(program: Any, event: str) -> datetime:
    """When it last logged this."""
    lines = [json.loads(line) for line in program.log.read_text().splitlines() if f'"{event}"' in line]
    return datetime.fromisoformat(lines[-1]["timestamp"])


def _ttl(demo: Any, key: str) -> int:
    for _ in range(100):
        if (ttl := int(demo.redis.ttl(key))) > 0:
            return ttl
        time.sleep(0.02)
    pytest.fail(f"{key} was not written")
