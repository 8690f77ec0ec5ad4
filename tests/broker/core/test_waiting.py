"""Commands that wait: for a place in their cluster, or for their cluster; what ends that, and who is next."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.core.actions import Action, Send
from broker.core.connections import Connection
from broker.core.life import State
from broker.core.queue import MAX_WAITING_OF_SHARE
from broker.core.routes import BUSY_RETRY_S, ClusterAbsent
from openline.errors import OpenlineError
from openline.limits import DEADLINE_ALLOWANCE_S
from openline.reasons import NO, UNKNOWN, Reason
from openline.v1 import command_pb2

New = Callable[..., Connection]
Summary = Callable[[list[Action]], list[str]]
GRACE_S = 10.0


@pytest.fixture
def full(desk: Any, new_connection: New) -> Connection:
    """A connection with one place and as many commands as it should have: two."""
    connection = new_connection(max_concurrency=1)
    desk.connect(connection)
    for _ in range(2):
        desk.submit(owner="somebody", timeout_s=1000.0)
    assert not connection.has_room
    return connection


def executes(actions: list[Action]) -> list[str]:
    """The ids of the commands that go out."""
    return [a.frame.execute.command_id for a in actions if isinstance(a, Send) and a.frame.HasField("execute")]


def release(desk: Any, connection: Connection, frames: Any, *, now: float = 0.0) -> list[str]:
    """Lets one command on the connection end; the ids of those that go out then."""
    return executes(desk.say(connection, *frames.ran(min(connection.commands)), now=now))


# For a place


def test_what_an_executor_has_no_place_for_waits_here(
    desk: Any, new_connection: New, frames: Any, full: Connection
) -> None:
    """A few wait there, the others here, and each leaves when a place is free; at once, and in order."""
    waiting = [desk.submit() for _ in range(3)]
    assert [command.state for command in waiting] == [State.QUEUED] * 3
    assert desk.sent == []
    assert [release(desk, full, frames) for _ in range(3)] == [[command.command_id] for command in waiting]
    assert len(full.commands) == 2


def test_the_time_in_the_queue_is_taken_off_the_timeout(desk: Any, frames: Any, full: Connection) -> None:
    command = desk.submit(now=10.0, timeout_s=30.0)
    [sent] = [a for a in desk.say(full, *frames.ran(min(full.commands)), now=15.0) if isinstance(a, Send)]
    assert sent.frame.execute.timeout_s == pytest.approx(25.0)
    desk.say(full, *frames.ran(command.command_id), now=16.0)
    assert command.result.timings.queue_s == pytest.approx(5.0)
    assert command.result.timings.total_s == pytest.approx(6.0)


def test_another_executor_takes_what_waits(desk: Any, new_connection: New, full: Connection) -> None:
    """As much as it has room for; nothing stays behind on purpose."""
    waiting = [desk.submit() for _ in range(5)]
    other = new_connection(executor_id="exec-2", max_concurrency=2)
    assert executes(desk.connect(other, now=1.0)) == [command.command_id for command in waiting[:3]]
    assert len(other.commands) == 3


def test_nobody_overtakes_the_queue(desk: Any, frames: Any, full: Connection) -> None:
    """A place that is free the moment somebody new asks belongs to who waits."""
    first = desk.submit()
    full.commands.discard(min(full.commands))  # room, before the ledger has looked
    later = desk.submit()
    assert desk.sent == []
    assert executes(desk.ledger._account.fill("prod", 0.0)) == [first.command_id]
    assert later.state is State.QUEUED


def test_a_looping_caller_and_another_one_take_turns(desk: Any, frames: Any, full: Connection) -> None:
    """A hundred of alice's wait when bob asks for three: his leave with every other place."""
    for _ in range(100):
        desk.submit(session_id="loop")
    bob = [desk.submit(owner="bob").command_id for _ in range(3)]
    left = [release(desk, full, frames)[0] for _ in range(6)]
    assert [name in bob for name in left] == [False, True, False, True, False, True]
    assert left[1::2] == bob


def test_two_agents_of_one_key_take_turns(desk: Any, frames: Any, full: Connection) -> None:
    looping = [desk.submit(correlation_id="loop").command_id for _ in range(100)]
    other = desk.submit(correlation_id="another conversation").command_id
    left = [release(desk, full, frames)[0] for _ in range(3)]
    assert left == [looping[0], other, looping[1]]


def test_a_caller_who_has_enough_waiting_is_told_when_to_ask_again(desk: Any, full: Connection) -> None:
    """CLUSTER_BUSY, surely not run; another caller has room, and nothing is left of what was refused."""
    for _ in range(MAX_WAITING_OF_SHARE):
        desk.submit()
    before = len(desk.ledger.commands)
    with pytest.raises(OpenlineError) as busy:
        desk.submit()
    assert (busy.value.reason, busy.value.error.executed) == (Reason.CLUSTER_BUSY, NO)
    assert busy.value.error.retry_after_s == BUSY_RETRY_S
    assert len(desk.ledger.commands) == before
    assert desk.submit(owner="bob").state is State.QUEUED


def test_who_waits_too_long_for_a_place_times_out(desk: Any, full: Connection, summary: Summary) -> None:
    """At its deadline: no executor has it, so there is no allowance, and it has surely not run."""
    command = desk.submit(now=1.0, timeout_s=5.0)
    assert desk.ledger.next_due() == 6.0
    assert summary(desk.tick(6.0)) == ["conclude TIMED_OUT"]
    assert (command.result.error.reason, command.result.error.executed) == (Reason.COMMAND_TIMEOUT, NO)
    assert desk.ledger._account.queues == {}
    desk.settle(command)


def test_who_is_next_too_late_is_not_sent(desk: Any, frames: Any, full: Connection, summary: Summary) -> None:
    """This process stood still, and much is overdue at once: what frees a place does not send what has expired."""
    late = [desk.submit(now=0.0, timeout_s=1.0 + n) for n in range(5)]
    in_time = desk.submit(now=0.0, timeout_s=100.0)
    actions = desk.say(full, *frames.ran(min(full.commands)), now=50.0)
    assert summary(actions) == ["conclude EXITED", *["conclude TIMED_OUT"] * 5, "execute"]
    assert executes(actions) == [in_time.command_id]
    assert {command.result.error.executed for command in late} == {NO}
    assert desk.tick(50.0) == []


def test_everything_is_overdue_at_once(desk: Any, new_connection: New, summary: Summary) -> None:
    """The places that the expired ones leave are not given to those who have expired as well."""
    desk.connect(new_connection(max_concurrency=1))
    commands = [desk.submit(now=0.0, timeout_s=timeout_s) for timeout_s in (1.0, 1.0, 5.0, 6.0)]
    waiting, sent = ["conclude TIMED_OUT"] * 2, ["cancel", "conclude TIMED_OUT"] * 2
    assert summary(desk.tick(1000.0)) == [*waiting, *sent]
    assert [command.result.error.executed for command in commands] == [UNKNOWN, UNKNOWN, NO, NO]
    desk.settle_all()
    desk.assert_empty()


def test_a_queue_whose_cluster_goes_waits_for_the_grace(
    desk: Any, new_connection: New, frames: Any, full: Connection, summary: Summary
) -> None:
    """The executor may come back: then what waits goes on waiting."""
    command = desk.submit(now=0.0)
    desk.disconnect(full, now=1.0)
    assert desk.sent == []
    assert command.state is State.QUEUED
    back = new_connection(max_concurrency=4)
    assert executes(desk.connect(back, in_flight=sorted(full.commands), now=2.0)) == [command.command_id]


def test_a_queue_whose_cluster_stays_away_is_stranded(desk: Any, full: Connection, summary: Summary) -> None:
    """What was sent is lost; what never was is told so, and can be asked again elsewhere."""
    command = desk.submit(now=0.0)
    desk.disconnect(full, now=1.0)
    ends = summary(desk.tick(1.0 + GRACE_S))
    assert ends == ["conclude LOST", "conclude LOST", "conclude REJECTED"]
    error = command.result.error
    assert (error.reason, error.executed) == (Reason.CLUSTER_OFFLINE, NO)
    assert error.retry_after_s > 0
    desk.settle_all()
    desk.assert_empty()


def test_another_connection_of_the_cluster_keeps_the_queue(
    desk: Any, new_connection: New, full: Connection, summary: Summary
) -> None:
    other = new_connection(executor_id="exec-2", max_concurrency=1)
    desk.connect(other)
    busy = [desk.submit(owner="somebody") for _ in range(2)]
    command = desk.submit()
    desk.disconnect(full, now=1.0)
    assert summary(desk.tick(1.0 + GRACE_S)) == ["conclude LOST", "conclude LOST"]
    assert command.state is State.QUEUED
    assert all(one.state is State.WRITTEN for one in busy)


def test_a_draining_executor_leaves_the_queue_to_the_others(
    desk: Any, new_connection: New, frames: Any, full: Connection
) -> None:
    """It finishes what it has, and takes nothing new."""
    command = desk.submit()
    full.draining = True
    assert release(desk, full, frames) == []
    assert executes(desk.connect(new_connection(executor_id="exec-2"), now=1.0)) == [command.command_id]


def test_the_last_drained_executor_strands_the_queue(desk: Any, frames: Any, full: Connection) -> None:
    """It has finished everything and leaves: there is no grace to wait for."""
    command = desk.submit()
    full.draining = True
    for _ in range(2):
        release(desk, full, frames)
    desk.disconnect(full, now=2.0)
    assert command.result.error.reason == Reason.CLUSTER_OFFLINE
    desk.settle_all()
    desk.assert_empty()


# For the cluster


def test_a_cluster_that_comes_in_time(desk: Any, new_connection: New, frames: Any) -> None:
    """The command leaves at once, and its timeout begins then."""
    command = desk.submit(now=0.0, wait_for_cluster_s=30.0, timeout_s=10.0)
    assert command.state is State.QUEUED
    assert desk.ledger.next_due() == 30.0
    open_ = new_connection()
    [sent] = desk.connect(open_, now=20.0)
    assert sent.frame.execute.command_id == command.command_id
    assert sent.frame.execute.timeout_s == pytest.approx(10.0)
    assert desk.ledger.next_due() == pytest.approx(30.0 + DEADLINE_ALLOWANCE_S)
    desk.say(open_, *frames.ran(command.command_id), now=21.0)
    assert command.result.timings.queue_s == pytest.approx(20.0)
    desk.settle(command)
    desk.assert_empty()


def test_a_cluster_that_does_not_come_in_time(desk: Any, summary: Summary) -> None:
    """CLUSTER_OFFLINE, surely not run; its timeout has nothing to do with it."""
    command = desk.submit(now=0.0, wait_for_cluster_s=30.0, timeout_s=1.0)
    assert desk.tick(29.9) == []
    assert summary(desk.tick(30.0)) == ["conclude REJECTED"]
    assert (command.result.error.reason, command.result.error.executed) == (Reason.CLUSTER_OFFLINE, NO)
    desk.settle(command)
    desk.assert_empty()


def test_a_cluster_that_comes_with_too_few_places(desk: Any, new_connection: New, frames: Any) -> None:
    """Everybody's timeout begins when it comes; those without a place wait for one, and nobody is told OFFLINE."""
    waiting = [desk.submit(now=0.0, wait_for_cluster_s=30.0, timeout_s=60.0) for _ in range(4)]
    open_ = new_connection(max_concurrency=1)
    assert len(executes(desk.connect(open_, now=29.0))) == 2
    assert desk.tick(30.0) == []
    assert waiting[2].state is waiting[3].state is State.QUEUED
    assert release(desk, open_, frames, now=50.0) == [waiting[2].command_id]
    desk.tick(89.0)
    assert waiting[3].result.error.reason == Reason.COMMAND_TIMEOUT
    assert waiting[3].result.error.executed == NO


def test_a_cluster_that_comes_and_goes(desk: Any, new_connection: New, frames: Any, summary: Summary) -> None:
    """Who said to wait longer goes on waiting, until the instant that was said at first."""
    open_ = new_connection(max_concurrency=1)
    patient, impatient = (desk.submit(now=0.0, wait_for_cluster_s=wait_s, timeout_s=100.0) for wait_s in (30.0, 5.0))
    for _ in range(2):
        desk.submit(now=0.0, wait_for_cluster_s=1.0, owner="first")
    # Two of them leave, in turn: one of each caller's.
    desk.connect(open_, now=1.0)
    queued = [command for command in (patient, impatient) if command.state is State.QUEUED]
    assert queued == [impatient]
    late = desk.submit(now=2.0, wait_for_cluster_s=30.0, timeout_s=100.0)
    desk.disconnect(open_, now=3.0)
    ends = summary(desk.tick(3.0 + GRACE_S))
    assert ends.count("conclude LOST") == 2
    assert impatient.result.error.reason == Reason.CLUSTER_OFFLINE
    assert late.state is State.QUEUED
    assert desk.ledger.next_due() == 32.0
    [sent] = desk.connect(new_connection(instance_id="i-2"), now=31.0)
    assert sent.frame.execute.command_id == late.command_id
    assert sent.frame.execute.timeout_s == pytest.approx(100.0)


def test_who_waits_for_one_cluster_does_not_leave_with_another(desk: Any, new_connection: New) -> None:
    command = desk.submit(wait_for_cluster_s=30.0)
    assert desk.connect(new_connection("staging"), now=1.0) == []
    assert command.state is State.QUEUED


def test_only_who_says_so_waits(desk: Any) -> None:
    """Also while others wait for the same cluster."""
    desk.submit(wait_for_cluster_s=30.0)
    with pytest.raises(ClusterAbsent):
        desk.submit()


def test_who_waits_for_an_absent_cluster_is_bounded(desk: Any) -> None:
    for _ in range(MAX_WAITING_OF_SHARE):
        desk.submit(wait_for_cluster_s=300.0)
    with pytest.raises(OpenlineError) as busy:
        desk.submit(wait_for_cluster_s=300.0)
    assert busy.value.reason is Reason.CLUSTER_BUSY


# Cancel, in every state


def test_cancel_of_one_that_waits_for_a_place(desk: Any, frames: Any, full: Connection, summary: Summary) -> None:
    """It ends here and now, surely not run; the next one is not held up."""
    command, other = desk.submit(), desk.submit()
    assert summary(desk.cancel(command, now=1.0)) == ["conclude CANCELLED"]
    assert (command.result.error.reason, command.result.error.executed) == (Reason.CANCELLED, NO)
    assert desk.cancel(command, now=1.0) == []
    assert release(desk, full, frames) == [other.command_id]
    assert command.state is State.DONE


def test_cancel_of_one_that_waits_for_its_cluster(desk: Any, new_connection: New, summary: Summary) -> None:
    command = desk.submit(wait_for_cluster_s=30.0)
    assert summary(desk.cancel(command, now=1.0)) == ["conclude CANCELLED"]
    desk.settle(command)
    desk.assert_empty()
    assert desk.connect(new_connection(), now=2.0) == []


@pytest.mark.parametrize("said", [0, 1, 2])
def test_cancel_of_one_that_an_executor_holds(
    desk: Any, new_connection: New, frames: Any, summary: Summary, said: int
) -> None:
    """Written, accepted or running: the executor is told, each time, and the command ends when it says so."""
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit()
    name = command.command_id
    desk.say(open_, *[frames.accepted(name), frames.started(name)][:said])
    before = command.state
    assert summary(desk.cancel(command)) == ["cancel"]
    assert summary(desk.cancel(command)) == ["cancel"]
    assert command.state is before
    end = frames.finished(name, outcome=command_pb2.OUTCOME_CANCELLED)
    if said == 0:
        desk.say(open_, frames.accepted(name))
    assert summary(desk.say(open_, end)) == ["conclude CANCELLED"]
    assert desk.cancel(command) == []
    desk.settle(command)
    desk.assert_empty()


def test_cancel_of_one_whose_executor_never_comes_back(desk: Any, new_connection: New, summary: Summary) -> None:
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit()
    desk.disconnect(open_, now=1.0)
    assert desk.cancel(command, now=2.0) == []
    assert summary(desk.tick(1.0 + GRACE_S)) == ["conclude LOST"]
    assert command.result.error.executed == UNKNOWN
