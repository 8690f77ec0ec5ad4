"""Two processes of one executor that are in each other's way: the log says so, seldom."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broker import rivals
from broker.core.connections import Connection, Connections
from broker.core.directory import Directory
from broker.rivals import MAX_EXECUTORS, TELL_AT, WINDOW_S, Rivals
from openline.v1 import executor_service_pb2 as wire
from openline.v1.cluster_service_pb2 import ConnectedExecutor

LATER_S = WINDOW_S + 1.0


def connection(instance_id: str = "i-1", *, executor_id: str = "exec-1") -> Connection:
    return Connection(
        cluster_id="prod",
        executor_id=executor_id,
        instance_id=instance_id,
        epoch=1,
        max_concurrency=4,
        capabilities=wire.Capabilities(),
        versions=wire.Versions(),
        connected_at=Timestamp(),
    )


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def directory() -> Directory:
    return Directory("r1")


@pytest.fixture
def met(
    connections: Connections, directory: Directory, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> Callable[..., list[dict[str, Any]]]:
    """Has connections go at an instant, so many times; all lines so far."""
    both = Rivals(connections, directory)

    def meet(one: Connection, *, times: int = TELL_AT, now: float = 0.0) -> list[dict[str, Any]]:
        monkeypatch.setattr(rivals, "monotonic", lambda: now)
        for _ in range(times):
            both.met(one)
        return log_lines

    return meet


def test_two_that_throw_each_other_out_are_told_of(connections: Connections, met: Any) -> None:
    """With what to look for in the log; once a minute, and not for what a restart does."""
    connections.add(connection("i-2"))
    assert met(connection("i-1"), times=TELL_AT - 1) == []
    assert met(connection("i-1"), times=TELL_AT - 1, now=LATER_S) == []
    [line] = met(connection("i-1"), times=100, now=LATER_S + 1.0)
    assert (line["event"], line["log_level"]) == ("executor.id_shared", "warning")
    assert (line["cluster_id"], line["executor_id"]) == ("prod", "exec-1")
    assert line["instance_ids"] == ["i-1", "i-2"]
    assert "--executor-id" in line["why"]
    assert len(met(connection("i-1"), times=100, now=2 * LATER_S + 1.0)) == 2


def test_also_when_the_other_one_is_on_another_replica(directory: Directory, met: Any) -> None:
    there = ConnectedExecutor(executor_id="exec-1", instance_id="i-2", replica_id="r2", epoch=1)
    directory.learn("prod", there, now=0.0)
    assert [line["instance_ids"] for line in met(connection("i-1"))] == [["i-1", "i-2"]]


def test_a_process_is_no_rival_of_its_own(connections: Connections, directory: Directory, met: Any) -> None:
    """Nor of another executor, nor of one that is gone."""
    there = ConnectedExecutor(executor_id="exec-1", instance_id="i-1", replica_id="r2", epoch=1)
    assert met(connection("i-1")) == []
    connections.add(connection("i-1"))
    connections.add(connection("i-2", executor_id="exec-2"))
    assert met(connection("i-1")) == []
    connections.remove(*connections.of_cluster("prod")[:1])
    directory.learn("prod", there, now=0.0)
    assert met(connection("i-1")) == []


def test_what_is_remembered_is_bounded(connections: Connections, met: Any) -> None:
    """Whoever has a token can make up as many names as it likes; the oldest make room."""
    for number in range(MAX_EXECUTORS + 1):
        connections.add(connection("i-2", executor_id=f"exec-{number}"))
        met(connection("i-1", executor_id=f"exec-{number}"), times=TELL_AT - 1)
    assert met(connection("i-1", executor_id="exec-0"), times=TELL_AT - 1) == []
    assert len(met(connection("i-1", executor_id=f"exec-{MAX_EXECUTORS}"), times=1)) == 1
