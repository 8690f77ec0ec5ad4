"""The account of every command: each race, with the instants spelled out."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broker.core.actions import Action, Close, Send
from broker.core.connections import Connection
from broker.core.ledger import ClusterAbsent, Ledger
from broker.core.life import State
from openline.errors import OpenlineError
from openline.limits import DEADLINE_ALLOWANCE_S
from openline.reasons import UNKNOWN, YES, Reason
from openline.v1 import command_pb2, executor_service_pb2

New = Callable[..., Connection]
Summary = Callable[[list[Action]], list[str]]
GRACE_S = 10.0


# Placing


def test_a_command_goes_out_at_once(desk: Any, new_connection: New, summary: Summary) -> None:
    """Submitting a command is one Execute on the cluster's connection."""
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit(now=5.0)
    [sent] = desk.sent
    assert sent.connection is open_
    assert sent.frame.execute.command_id == command.command_id
    assert command.state is State.WRITTEN
    assert open_.commands == {command.command_id}


def test_an_absent_cluster_leaves_no_trace(desk: Any, new_connection: New) -> None:
    desk.connect(new_connection("staging"))
    with pytest.raises(ClusterAbsent):
        desk.submit("prod")
    desk.assert_empty()


@pytest.mark.parametrize("other", [{"argv": ("get", "nodes")}, {"owner": "bob"}, {"cluster_id": "staging"}])
def test_a_command_id_of_another_command_is_refused(desk: Any, new_connection: New, other: dict[str, Any]) -> None:
    """The command that has it is not touched, until its result is stored."""
    for cluster_id in ("prod", "staging"):
        desk.connect(new_connection(cluster_id))
    command = desk.submit()
    with pytest.raises(OpenlineError) as refusal:
        desk.submit(command_id=command.command_id, **other)
    assert refusal.value.reason is Reason.INVALID_COMMAND
    assert desk.ledger.commands[command.command_id] is command


def test_the_same_request_with_the_same_id_is_the_same_command(desk: Any, new_connection: New, frames: Any) -> None:
    """In every state until its result is stored, whatever timeout is asked for; nothing is sent again."""
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit()
    for frame in (None, *frames.ran(command.command_id, b"x")):
        if frame is not None:
            desk.say(open_, frame)
        assert desk.submit(command_id=command.command_id, timeout_s=5.0, live=True) is command
        assert desk.sent == []
    assert len(desk.concluded) == 1
    desk.settle(command)
    desk.assert_empty()


def test_a_full_replica_says_so(new_connection: New, new_ask: Callable[..., Any]) -> None:
    """What grows has a bound; the caller is told when to ask again."""
    ledger = Ledger(reconnect_grace_s=GRACE_S, max_commands=1)
    ledger.connect(new_connection(), in_flight=(), unacked=(), now=0.0)
    ledger.submit(new_ask(), asked_at=Timestamp(), now=0.0)
    with pytest.raises(OpenlineError) as refusal:
        ledger.submit(new_ask(), asked_at=Timestamp(), now=0.0)
    assert refusal.value.reason is Reason.CLUSTER_BUSY
    assert refusal.value.error.retry_after_s > 0


# The usual life


def test_a_command_that_ran(desk: Any, new_connection: New, frames: Any, summary: Summary) -> None:
    """Finished ends it, the stored result is acknowledged, and nothing is left."""
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit(now=0.0)
    actions = desk.say(open_, *frames.ran(command.command_id, b"pods\n", exit_code=3), now=1.0)
    assert summary(actions) == ["conclude EXITED"]
    assert (command.result.stdout, command.result.exit_code) == (b"pods\n", 3)
    [ack] = desk.settle(command)
    assert (ack.connection, ack.frame.result_ack.command_id) == (open_, command.command_id)
    desk.assert_empty()


def test_a_result_that_is_not_stored_is_not_acknowledged(desk: Any, new_connection: New, frames: Any) -> None:
    """The executor keeps it."""
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit()
    desk.say(open_, *frames.ran(command.command_id))
    assert desk.settle(command, stored=False) == []
    desk.assert_empty()


def test_a_rejected_command_ends(desk: Any, new_connection: New, frames: Any, summary: Summary) -> None:
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit()
    assert summary(desk.say(open_, frames.rejected(command.command_id))) == ["conclude REJECTED"]
    assert command.result.error.reason == Reason.EXECUTOR_FAILED
    assert command.result.error.executed == command_pb2.EXECUTED_NO
    desk.settle(command)
    desk.assert_empty()


# Crossings


def test_result_and_cancel_cross(desk: Any, new_connection: New, frames: Any, summary: Summary) -> None:
    """A result that was on its way when the cancel left is the result; a second Finished changes nothing."""
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit()
    desk.say(open_, frames.accepted(command.command_id), frames.started(command.command_id))
    assert summary(desk.cancel(command)) == ["cancel"]
    assert summary(desk.say(open_, frames.finished(command.command_id))) == ["conclude EXITED"]
    cancelled = frames.finished(command.command_id, outcome=command_pb2.OUTCOME_CANCELLED)
    assert desk.say(open_, cancelled) == []
    assert command.result.outcome == command_pb2.OUTCOME_EXITED


def test_a_cancel_after_the_end_changes_nothing(desk: Any, new_connection: New, frames: Any) -> None:
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit()
    desk.say(open_, *frames.ran(command.command_id))
    assert desk.cancel(command) == []
    desk.settle(command)
    assert desk.cancel(command) == []
    desk.assert_empty()


def test_a_cancel_while_the_executor_is_away_reaches_it_when_it_is_back(
    desk: Any, new_connection: New, frames: Any, summary: Summary
) -> None:
    """Nobody waits for the command any more, and the process would run until its deadline."""
    first, second, third = new_connection(), new_connection(), new_connection()
    desk.connect(first)
    command = desk.submit()
    desk.say(first, frames.accepted(command.command_id))
    desk.disconnect(first, now=1.0)
    desk.cancel(command)
    assert summary(desk.connect(second, in_flight=[command.command_id], now=2.0)) == ["cancel"]
    # It may have been lost again, so it is said on every connection until the command ends.
    desk.disconnect(second, now=3.0)
    assert summary(desk.connect(third, in_flight=[command.command_id], now=4.0)) == ["cancel"]


def test_a_cancel_of_a_command_that_never_arrived_follows_it(desk: Any, new_connection: New, summary: Summary) -> None:
    """Written again, then cancelled: the executor decides whether it still has to run."""
    first, second = new_connection(), new_connection()
    desk.connect(first)
    command = desk.submit()
    desk.disconnect(first, now=1.0)
    desk.cancel(command)
    assert summary(desk.connect(second, now=2.0)) == ["execute", "cancel"]


# A broken stream


def test_written_and_not_accepted_is_written_again_to_the_same_instance(
    desk: Any, new_connection: New, summary: Summary
) -> None:
    """The stream broke between: the instance's memory of recent ids answers, with the time that remains."""
    first, second = new_connection(), new_connection()
    desk.connect(first)
    command = desk.submit(now=0.0, timeout_s=60.0)
    assert desk.disconnect(first, now=1.0)
    actions = desk.connect(second, now=4.0)
    assert summary(actions) == ["execute"]
    [again] = actions
    assert again.connection is second
    assert again.frame.execute.timeout_s == pytest.approx(56.0)
    assert command.state is State.WRITTEN
    assert second.commands == {command.command_id}


def test_what_the_same_instance_still_runs_goes_on(
    desk: Any, new_connection: New, frames: Any, summary: Summary
) -> None:
    """Its Accepted was lost with the stream; it is not sent again, and its result is taken."""
    first, second = new_connection(), new_connection()
    desk.connect(first)
    command = desk.submit()
    desk.disconnect(first, now=1.0)
    assert desk.connect(second, in_flight=[command.command_id], now=2.0) == []
    assert desk.verdicts == {command.command_id: "VERDICT_ACTION_KEEP"}
    assert command.state is State.ACCEPTED
    assert summary(desk.say(second, frames.finished(command.command_id), now=3.0)) == ["conclude EXITED"]
    desk.settle(command)
    desk.assert_empty()


def test_what_the_same_instance_has_finished_is_handed_over(
    desk: Any, new_connection: New, frames: Any, summary: Summary
) -> None:
    """The whole result comes again on the new stream; what had arrived before does not count twice."""
    first, second = new_connection(), new_connection()
    desk.connect(first)
    command = desk.submit()
    name = command.command_id
    desk.say(first, frames.accepted(name), frames.started(name), frames.output(name, 0, b"one"))
    desk.disconnect(first, now=1.0)
    assert desk.connect(second, unacked=[name], now=2.0) == []
    again = [frames.output(name, 0, b"one"), frames.output(name, 1, b"two"), frames.finished(name)]
    assert summary(desk.say(second, *again, now=2.0)) == ["conclude EXITED"]
    assert command.result.stdout == b"onetwo"


def test_what_was_had_before_the_break_need_not_come_again(desk: Any, new_connection: New, frames: Any) -> None:
    """The verdict says which piece is due; the result is whole."""
    first, second = new_connection(), new_connection()
    desk.connect(first)
    command = desk.submit(live=True)
    name = command.command_id
    desk.say(first, frames.accepted(name), frames.started(name), *(frames.output(name, n, b"x") for n in range(3)))
    desk.disconnect(first, now=1.0)
    verdicts, _ = desk.ledger.connect(second, in_flight=[name], unacked=(), now=2.0)
    assert [(verdict.command_id, verdict.next_seq) for verdict in verdicts] == [(name, 3)]
    desk.say(second, frames.output(name, 3, b"y"), frames.finished(name))
    assert command.result.stdout == b"xxxy"


def test_what_the_same_instance_has_forgotten_is_lost(
    desk: Any, new_connection: New, frames: Any, summary: Summary
) -> None:
    """It was accepted, so it may have run: never sent again."""
    first, second = new_connection(), new_connection()
    desk.connect(first)
    command = desk.submit()
    desk.say(first, frames.accepted(command.command_id))
    desk.disconnect(first, now=1.0)
    assert summary(desk.connect(second, now=2.0)) == ["conclude LOST"]
    assert command.result.error.reason == Reason.EXECUTOR_LOST
    assert command.result.error.executed == UNKNOWN
    desk.settle(command)
    desk.assert_empty()


@pytest.mark.parametrize("accepted", [False, True])
def test_a_restarted_executor_loses_what_its_instance_held(
    desk: Any, new_connection: New, frames: Any, summary: Summary, accepted: bool
) -> None:
    """A new instance id: what was in flight may have run, and is never sent to it."""
    old, new = new_connection(instance_id="i-1"), new_connection(instance_id="i-2")
    desk.connect(old)
    commands = [desk.submit(), desk.submit()]
    if accepted:
        desk.say(old, *(frames.accepted(command.command_id) for command in commands))
    desk.disconnect(old, now=1.0)
    assert summary(desk.connect(new, now=2.0)) == ["conclude LOST", "conclude LOST"]
    assert {command.result.error.executed for command in commands} == {UNKNOWN}
    desk.settle_all()
    desk.assert_empty()


def test_a_restart_is_noticed_without_the_end_of_the_old_stream(
    desk: Any, new_connection: New, summary: Summary
) -> None:
    """The old stream may look alive for a while: Hello is proof enough."""
    old, new = new_connection(instance_id="i-1"), new_connection(instance_id="i-2")
    desk.connect(old)
    desk.submit()
    assert summary(desk.connect(new, now=2.0)) == ["close", "conclude LOST"]
    assert not desk.disconnect(old, now=3.0)
    desk.settle_all()
    desk.assert_empty()


@pytest.mark.parametrize("noticed", [False, True])
def test_a_restarted_executor_hands_over_what_its_last_instance_left_on_disk(
    desk: Any, new_connection: New, frames: Any, summary: Summary, noticed: bool
) -> None:
    """It lists the result as unacked: that one is not lost, and the one that was still running is."""
    old, new = new_connection(instance_id="i-1"), new_connection(instance_id="i-2")
    desk.connect(old)
    spooled, running = desk.submit(), desk.submit()
    for command in (spooled, running):
        desk.say(old, frames.accepted(command.command_id), frames.started(command.command_id))
    if noticed:
        desk.disconnect(old, now=1.0)
    closed = [] if noticed else ["close"]
    assert summary(desk.connect(new, unacked=[spooled.command_id], now=2.0)) == [*closed, "conclude LOST"]
    assert desk.verdicts == {spooled.command_id: "VERDICT_ACTION_KEEP"}
    assert running.result is not None
    # Whatever the old stream still brings is not the new instance's word.
    assert desk.say(old, frames.finished(spooled.command_id, exit_code=9)) == []
    result = [frames.output(spooled.command_id, 0, b"from disk"), frames.finished(spooled.command_id, exit_code=3)]
    assert summary(desk.say(new, *result, now=3.0)) == ["conclude EXITED"]
    assert (spooled.result.stdout, spooled.result.exit_code) == (b"from disk", 3)
    [ack] = desk.settle(spooled)
    assert ack.connection is new
    desk.settle(running)
    desk.assert_empty()


def test_a_restarted_executor_that_says_that_it_still_runs_something_is_not_believed(
    desk: Any, new_connection: New, frames: Any, summary: Summary
) -> None:
    """A process does not survive its executor's instance; only a result on disk does."""
    old, new = new_connection(instance_id="i-1"), new_connection(instance_id="i-2")
    desk.connect(old)
    command = desk.submit()
    desk.say(old, frames.accepted(command.command_id))
    assert summary(desk.connect(new, in_flight=[command.command_id], now=2.0)) == ["close", "conclude LOST"]
    assert desk.verdicts == {command.command_id: "VERDICT_ACTION_DROP"}


def test_the_newest_of_two_connections_wins(desk: Any, new_connection: New, frames: Any, summary: Summary) -> None:
    """The old one is closed, its commands go on on the new one, and its late end does not hurt."""
    old, new = new_connection(), new_connection()
    desk.connect(old)
    command = desk.submit()
    desk.say(old, frames.accepted(command.command_id))
    closing, *rest = desk.connect(new, in_flight=[command.command_id], now=1.0)
    assert isinstance(closing, Close)
    assert closing.connection is old
    assert rest == []
    assert not desk.disconnect(old, now=2.0)
    assert desk.ledger.next_due() == pytest.approx(60.0 + DEADLINE_ALLOWANCE_S)  # no grace runs
    later = desk.submit(now=3.0)
    assert desk.sent[0].connection is new
    assert summary(desk.say(new, frames.finished(command.command_id), now=4.0)) == ["conclude EXITED"]
    desk.say(new, *frames.ran(later.command_id), now=4.0)
    desk.settle_all()
    desk.assert_empty()


def test_late_frames_of_a_replaced_connection_do_no_harm(
    desk: Any, new_connection: New, frames: Any, summary: Summary
) -> None:
    """What was still in the old stream's last message is the same instance's word, and ends the command once."""
    old, new = new_connection(), new_connection()
    desk.connect(old)
    command = desk.submit()
    name = command.command_id
    desk.say(old, frames.accepted(name), frames.output(name, 0, b"a"))
    desk.connect(new, unacked=[name], now=1.0)
    late = desk.say(old, frames.output(name, 1, b"b"), frames.finished(name), now=1.0)
    assert summary(late) == ["conclude EXITED"]
    assert command.result.stdout == b"ab"
    again = [frames.output(name, 0, b"a"), frames.output(name, 1, b"b"), frames.finished(name)]
    assert desk.say(new, *again, now=1.1) == []
    [ack] = desk.settle(command)
    assert ack.connection is new
    desk.assert_empty()


# Time


def test_the_deadline_ends_a_command_that_nobody_answers(
    desk: Any, new_connection: New, frames: Any, summary: Summary
) -> None:
    """The executor has a moment to say it itself; then the output so far is the result, and it is told to stop."""
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit(now=0.0, timeout_s=10.0)
    name = command.command_id
    desk.say(open_, frames.accepted(name), frames.started(name), frames.output(name, 0, b"so far"))
    assert desk.ledger.next_due() == pytest.approx(10.0 + DEADLINE_ALLOWANCE_S)
    assert desk.tick(10.0) == []
    assert summary(desk.tick(10.0 + DEADLINE_ALLOWANCE_S)) == ["cancel", "conclude TIMED_OUT"]
    assert command.result.stdout == b"so far"
    assert command.result.error.reason == Reason.COMMAND_TIMEOUT
    assert command.result.error.executed == YES
    desk.settle(command)
    desk.assert_empty()


def test_a_late_result_is_acknowledged_and_changes_nothing(desk: Any, new_connection: New, frames: Any) -> None:
    """After the deadline: first while the result is being stored, then when it is forgotten here."""
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit(now=0.0, timeout_s=10.0)
    name = command.command_id
    desk.say(open_, frames.accepted(name))
    desk.tick(20.0)
    assert desk.say(open_, frames.started(name), frames.output(name, 0, b"x"), frames.finished(name), now=21.0) == []
    assert command.result.outcome == command_pb2.OUTCOME_TIMED_OUT
    assert [action.frame.WhichOneof("frame") for action in desk.settle(command)] == ["result_ack"]
    [ack] = desk.say(open_, frames.finished(name), now=22.0)
    assert ack.frame.result_ack.command_id == name
    desk.assert_empty()


def test_a_duplicate_result_changes_nothing(desk: Any, new_connection: New, frames: Any) -> None:
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit()
    desk.say(open_, *frames.ran(command.command_id, b"x"))
    first = command.result
    assert desk.say(open_, *frames.ran(command.command_id, b"y")) == []
    assert command.result is first
    assert command.result.stdout == b"x"


def test_the_deadline_does_not_wait_for_the_grace(desk: Any, new_connection: New, summary: Summary) -> None:
    """An absent executor's command ends at its deadline, before the grace is over."""
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit(now=0.0, timeout_s=2.0)
    desk.disconnect(open_, now=1.0)
    [*_, last] = summary(desk.tick(2.0 + DEADLINE_ALLOWANCE_S))
    assert last == "conclude TIMED_OUT"
    assert command.result.error.executed == UNKNOWN
    desk.settle(command)
    assert desk.tick(1.0 + GRACE_S) == []
    desk.assert_empty()


def test_after_the_grace_a_command_is_lost(desk: Any, new_connection: New, frames: Any, summary: Summary) -> None:
    """Its executor has not come back; one that comes later is told to drop it."""
    first, second = new_connection(), new_connection()
    desk.connect(first)
    command = desk.submit()
    desk.say(first, frames.accepted(command.command_id))
    desk.disconnect(first, now=1.0)
    assert desk.ledger.next_due() == 1.0 + GRACE_S
    assert desk.tick(1.0 + GRACE_S - 0.001) == []
    assert summary(desk.tick(1.0 + GRACE_S)) == ["conclude LOST"]
    desk.settle(command)
    assert desk.connect(second, in_flight=[command.command_id], now=12.0) == []
    assert desk.verdicts == {command.command_id: "VERDICT_ACTION_DROP"}
    desk.assert_empty()


def test_a_reconnect_ends_the_grace(desk: Any, new_connection: New, frames: Any, summary: Summary) -> None:
    """A second break begins a new one."""
    first, second = new_connection(), new_connection()
    desk.connect(first)
    command = desk.submit()
    desk.say(first, frames.accepted(command.command_id))
    desk.disconnect(first, now=1.0)
    desk.connect(second, in_flight=[command.command_id], now=9.0)
    assert desk.tick(20.0) == []
    desk.disconnect(second, now=30.0)
    assert desk.tick(39.9) == []
    assert summary(desk.tick(40.0)) == ["conclude LOST"]


def test_a_connection_without_commands_is_forgotten_at_once(desk: Any, new_connection: New) -> None:
    open_ = new_connection()
    desk.connect(open_)
    desk.disconnect(open_, now=1.0)
    desk.assert_empty()


# Verdicts


def test_verdicts_say_what_is_waited_for(desk: Any, new_connection: New, frames: Any) -> None:
    """Kept: what this instance holds here, done or not, as long as the result is not stored. The rest is dropped."""
    first, second = new_connection(), new_connection()
    desk.connect(first)
    running, done, stored = desk.submit(), desk.submit(), desk.submit()
    desk.say(first, frames.accepted(running.command_id))
    desk.say(first, *frames.ran(done.command_id), *frames.ran(stored.command_id))
    desk.settle(stored)
    desk.disconnect(first, now=1.0)
    listed = [done.command_id, stored.command_id, "never-heard-of"]
    desk.connect(second, in_flight=[running.command_id], unacked=listed, now=2.0)
    assert desk.verdicts == {
        running.command_id: "VERDICT_ACTION_KEEP",
        done.command_id: "VERDICT_ACTION_KEEP",
        stored.command_id: "VERDICT_ACTION_DROP",
        "never-heard-of": "VERDICT_ACTION_DROP",
    }


def test_what_has_ended_here_is_not_run_on(desk: Any, new_connection: New, frames: Any, summary: Summary) -> None:
    """It was given up after the grace, and its result waits for Redis: whoever asked was told that it is lost."""
    first, second = new_connection(), new_connection()
    desk.connect(first)
    running, finished = desk.submit(), desk.submit()
    for command in (running, finished):
        desk.say(first, frames.accepted(command.command_id))
    desk.disconnect(first, now=1.0)
    assert summary(desk.tick(1.0 + GRACE_S)) == ["conclude LOST", "conclude LOST"]
    assert desk.connect(second, in_flight=[running.command_id], unacked=[finished.command_id], now=12.0) == []
    assert desk.verdicts == {
        running.command_id: "VERDICT_ACTION_DROP",
        # This one may be offered until its end is stored, whose ResultAck follows.
        finished.command_id: "VERDICT_ACTION_KEEP",
    }
    assert desk.say(second, frames.finished(finished.command_id), now=12.0) == []
    desk.settle_all()
    desk.assert_empty()


def test_the_result_of_a_command_that_ended_while_away_is_acknowledged_on_the_new_connection(
    desk: Any, new_connection: New, frames: Any
) -> None:
    first, second = new_connection(), new_connection()
    desk.connect(first)
    command = desk.submit()
    desk.say(first, *frames.ran(command.command_id))
    desk.disconnect(first, now=1.0)
    desk.connect(second, unacked=[command.command_id], now=2.0)
    [ack] = desk.settle(command)
    assert ack.connection is second


# What is not believed


@pytest.mark.parametrize(
    "impostor",
    [
        {"cluster_id": "staging"},
        {"executor_id": "exec-2"},
        {"instance_id": "i-2", "executor_id": "exec-2"},
        {"cluster_id": "staging", "instance_id": "i-2"},
    ],
)
def test_only_the_holder_is_believed(desk: Any, new_connection: New, frames: Any, impostor: dict[str, str]) -> None:
    """Another cluster's executor, or another executor of the same, may say any instance id and any command id."""
    holder, other = new_connection(), new_connection(**impostor)
    desk.connect(holder)
    command = desk.submit()
    desk.connect(other, in_flight=[command.command_id])
    assert desk.verdicts == {command.command_id: "VERDICT_ACTION_DROP"}
    assert desk.say(other, *frames.ran(command.command_id, b"forged")) == []
    assert command.state is State.WRITTEN
    assert command.result is None


def test_two_executors_of_one_instance_id_do_not_mix(
    desk: Any, new_connection: New, frames: Any, summary: Summary
) -> None:
    """An instance id is unique for its executor only: both wait, each for its own grace, and are resumed apart."""
    prod, staging = new_connection("prod"), new_connection("staging")
    desk.connect(prod)
    desk.connect(staging)
    in_prod, in_staging = desk.submit("prod"), desk.submit("staging")
    desk.disconnect(prod, now=1.0)
    desk.disconnect(staging, now=5.0)
    assert summary(desk.tick(1.0 + GRACE_S)) == ["conclude LOST"]
    assert in_prod.result is not None
    assert in_staging.result is None
    assert summary(desk.connect(new_connection("staging"), now=12.0)) == ["execute"]
    assert in_staging.state is State.WRITTEN


def test_a_frame_about_an_unknown_command_changes_nothing(desk: Any, new_connection: New, frames: Any) -> None:
    """Only a result is answered, so that the executor stops offering it."""
    open_ = new_connection()
    desk.connect(open_)
    for frame in (frames.accepted("x"), frames.started("x"), frames.output("x", 0, b""), frames.rejected("x")):
        assert desk.say(open_, frame) == []
    [ack] = desk.say(open_, frames.finished("x"))
    assert ack.frame.result_ack.command_id == "x"
    desk.assert_empty()


@pytest.mark.parametrize("disorder", ["started", "finished", "output", "gap", "rejected late", "outcome"])
def test_disorder_ends_the_command_and_only_that(
    desk: Any, new_connection: New, frames: Any, summary: Summary, disorder: str
) -> None:
    """The stream and the other commands on it go on; the executor is told to stop that one."""
    open_ = new_connection()
    desk.connect(open_)
    command, other = desk.submit(), desk.submit()
    name = command.command_id
    said = {
        "started": [frames.started(name)],
        "finished": [frames.finished(name)],
        "output": [frames.output(name, 0, b"x")],
        "gap": [frames.accepted(name), frames.output(name, 1, b"x")],
        "rejected late": [frames.accepted(name), frames.rejected(name)],
        "outcome": [frames.accepted(name), frames.finished(name, outcome=99)],
    }[disorder]
    assert summary(desk.say(open_, *said)) == ["cancel", "conclude LOST"]
    assert command.result.error.reason == Reason.EXECUTOR_LOST
    assert summary(desk.say(open_, *frames.ran(other.command_id))) == ["conclude EXITED"]
    desk.settle_all()
    desk.assert_empty()


def test_an_outcome_that_is_not_said_is_disorder(desk: Any, new_connection: New, frames: Any) -> None:
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit()
    name = command.command_id
    desk.say(open_, frames.accepted(name), frames.finished(name, outcome=command_pb2.OUTCOME_UNSPECIFIED))
    assert command.result.outcome == command_pb2.OUTCOME_LOST


def test_accepted_and_started_may_be_said_again(desk: Any, new_connection: New, frames: Any) -> None:
    """An executor that gets the same Execute twice answers twice."""
    open_ = new_connection()
    desk.connect(open_)
    command = desk.submit()
    name = command.command_id
    twice = [
        frames.accepted(name),
        frames.accepted(name),
        frames.started(name),
        frames.accepted(name),
        frames.started(name),
    ]
    assert desk.say(open_, *twice) == []
    assert command.state is State.RUNNING


def test_frames_that_are_not_about_commands_are_not_the_ledgers(desk: Any, new_connection: New) -> None:
    assert desk.say(new_connection(), executor_service_pb2.ExecutorFrame()) == []
    heartbeat = executor_service_pb2.Heartbeat()
    assert desk.say(new_connection(), executor_service_pb2.ExecutorFrame(heartbeat=heartbeat)) == []


def test_its_repr_counts(desk: Any, new_connection: New) -> None:
    open_ = new_connection()
    desk.connect(open_)
    desk.submit()
    desk.disconnect(open_, now=0.0)
    assert repr(desk.ledger) == "<Ledger <Account commands=1 waiting=0 <Connections []> away=1>>"


def test_sends_go_to_connections_that_were_registered(desk: Any, new_connection: New) -> None:
    """The verdicts come before any frame: Welcome is what the stream begins with."""
    first, second = new_connection(), new_connection()
    desk.connect(first)
    desk.submit()
    desk.disconnect(first)
    assert all(isinstance(action, Send) and action.connection is second for action in desk.connect(second))
