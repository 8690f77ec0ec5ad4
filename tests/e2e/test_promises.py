"""Promises of the README's table that a demo can show; `test_delivery` has those that need a connection to be cut."""

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

from openline.v1 import admin_service_pb2 as pb
from openline.v1.admin_service_pb2_grpc import AdminServiceStub


def test_an_execute_arrives_for_a_cluster_with_or_without_a_session(demo: Any, eventually: Any) -> None:
    """The cluster is marked active for 60 s and the command goes down the open stream at once."""
    time.sleep(1.1)  # activity is written once a second
    demo.redis.delete("cluster:active:local")
    answer = demo.execute("pods").json()
    assert (answer["status"], answer["exit_code"], answer["session_id"]) == ("success", 0, None)
    assert answer["output"].startswith("NAME")
    # Written behind the answer, so it may be a moment later.
    eventually(lambda: demo.redis.ttl("cluster:active:local") in range(1, 61))
    assert demo.get("/cluster/local/status").json()["is_active"] is True

    session = demo.post("/debug/session", {"cluster_id": "local"}).json()
    demo.redis.delete("cluster:active:local")
    time.sleep(1.1)
    answer = demo.execute("pods", session_id=session["session_id"]).json()
    assert (answer["status"], answer["session_id"]) == ("success", session["session_id"])
    eventually(lambda: demo.redis.ttl("cluster:active:local") in range(1, 61))


def test_no_executor_is_connected(own_demo: Any, eventually: Any) -> None:
    """The caller is told at once, with `last_seen` and when to retry."""
    os.kill(own_demo.pids["executor-local"], signal.SIGKILL)
    answers: list[httpx.Response] = []

    def is_told() -> bool:
        """Since when, too: that is left out where Redis is longer about it than the caller is to wait."""
        answers.append(own_demo.execute("pods"))
        return "last_seen" in answers[-1].json()

    eventually(is_told)
    answer = answers[-1]
    problem = answer.json()
    assert answer.status_code == 503
    assert problem["reason"] == "CLUSTER_OFFLINE"
    assert (problem["executed"], problem["retryable"]) == ("no", True)
    assert problem["last_seen"].startswith("20")
    assert int(answer.headers["Retry-After"]) > 0
    assert own_demo.get("/cluster/local/status").json()["is_connected"] is False


def test_the_deadline_passes(demo: Any) -> None:
    """The process group in the cluster is killed, and the caller gets the output so far."""
    answer = demo.execute("pods", namespace="stuck", timeout_seconds=1).json()
    assert (answer["status"], answer["success"]) == ("timeout", False)


def test_an_executor_process_dies(own_demo: Any) -> None:
    """Its commands end lost after the grace, and are never sent twice; whether they ran is not known."""
    with ThreadPoolExecutor() as pool:
        body = {"namespace": "stuck", "timeout_seconds": 60, "wait_for_cluster_s": 20, "correlation_id": "lost"}
        asked = pool.submit(own_demo.execute, "pods", **body)
        own_demo.running("lost")
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
        asked = {"cluster_id": "fresh", "args": ["pods"]}
        command = demo.post("/debug/execute", {**asked, "wait_for_cluster_s": 20}).json()
        with grpc.insecure_channel(other) as channel:
            admin = AdminServiceStub(channel)
            metadata = (("x-api-key", "test-key"),)
            [old] = admin.ListExecutorTokens(
                pb.ListExecutorTokensRequest(cluster_id="fresh"), metadata=metadata
            ).executor_tokens
            # Two are good at one time: the next one is in place before this one is revoked.
            (tmp_path / "token").write_text(demo.post("/admin/agents/fresh/token", {}).json()["token"])
            took: list[timedelta] = []
            for token_id in (old.token_id, ""):
                revoked_at = datetime.now(UTC)
                request = pb.RevokeExecutorTokenRequest(cluster_id="fresh", token_id=token_id)
                assert admin.RevokeExecutorToken(request, metadata=metadata).revoked == 1
                closed = 1 if token_id else 2
                eventually(lambda closed=closed: executor.said("connection.closed", status="UNAUTHENTICATED") == closed)
                closed_at = datetime.fromisoformat(executor.lines("connection.closed")[-1]["timestamp"])
                took.append(closed_at - revoked_at)
                if token_id:
                    eventually(lambda: executor.said("connection.opened") == 2)
            # Not the slower one: the machine may have stood still for a moment.
            assert min(took) < timedelta(seconds=1)
        eventually(lambda: executor.said("connection.failed", status="UNAUTHENTICATED"))
        refused = demo.post("/debug/execute", asked)
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
        asked = {"cluster_id": "rotated", "args": ["pods"], "timeout_seconds": 60, "wait_for_cluster_s": 20}
        with ThreadPoolExecutor() as pool:
            running = pool.submit(demo.post, "/debug/execute", asked)
            second = demo.post(path, {"ttl_seconds": 3600}).json()
            (tmp_path / "token").write_text(second["token"])
            eventually(lambda: executor.said("token.shown"))
            assert demo.delete(f"{path}?token_id={first['tokenId']}").status_code == 204
            answer = running.result().json()
        assert (answer["status"], answer["stdout"]) == ("success", "done\n")
        [token] = demo.get(f"{path}s").json()["tokens"]
        assert token["tokenId"] == second["tokenId"]
        assert (executor.said("connection.opened"), executor.said("connection.closed")) == (1, 0)
    finally:
        executor.close()
    assert second["token"] not in executor.log.read_text()
