"""What somebody sees who starts the demo for the first time."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

CURL = ["curl", "--silent", "--show-error", "--max-time", "30", "-X", "POST", "-H", "X-API-Key: test-key"]
BODY = '{"cluster_id": "local", "command_type": "get", "args": ["pods"], "namespace": "default"}'


def curl(demo: Any, *more: str) -> dict[str, Any]:
    """The documented call: curl sends no JSON content type."""
    run = subprocess.run(
        [*CURL, *more, "-d", BODY, f"{demo.url}/debug/execute"], capture_output=True, text=True, timeout=60, check=True
    )
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def test_the_documented_curl_calls_work_unchanged(demo: Any) -> None:
    """Without and with a correlation id, one at a time and three at once."""
    assert curl(demo)["status"] == "success"
    assert curl(demo, "-H", "X-Correlation-ID: test-a2a-123")["correlation_id"] == "test-a2a-123"
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda i: curl(demo, "-H", f"X-Correlation-ID: test-batch-{i}"), range(1, 4)))
    assert [answer["correlation_id"] for answer in answers] == ["test-batch-1", "test-batch-2", "test-batch-3"]
    assert all("toolbox" in answer["output"] for answer in answers)


def test_an_agent_call_is_in_the_brokers_log(demo: Any) -> None:
    """By its correlation id, and as an agent call; the output and the command are not."""
    curl(demo, "-H", "X-Correlation-ID: find-me-again")
    until = time.monotonic() + 10
    # The line is written once the caller has its answer.
    while not (lines := [line for line in demo.log_lines("broker") if "find-me-again" in line]):
        assert time.monotonic() < until
        time.sleep(0.05)
    [line] = lines
    assert " audit " in line
    assert "agent_call=True" in line
    assert "toolbox" not in line


def test_a_session_is_kept_alive_by_its_commands(demo: Any, eventually: Any) -> None:
    """Its expiry moves on with each, a moment after the answer."""
    session = demo.post("/debug/session", {"cluster_id": "local", "ttl_seconds": 60})
    assert session.status_code == 201
    path = f"/debug/session/{session.json()['session_id']}"
    time.sleep(1.1)
    demo.execute("pods", session_id=session.json()["session_id"])
    eventually(lambda: demo.get(path).json()["expires_at"] > session.json()["expires_at"])


def test_a_slow_command_does_not_hold_up_others(demo: Any) -> None:
    """Ten commands on the same cluster finish while one takes a minute, which is then stopped."""
    with ThreadPoolExecutor(max_workers=11) as pool:
        slow = pool.submit(demo.execute, "pods", namespace="stuck", timeout_seconds=60, correlation_id="slow")
        command_id = demo.running("slow")
        quick = [pool.submit(demo.execute, "pods") for _ in range(10)]
        assert [each.result().json()["status"] for each in quick] == ["success"] * 10
        assert not slow.done()
        demo.delete(f"/v1/commands/{command_id}")
        assert slow.result().json()["status"] == "cancelled"


def test_a_crash_loop_can_be_diagnosed(demo: Any) -> None:
    """From pods to events to the log of the container that died: the way an AI agent would go."""
    pods = demo.execute("pods", "-A", "--no-headers").json()["output"]
    # The status comes and goes with each start of the container; that it was restarted many times stays.
    namespace, pod = max((line.split() for line in pods.splitlines()), key=lambda row: int(row[4]))[:2]
    described = demo.execute("pod", pod, command_type="describe", namespace=namespace).json()["output"]
    assert "Back-off restarting failed container" in described
    log = demo.execute(pod, "--previous", command_type="logs", namespace=namespace).json()
    assert log["status"] == "success", log
    assert log["output"].strip()


def test_what_is_not_allowed_is_refused(demo: Any) -> None:
    """Deny by default: the executor says so, and nothing ran."""
    refused = demo.execute("pod", "toolbox", command_type="delete")
    assert refused.status_code == 422  # not a verb of this surface
    refused = demo.execute("secrets")
    assert (refused.status_code, refused.json()["reason"], refused.json()["executed"]) == (403, "POLICY_DENIED", "no")


def test_ctrl_c_leaves_no_process_behind(own_demo: Any) -> None:
    """It ends with code 0, and everything it started is gone."""
    own_demo.process.send_signal(signal.SIGINT)
    assert own_demo.process.wait(timeout=30) == 0
    assert [name for name, pid in own_demo.pids.items() if _alive(pid)] == []


def test_a_demo_killed_with_9_leaves_no_process_behind(own_demo: Any, eventually: Any) -> None:
    """The programs do not outlive the demo, however it ends."""
    own_demo.process.kill()
    eventually(lambda: not any(map(_alive, own_demo.pids.values())))


def test_a_port_in_use_is_one_line(demo: Any) -> None:
    """Named, with what to do about it."""
    port = demo.url.rpartition(":")[2]
    command = [str(Path(sys.executable).parent / "openline-demo"), "--port", port]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr.count("\n")) == (1, 1)
    assert port in run.stderr


@pytest.mark.parametrize("program", ["broker", "executor", "gateway", "demo", "loadtest"])
def test_a_bad_flag_is_one_line(program: str) -> None:
    """Exit code 2, and the flag's name."""
    command = [str(Path(sys.executable).parent / f"openline-{program}"), "--bogus"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "--bogus" in run.stderr


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed child of a dead demo may be a zombie of whoever inherited it.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
