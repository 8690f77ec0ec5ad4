"""What a replica knows of executors on the others."""

import random
from typing import Any

from broker.core.directory import GONE_REPLICA_S, MOVING_S, VANISHED_S, Directory
from openline.v1.cluster_service_pb2 import ConnectedExecutor


def executor(executor_id: str = "e1", *, replica_id: str = "r2", epoch: int = 1, **fields: Any) -> ConnectedExecutor:
    usual = {"instance_id": "i1", "max_concurrency": 4}
    return ConnectedExecutor(executor_id=executor_id, replica_id=replica_id, epoch=epoch, **(usual | fields))


def complete_directory() -> Directory:
    """One that has heard of everybody since long ago."""
    directory = Directory("r1")
    directory.refresh({}, now=-1.0)
    return directory


def test_a_command_goes_where_an_executor_is() -> None:
    directory = Directory("r1")
    directory.learn("prod", executor(), now=0.0)
    entry = directory.place("prod", now=0.0)
    assert entry is not None
    assert entry.replica_id == "r2"
    assert directory.place("staging", now=0.0) is None


def test_older_news_change_nothing() -> None:
    """They may arrive in any order."""
    directory = Directory("r1")
    directory.learn("prod", executor(epoch=5, replica_id="r3"), now=0.0)
    assert not directory.learn("prod", executor(epoch=4, replica_id="r2"), now=0.0)
    directory.unlearn("prod", "e1", epoch=4, now=0.0)
    entry = directory.place("prod", now=0.0)
    assert entry is not None
    assert entry.replica_id == "r3"


def test_an_executor_that_is_here_is_not_elsewhere() -> None:
    directory = Directory("r1")
    directory.learn("prod", executor(epoch=1), now=0.0)
    directory.learn("prod", executor(epoch=2, replica_id="r1"), now=0.0)
    assert directory.place("prod", now=0.0) is None


def test_the_less_loaded_of_two_is_taken() -> None:
    """Of many, two are drawn: the most loaded one never wins, the others have their turns."""
    random.seed(1)
    directory = Directory("r1")
    for number in range(4):
        directory.learn("prod", executor(f"e{number}", running=number), now=0.0)
    drawn = [directory.place("prod", now=0.0) for _ in range(200)]
    chosen = {entry.executor.executor_id for entry in drawn if entry is not None}
    assert chosen == {"e0", "e1", "e2"}
    assert directory.place("prod", now=0.0, below_load=0.1) is not None
    assert directory.place("prod", now=0.0, below_load=0.0) is None


def test_a_replica_out_of_reach_takes_nothing_and_its_executors_are_expected() -> None:
    """For a while: they dial another one, or it comes back."""
    directory = Directory("r1")
    directory.learn("prod", executor(), now=0.0)
    assert directory.expected_until("prod", now=0.0) is None
    directory.unreachable("r2", now=1.0)
    directory.unreachable("r2", now=2.0)
    assert directory.place("prod", now=2.0) is None
    assert directory.reachable("prod") == []
    assert directory.expected_until("prod", now=2.0) == 1.0 + GONE_REPLICA_S
    assert directory.expected_until("prod", now=1.0 + GONE_REPLICA_S) is None
    directory.reached("r2")
    assert directory.place("prod", now=2.0) is not None
    assert directory.reachable("prod") == [executor()]


def test_an_executor_that_moves_takes_nothing_and_is_expected() -> None:
    """Also when this replica itself has told it to move."""
    for replica_id in ("r1", "r2"):
        directory = Directory("r1")
        directory.learn("prod", executor(replica_id=replica_id, moving=True), now=1.0)
        directory.learn("prod", executor(replica_id=replica_id, moving=True), now=3.0)
        assert directory.place("prod", now=1.0) is None
        assert directory.expected_until("prod", now=1.0) == 1.0 + MOVING_S
        directory.learn("prod", executor(replica_id="r3", epoch=2), now=2.0)
        assert directory.place("prod", now=2.0) is not None
        assert directory.expected_until("prod", now=2.0) is None


def test_what_redis_has_not_is_gone() -> None:
    """But for what is moving, which is written a moment later."""
    directory = Directory("r1")
    directory.learn("prod", executor("e1"), now=0.0)
    directory.learn("prod", executor("e2", moving=True), now=0.0)
    directory.refresh({"prod": []}, now=1.0)
    assert [one.executor_id for one in directory.executors("prod")] == ["e2"]
    directory.refresh({"prod": []}, now=1.0 + MOVING_S)
    assert directory.executors("prod") == []


def test_a_replica_says_that_it_is_not_there() -> None:
    """Then the command goes elsewhere, or waits if the executor is moving."""
    directory = Directory("r1")
    directory.learn("prod", executor("e1"), now=0.0)
    directory.learn("prod", executor("e2", replica_id="r3"), now=0.0)
    directory.not_there("prod", "r2", moving=False, now=0.0)
    assert [one.executor_id for one in directory.executors("prod")] == ["e2"]
    directory.not_there("prod", "r3", moving=True, now=0.0)
    assert directory.place("prod", now=0.0) is None
    assert directory.expected_until("prod", now=0.0) == MOVING_S


def test_a_command_is_nowhere_only_if_every_executor_is_accounted_for() -> None:
    """Each is connected to a replica that does not know the command, and none has gone without a word."""
    directory = complete_directory()
    directory.learn("prod", executor("e1"), now=0.0)
    directory.learn("prod", executor("e2", replica_id="r3"), now=0.0)
    assert not directory.is_accounted_for("prod", answered={"r1": 0, "r2": 0}, since=5.0)
    assert directory.is_accounted_for("prod", answered={"r1": 0, "r2": 0, "r3": 0}, since=5.0)
    directory.learn("prod", executor("e2", replica_id="r2", epoch=2, moving=True), now=6.0)
    assert not directory.is_accounted_for("prod", answered={"r1": 0, "r2": 0, "r3": 0}, since=5.0)
    directory.learn("prod", executor("e2", replica_id="r2", epoch=3), now=7.0)
    assert directory.is_accounted_for("prod", answered={"r1": 0, "r2": 0}, since=5.0)


def test_a_replica_that_has_begun_anew_does_not_speak_for_the_executors_of_the_process_before() -> None:
    """They may be on a third one, which Redis had no time to tell of."""
    directory = complete_directory()
    directory.learn("prod", executor("e1", epoch=7), now=0.0)
    assert directory.is_accounted_for("prod", answered={"r1": 0, "r2": 6}, since=5.0)
    assert not directory.is_accounted_for("prod", answered={"r1": 0, "r2": 8}, since=5.0)
    assert directory.is_current("prod", "r2", began_us=6)
    assert not directory.is_current("prod", "r2", began_us=8)


def test_what_was_before_this_replica_listened_or_is_long_ago_may_be_anywhere() -> None:
    """Whose executor went meanwhile is not known: nothing of that is placed anew."""
    directory = Directory("r1")
    assert not directory.is_accounted_for("prod", answered={"r2": 0}, since=5.0)
    directory.refresh({}, now=4.0)
    assert not directory.is_accounted_for("prod", answered={"r2": 0}, since=3.0)
    assert directory.is_accounted_for("prod", answered={"r2": 0}, since=5.0)
    directory.refresh({}, now=6.0 + VANISHED_S)
    assert not directory.is_accounted_for("prod", answered={"r2": 0}, since=5.0)


def test_a_process_that_was_replaced_or_has_vanished_may_have_run_anything() -> None:
    directory = complete_directory()
    directory.learn("prod", executor("e1"), now=0.0)
    directory.learn("prod", executor("e1", instance_id="i2", epoch=2), now=10.0)
    assert not directory.is_accounted_for("prod", answered={"r2": 0}, since=5.0)
    assert directory.is_accounted_for("prod", answered={"r2": 0}, since=11.0)
    directory.unlearn("prod", "e1", epoch=2, now=20.0)
    assert not directory.is_accounted_for("prod", answered={"r2": 0}, since=15.0)


def test_what_a_redis_that_came_back_empty_has_not_is_not_gone() -> None:
    """It will be told again; what it has already is believed."""
    directory = Directory("r1")
    directory.learn("prod", executor("e1"), now=0.0)
    directory.refresh({"prod": [executor("e2")]}, now=1.0, is_whole=False)
    assert [one.executor_id for one in directory.executors("prod")] == ["e1", "e2"]
    directory.refresh({"prod": [executor("e2")]}, now=6.0)
    assert [one.executor_id for one in directory.executors("prod")] == ["e2"]


def test_nothing_is_kept_for_ever() -> None:
    directory = Directory("r1")
    directory.learn("prod", executor(), now=0.0)
    directory.unreachable("r2", now=0.0)
    directory.refresh({"prod": []}, now=1.0)
    directory.refresh({"prod": []}, now=1000.0)
    directory.forget_replicas([])
    assert repr(directory) == "<Directory clusters=0 executors=0 unreachable=[]>"
    assert directory._vanished == {}
