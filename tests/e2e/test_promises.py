"""Promises of the README's table that a demo can show; `test_delivery` has those that need a connection to be cut."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


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


def _ttl(demo: Any, key: str) -> int:
    for _ in range(100):
        if (ttl := int(demo.redis.ttl(key))) > 0:
            return ttl
        time.sleep(0.02)
    pytest.fail(f"{key} was not written")
